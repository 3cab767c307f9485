"""Tiny runs of recipes: data that can be learned in seconds, and nobody who watches."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from model_core.training.crew import ALONE, Crew
from model_core.training.execution import Surroundings, carry_out
from model_core.training.loop import Measurement, Step
from model_core.training.recipes.recipe import Recipe
from model_core.training.report import Outcome
from model_core.training.run_files import over, read_run

TINY_LLAMA = {
    "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}  # fmt: skip
TINY_BERT = {
    "model_type": "bert", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 32,
}  # fmt: skip
TINY_ORIGINAL = {
    "model_type": "transformer", "d_model": 32, "nhead": 4, "num_encoder_layers": 1,
    "num_decoder_layers": 1, "dim_feedforward": 64, "max_position_embeddings": 32,
}  # fmt: skip

SIGNS = {"animal": ["cat", "dog", "bird"], "food": ["soup", "bread"], "place": ["city", "lake"]}
FILLING = ["a", "the", "of", "old", "near", "quite", "one", "that"]


class Nobody:
    """Watches nothing."""

    def on_step(self, step: Step, steps: int) -> None: ...

    def on_measurement(self, measurement: Measurement, is_best: bool) -> None: ...


def go(
    recipe: str,
    settings: Mapping[str, Any],
    output: Path,
    *,
    resume: bool = False,
    is_stopping: Callable[[], bool] = lambda: False,
    crew: Crew = ALONE,
) -> Outcome:
    """Carry out a run of `recipe` with `settings` by section, in `output`."""
    flat = {
        f"{section}.{key}" if isinstance(values, Mapping) else section: value
        for section, values in settings.items()
        for key, value in (values.items() if isinstance(values, Mapping) else [("", values)])
    }
    return carry_out_run(
        recipe, None, flat, output, resume=resume, is_stopping=is_stopping, crew=crew
    )


def carry_out_file(file: Path, overrides: Mapping[str, Any], output: Path) -> Outcome:
    """Carry out the run of a file, which names its recipe, with `overrides` by dotted keys."""
    recipe = yaml.safe_load(file.read_text(encoding="utf-8"))["recipe"].replace("-", "_")
    return carry_out_run(recipe, file, overrides, output)


def carry_out_run(
    recipe: str,
    file: Path | None,
    overrides: Mapping[str, Any],
    output: Path,
    *,
    resume: bool = False,
    is_stopping: Callable[[], bool] = lambda: False,
    crew: Crew = ALONE,
) -> Outcome:
    """Carry out a run of `recipe`, which nobody watches."""
    found: Recipe = import_module(f"model_core.training.recipes.{recipe}").RECIPE
    run = read_run(found.run, file, overrides)
    around = Surroundings(
        output.with_name("cache"), lambda what: None, lambda folder, prepared: Nobody(),
        is_stopping, crew,
    )  # fmt: skip
    return carry_out(found, run, output, around, resume=resume)


def with_settings(settings: Mapping[str, Any], **sections: Any) -> dict[str, Any]:
    """`settings` with other values in some sections."""
    return over(settings, sections)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_sentences(path: Path, count: int = 600, seed: int = 0) -> Path:
    """Texts in which each word says much about the next one."""
    draw = random.Random(seed)
    nouns, verbs = ["cat", "dog", "bird", "fish"], {"cat": "purrs", "dog": "barks", "bird": "sings"}
    lines = []
    for _ in range(count):
        noun = draw.choice(nouns)
        lines.append(f"the {noun} {verbs.get(noun, 'swims')} in the {draw.choice(nouns)} house")
    return write_rows(path, [{"text": line} for line in lines])


def write_labelled(path: Path, count: int = 500, *, several: bool = False) -> Path:
    """Texts of filling words with a sign of each of their labels; `animal` is half of them."""
    draw = random.Random(0)
    rows = []
    for _ in range(count):
        labels = draw.choices(list(SIGNS), weights=[2, 1, 1], k=1)
        if several:
            labels = [label for label in SIGNS if draw.random() < 0.4]
        words = [draw.choice(SIGNS[label]) for label in labels] + draw.choices(FILLING, k=5)
        draw.shuffle(words)
        rows.append({"text": " ".join(words), "label": labels if several else labels[0]})
    return write_rows(path, rows)


def write_pairs(path: Path, count: int = 400) -> Path:
    """Letters and, for each, its capital and a mark: what copying gets all wrong."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=draw.randint(2, 5))) for _ in range(count)]
    return write_rows(path, [
        {"source": word, "target": " ".join(f"{letter.upper()}1" for letter in word)}
        for word in words
    ])  # fmt: skip


