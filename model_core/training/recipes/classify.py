"""Classification: which label a text has, or which ones; all of a model is trained.

The head that the family has, on the vector that the family reads. Afterwards logits are divided by
the temperature that fits the validation part best (Guo et al. 2017): answers stay, confidence
comes to be true.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from model_core.heads import Classifier
from model_core.pooling import pool
from model_core.training.crew import ALONE, Crew
from model_core.training.errors import TrainingError
from model_core.training.head import divide
from model_core.training.loop import Choice, device_of, evaluating
from model_core.training.metrics import (
    accuracy,
    expected_calibration_error,
    macro_f1,
    several_f1,
    temperature,
)
from model_core.training.order import ShuffledBatches, in_order
from model_core.training.outputs import Outputs
from model_core.training.parts import read_parts
from model_core.training.recipes.recipe import (
    Prepared,
    Recipe,
    Say,
    tokens_allowed,
    write_checkpoint,
)
from model_core.training.rows import Rows
from model_core.training.run_folder import RunFolder
from model_core.training.runs import Classify
from model_core.training.starting_point import Start, Wanted, start
from model_core.training.tables import Column, Row, as_text
from model_core.training.vocabulary import READING

HEAD: Final = "sequence_classifier"
LEAST_TEMPERATURE: Final = 0.5
"""Where the validation part is all right, no confidence would be too much."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Token ids of texts; of each its label's number [N], or which labels it has [N, C]."""

    texts: Sequence[Sequence[int]]
    labels: Tensor

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [len(ids) for ids in self.texts]


@dataclass(frozen=True, slots=True)
class Texts:
    """A batch: rows, and their labels as in `Examples`."""

    rows: Rows
    labels: Tensor


class ClassifyTask:
    """Labels of texts."""

    choice = Choice("macro_f1", higher=True)

    def __init__(self, run: Classify, begun: Start, train: Examples, validation: Examples) -> None:
        self.begun = begun
        self.model = begun.model
        self.train = train
        self.validation = validation
        self.multi_label = run.multi_label
        section = run.training
        self.limits: dict[str, Any] = {"rows": section.batch_size, "tokens": section.batch_tokens}
        self.batches = ShuffledBatches(train.lengths, **self.limits, seed=section.seed)
        self.device = device_of(section.device)
        self.model.to(self.device)
        weigh = weights_of_several if run.multi_label else weights_of_one
        self.weights_C = weigh(train.labels, len(begun.description.labels), run.balance).to(
            self.device
        )

    @property
    def batches_per_epoch(self) -> int:
        return self.batches.size(0)

    def batch(self, number: int, crew: Crew = ALONE) -> Texts:
        return self.some(self.train, crew.share(self.batches[number]))

    def some(self, of: Examples, indices: Sequence[int]) -> Texts:
        """Some examples as a batch."""
        rows = Rows.of([of.texts[index] for index in indices], self.device)
        return Texts(rows, of.labels[list(indices)].to(self.device))

    def units(self, batch: Texts) -> int:
        return len(batch.labels)

    def tokens(self, batch: Texts) -> int:
        return batch.rows.tokens

    def loss(self, batch: Texts) -> Tensor:
        return self.loss_of(self.outputs(self.begun, batch), batch)

    def outputs(self, begun: Start, batch: Texts) -> Outputs:
        return replace(classified(begun, batch.rows), several=self.multi_label)

    def loss_of(self, outputs: Outputs, batch: Texts) -> Tensor:
        logits_BC = outputs.logits
        if self.multi_label:
            losses = F.binary_cross_entropy_with_logits(
                logits_BC, batch.labels, pos_weight=self.weights_C, reduction="sum"
            )
            return losses / logits_BC.shape[1]
        losses_B = F.cross_entropy(logits_BC, batch.labels, reduction="none")
        return (losses_B * self.weights_C[batch.labels]).sum()

    def evaluate(self) -> Mapping[str, float]:
        return figures_of(self.scores(), self.validation.labels, multi_label=self.multi_label)

    def scores(self) -> Tensor:
        """Logits [N, C] of the validation part, in its order, on the CPU."""
        found = torch.empty(len(self.validation.texts), len(self.begun.description.labels))
        for rows in in_order(self.validation.lengths, **self.limits):
            batch = self.some(self.validation, rows)
            found[rows] = class_scores(self.begun, batch.rows).float().cpu()
        return found

    def write(self, folder: Path) -> None:
        write_checkpoint(self.begun, folder)


