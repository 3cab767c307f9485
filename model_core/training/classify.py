"""The recipe for a classifier's head, top to bottom.

data → split → the frozen trunk's vectors → regressions, the best on validation, calibrated →
figures on the test part → `head.safetensors` and `head.json`, which the exporter reads.
"""

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save
from torch import Tensor

from model_core.checkpoints.sources import locate
from model_core.heads import Classifier
from model_core.training.data import ClassificationData, Examples, read_classification_data
from model_core.training.errors import TrainingError
from model_core.training.head import Embedder, Trained, Vectors, predict, scores, train_head
from model_core.training.metrics import (
    accuracy,
    expected_calibration_error,
    f1_by_class,
    macro_f1,
)

WEIGHTS_FILE: Final = "head.safetensors"
CARD_FILE: Final = "head.json"
DIGITS: Final = 4

Report = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much (0: not known)."""


@dataclass(frozen=True, slots=True)
class HeadRecipe:
    """Which data a head is trained on, on the embeddings of which model, and where it goes.

    `command` is what a person wrote: it is kept with the result.
    """

    data: str
    model: str
    output: Path
    seed: int
    command: str


@dataclass(frozen=True, slots=True)
class Figures:
    """How good a classifier is on examples it has not seen; shares from 0 to 1.

    The majority class is the most frequent one of the training part, said always.
    """

    accuracy: float
    macro_f1: float
    majority_accuracy: float
    majority_macro_f1: float
    expected_calibration_error: float
    uncalibrated_error: float


@dataclass(frozen=True, slots=True)
class Result:
    """A trained head, its figures on the test part and each class's F1 there."""

    trained: Trained
    figures: Figures
    f1_by_label: dict[str, float]


def train_classifier_head(recipe: HeadRecipe, cache: Path, report: Report) -> Result:
    """Run `recipe`, keeping in `cache` a model that has to be fetched.

    Raises `TrainingError` or what reading the model raises, and then writes nothing.
    """
    check_writable(recipe.output)
    report("reading the data", 0, 0)
    data = read_classification_data(recipe.data)
    embedder = Embedder.of(locate(recipe.model, cache=cache, on_progress=report))
    train, validation, test = embed_parts(data, embedder, report)
    result = train_on(data, train, validation, test, recipe.seed, report)
    write_head(recipe.output, result.trained.head, card(recipe, data, result))
    return result


def embed_parts(
    data: ClassificationData, embedder: Embedder, report: Report
) -> tuple[Vectors, Vectors, Vectors]:
    """The three parts of `data` as vectors."""
    parts = (data.train, data.validation, data.test)
    total = sum(len(part.texts) for part in parts)
    before = 0
    embedded: list[Vectors] = []
    for part in parts:
        vectors = embed_part(part, embedder, report, before, total)
        embedded.append(vectors)
        before += len(part.texts)
    train, validation, test = embedded
    return train, validation, test


def embed_part(
    part: Examples, embedder: Embedder, report: Report, before: int, total: int
) -> Vectors:
    """One part, `before` texts of `total` having been embedded before it."""

    def on_progress(done: int, of: int) -> None:
        del of
        report("embedding texts", before + done, total)

    values = embedder.embed(part.texts, on_progress)
    return Vectors(values, torch.tensor(part.labels, dtype=torch.long))


def train_on(
    data: ClassificationData,
    train: Vectors,
    validation: Vectors,
    test: Vectors,
    seed: int,
    report: Report,
) -> Result:
    """The best head, and what it is worth on the test part, which took no part in choosing it."""
    classes = len(data.labels)
    trained = train_head(
        train,
        validation,
        classes,
        seed=seed,
        on_progress=lambda done, total: report("fitting regressions", done, total),
    )
    predicted_N = predict(trained.head, test.values)
    by_class_C = f1_by_class(predicted_N, test.labels, classes)
    named = {
        label: round(by_class_C[number].item(), DIGITS)
        for number, label in enumerate(data.labels)
        if not by_class_C[number].isnan()
    }
    return Result(trained, measure(trained, train, test, classes), named)


def measure(trained: Trained, train: Vectors, test: Vectors, classes: int) -> Figures:
    """The figures of `trained` on `test`."""
    logits_NC = scores(trained.head, test.values)
    predicted_N = logits_NC.argmax(dim=-1)
    majority = torch.bincount(train.labels, minlength=classes).argmax()
    majority_N = torch.full_like(test.labels, int(majority))
    return Figures(
        accuracy=accuracy(predicted_N, test.labels),
        macro_f1=macro_f1(predicted_N, test.labels, classes),
        majority_accuracy=accuracy(majority_N, test.labels),
        majority_macro_f1=macro_f1(majority_N, test.labels, classes),
        expected_calibration_error=calibration_error(logits_NC, test),
        uncalibrated_error=calibration_error(logits_NC * trained.temperature, test),
    )


def calibration_error(logits_NC: Tensor, test: Vectors) -> float:
    """Expected calibration error of the probabilities that a softmax makes of logits."""
    return expected_calibration_error(logits_NC.softmax(dim=-1), test.labels)


def card(recipe: HeadRecipe, data: ClassificationData, result: Result) -> dict[str, Any]:
    """What stands in `head.json`: the labels in order, and where the head comes from."""
    trained = result.trained
    return {
        "labels": list(data.labels),
        "model": recipe.model,
        "data": data.source,
        "licence": data.licence,
        "command": recipe.command,
        "seed": recipe.seed,
        "split": {
            "by": data.split_by,
            "train": len(data.train.texts),
            "validation": len(data.validation.texts),
            "test": len(data.test.texts),
            "dropped": data.dropped,
        },
        "chosen_on_validation": {
            "l2": trained.regression.l2,
            "balance": trained.regression.balance,
            "temperature": round(trained.temperature, DIGITS),
            "macro_f1": round(trained.validation_macro_f1, DIGITS),
        },
        "test": {name: round(value, DIGITS) for name, value in asdict(result.figures).items()},
        "test_f1_by_label": result.f1_by_label,
    }


def check_writable(output: Path) -> None:
    """Refuse before the work what could not be written after it."""
    if output.exists() and not output.is_dir():
        raise TrainingError(f"{output} is a file; name a folder for the head")
    existing = next(folder for folder in (output, *output.absolute().parents) if folder.exists())
    if not os.access(existing, os.W_OK):
        raise TrainingError(f"{existing} can't be written to; name another folder for the head")


def write_head(output: Path, head: Classifier, about: dict[str, Any]) -> None:
    """Both files into `output`, each whole or not at all, others there left alone."""
    state = {name: value.contiguous() for name, value in head.state_dict().items()}
    text = json.dumps(about, indent=1, ensure_ascii=False) + "\n"
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".head-", dir=output) as fresh:
        (Path(fresh) / WEIGHTS_FILE).write_bytes(save(state))
        (Path(fresh) / CARD_FILE).write_text(text, encoding="utf-8")
        for name in (WEIGHTS_FILE, CARD_FILE):
            (Path(fresh) / name).replace(output / name)
