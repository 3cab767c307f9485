"""Tiny runs of recipes: data that can be learned in seconds, and nobody who watches."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

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
) -> Outcome:
    """Carry out a run of `recipe` with `settings` by section, in `output`."""
    found: Recipe = import_module(f"model_core.training.recipes.{recipe}").RECIPE
    flat = {
        f"{section}.{key}" if isinstance(values, Mapping) else section: value
        for section, values in settings.items()
        for key, value in (values.items() if isinstance(values, Mapping) else [("", values)])
    }
    run = read_run(found.run, None, flat)
    around = Surroundings(
        output.with_name("cache"), lambda what: None, lambda folder, prepared: Nobody(), is_stopping
    )
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


def stop_after(calls: int) -> Callable[[], bool]:
    """Says to stop when it is asked for the `calls`-th time."""
    asked = 0

    def is_stopping() -> bool:
        nonlocal asked
        asked += 1
        return asked >= calls

    return is_stopping