def class_scores(begun: Start, rows: Rows) -> Tensor:
    """Logits [B, C] of texts."""
    return classified(begun, rows).logits


def classified(begun: Start, rows: Rows) -> Outputs:
    """Hidden states of texts, and logits [B, C] of the vector that the head reads."""
    transformer = begun.model.transformer
    read = transformer.encode if transformer.encoder is not None else transformer.decode
    hidden_BSE = read(rows.token_ids, rows.layout())
    head = cast("Classifier", begun.model.heads[HEAD])
    if head.pooling is None:
        raise TypeError("this head classifies tokens, not texts")
    logits_BC = head(pool(hidden_BSE, rows.lengths, head.pooling)).float()
    return Outputs(hidden_BSE[rows.real], logits_BC)


def weights_of_one(labels_N: Tensor, classes: int, balance: float) -> Tensor:
    """How much an example of each class weighs [C]: its share^-balance, 1 on average."""
    share_C = torch.bincount(labels_N, minlength=classes).clamp(min=1) / len(labels_N)
    weight_C = share_C**-balance
    return weight_C / (share_C * weight_C).sum()


def weights_of_several(labels_NC: Tensor, classes: int, balance: float) -> Tensor:
    """How much having each label weighs against not having it [C]: (without / with)^balance."""
    del classes
    with_C = labels_NC.sum(dim=0).clamp(min=1)
    return ((len(labels_NC) - with_C).clamp(min=1) / with_C) ** balance


def figures_of(logits_NC: Tensor, labels: Tensor, *, multi_label: bool) -> dict[str, float]:
    """What logits are worth against labels."""
    if multi_label:
        said_NC, is_NC = logits_NC > 0, labels > 0
        micro, macro = several_f1(said_NC, is_NC)
        return {
            "loss": F.binary_cross_entropy_with_logits(logits_NC, labels).item(),
            "exact_match": (said_NC == is_NC).all(dim=1).float().mean().item(),
            "micro_f1": micro,
            "macro_f1": macro,
        }
    predicted_N = logits_NC.argmax(dim=-1)
    return {
        "loss": F.cross_entropy(logits_NC, labels).item(),
        "accuracy": accuracy(predicted_N, labels),
        "macro_f1": macro_f1(predicted_N, labels, logits_NC.shape[1]),
        "calibration_error": expected_calibration_error(logits_NC.softmax(dim=-1), labels),
    }


def baseline_of(train: Examples, validation: Examples, classes: int, *, multi_label: bool):
    """The figures of saying the same of every text: how frequent the labels are in training."""
    if multi_label:
        share_C = train.labels.mean(dim=0).clamp(1e-4, 1 - 1e-4)
        logits_C = share_C.logit()
    else:
        logits_C = (torch.bincount(train.labels, minlength=classes) / len(train.labels)).log()
        logits_C = logits_C.clamp(min=-20)
    logits_NC = logits_C.expand(len(validation.texts), -1)
    return figures_of(logits_NC, validation.labels, multi_label=multi_label)


# --- data -----------------------------------------------------------------------------------------


def as_label(value: Any) -> str:
    """A label: a text, a number, or true and false."""
    return str(value).lower() if isinstance(value, bool) else as_text(value).strip()


def as_labels(value: Any, separator: str) -> tuple[str, ...]:
    """Several labels: a list of them, or one text that they stand in; none is none."""
    parts = cast("list[Any]", value) if isinstance(value, list) else str(value).split(separator)
    return tuple(as_label(part) for part in parts if str(part).strip())