def write_matches(path: Path) -> Path:
    """Pairs of letters and, for each, the pair of their capitals, with a word that says nothing."""
    draw = random.Random(0)
    pairs = [(a, b) for a in "abcdefghij" for b in "klmnopqrst"]
    rows = []
    for a, b in pairs * 5:
        filling = draw.choices(["so", "and", "then"], k=2)
        rows.append({
            "anchor": f"{a} {filling[0]} {b}", "positive": f"{filling[1]} {a.upper()} {b.upper()}",
            "negative": f"{a.upper()} {draw.choice('klmnopqrst').upper()}",
        })  # fmt: skip
    return write_rows(path, rows)


def classify_settings(data: Path, **training: Any) -> dict[str, Any]:
    """A run of seconds over `write_labelled`."""
    return {
        "model": {"architecture": TINY_BERT},
        "data": {"train": str(data), "validation_share": 0.2},
        "tokenizer": {"vocab_size": 200},
        "optimizer": {"learning_rate": 3e-3},
        "schedule": {"warmup_steps": 10},
        "training": {
            "steps": 90, "batch_size": 16, "evaluate_every": 30, "dropout": 0.0, **training,
        },
    }  # fmt: skip


def seq2seq_settings(pairs: Path, **training: Any) -> dict[str, Any]:
    """A run of seconds over `write_pairs`."""
    return {
        "model": {"architecture": TINY_ORIGINAL},
        "data": {"train": str(pairs), "validation_share": 0.1},
        "tokenizer": {"kind": "words", "pattern": "[a-z]|[A-Z]1", "vocab_size": 50},
        "optimizer": {"learning_rate": 5e-3},
        "schedule": {"warmup_steps": 40},
        "training": {
            "steps": 240, "batch_size": 32, "evaluate_every": 40, "dropout": 0.0, **training,
        },
    }  # fmt: skip


def embed_settings(data: Path, **training: Any) -> dict[str, Any]:
    """A run of seconds over `write_matches`."""
    return {
        "model": {"architecture": TINY_BERT},
        "data": {"train": str(data), "validation_share": 0.2},
        "tokenizer": {"vocab_size": 200, "min_frequency": 1},
        "optimizer": {"learning_rate": 3e-3},
        "schedule": {"warmup_steps": 10},
        "training": {
            "steps": 100, "batch_size": 32, "evaluate_every": 50, "dropout": 0.0, **training,
        },
    }  # fmt: skip


def masked_settings(texts: Path, **training: Any) -> dict[str, Any]:
    """A run of seconds over `write_sentences`."""
    return {
        "model": {"architecture": TINY_BERT},
        "data": {"train": str(texts), "max_tokens": 18},
        "tokenizer": {"vocab_size": 200},
        "optimizer": {"learning_rate": 1e-2},
        "schedule": {"warmup_steps": 10},
        "training": {"steps": 120, "batch_size": 16, "evaluate_every": 60, **training},
    }


def stop_after(calls: int) -> Callable[[], bool]:
    """Says to stop when it is asked for the `calls`-th time."""
    asked = 0

    def is_stopping() -> bool:
        nonlocal asked
        asked += 1
        return asked >= calls

    return is_stopping