def labels_in(rows: Sequence[Row], column: str, *, multi_label: bool) -> tuple[str, ...]:
    """The labels that there are, in order; numbers in theirs.

    Raises `TrainingError` where there is nothing to tell apart.
    """
    found = {label for row in rows for label in (row[column] if multi_label else [row[column]])}
    if len(found) < (1 if multi_label else 2):
        only = f"only the label {next(iter(found))!r}" if found else "no label at all"
        raise TrainingError(
            f"column {column!r} has {only}; a classifier needs "
            f"{'one' if multi_label else 'two'} at least to learn"
        )
    is_numeric = all(label.isdecimal() for label in found)
    return tuple(sorted(found, key=int if is_numeric else str))


def examples_of(
    run: Classify, begun: Start, rows: Sequence[Row], size: int
) -> tuple[Examples, int]:
    """Rows as token ids and label numbers, and how many texts were cut to `size` tokens."""
    texts = begun.tokenizer.encode_batch([row[run.data.text_column] for row in rows])
    cut = [begun.tokenizer.cut(ids, size) for ids in texts]
    shortened = sum(len(before) > len(after) for before, after in zip(texts, cut, strict=True))
    # A text of no tokens is read as one of padding.
    cut = [ids or [begun.tokenizer.pad_id or 0] for ids in cut]
    labels = begun.description.labels
    number = {label: place for place, label in enumerate(labels)}
    stated = [row[run.data.label_column] for row in rows]
    if not run.multi_label:
        return Examples(cut, torch.tensor([number[label] for label in stated])), shortened
    several_NC = torch.zeros(len(rows), len(labels))
    for place, names in enumerate(stated):
        several_NC[place, [number[name] for name in names]] = 1.0
    return Examples(cut, several_NC), shortened


def prepare(run: Classify, output: Path, cache: Path, say: Say) -> Prepared:
    """Labelled texts → a model with a head for the labels → token ids."""
    say("reading the data")
    data = run.data
    columns = [
        Column(data.text_column, "--text-column", as_text),
        Column(
            data.label_column,
            "--label-column",
            (lambda value: as_labels(value, data.separator)) if run.multi_label else as_label,
        ),
    ]
    parts = read_parts(data, columns, data.text_column)
    labels_in(parts.train, data.label_column, multi_label=run.multi_label)
    labels = labels_in(
        [*parts.train, *parts.validation], data.label_column, multi_label=run.multi_label
    )
    say("making the model")
    texts = (row[data.text_column] for row in parts.train)
    begun = start(run, Wanted(HEAD, READING, labels, run.multi_label), texts, output, cache)
    if len(begun.model.transformer.config.stacks) > 1:
        raise TrainingError("an encoder-decoder can't be trained to classify; name an encoder")
    size = tokens_allowed(data.max_tokens, begun)
    say("tokenizing")
    train, shortened = examples_of(run, begun, parts.train, size)
    validation, shortened_too = examples_of(run, begun, parts.validation, size)
    task = ClassifyTask(run, begun, train, validation)
    return Prepared(
        task=task,
        start=begun,
        tables=parts.tables,
        baseline=baseline_of(train, validation, len(labels), multi_label=run.multi_label),
        baseline_name="the same answer always, by frequency",
        facts={
            "labels": f"{len(labels)}" + (", several at once" if run.multi_label else ""),
            "texts to train on": f"{len(train.texts):,}",
            "texts to validate on": f"{len(validation.texts):,}",
            "texts cut short": f"{shortened + shortened_too:,}, to {size} tokens",
        },
        finish=lambda folder: finish(run, task, folder),
    )


def finish(run: Classify, task: ClassifyTask, folder: RunFolder) -> Mapping[str, float]:
    """Put the temperature that fits the validation part best into the head's weights."""
    if not run.calibrate:
        return {}
    with evaluating(task.model):
        logits_NC = task.scores()
    loss = F.binary_cross_entropy_with_logits if run.multi_label else F.cross_entropy
    with torch.enable_grad():
        found = temperature(logits_NC, task.validation.labels, loss)
    found = max(found, LEAST_TEMPERATURE)
    divide(cast("Classifier", task.model.heads[HEAD]), found)
    folder.write_result("calibrated", task.write)
    with evaluating(task.model):
        figures = dict(task.evaluate())
    return {**figures, "temperature": found}


RECIPE = Recipe(Classify, prepare)
