"""Tokens a second of training: our loop and transformers' `Trainer`, the same model, in one run.

    .venv/bin/python -m loadtests.training_speed --rounds 4

A GPT-2 of ten million parameters in float32, the same weights, blocks and settings of AdamW. Both
train in this process and take turns; who begins changes from round to round. A step's first loss
has to be the same, so that both do the same work. transformers is a reference here, as in tests.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import (
    GPT2LMHeadModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import logging

from model_core.training.loop import Loop, Measurement, Step
from model_core.training.recipes.causal_lm import HEAD, CausalTask
from model_core.training.recipes.recipe import write_checkpoint
from model_core.training.run_files import read_run
from model_core.training.run_folder import RunFolder
from model_core.training.runs import CausalLM
from model_core.training.starting_point import Start, Wanted, start
from model_core.training.vocabulary import WRITING

VOCABULARY = 14_000
ARCHITECTURE = {
    "model_type": "gpt2", "n_embd": 256, "n_layer": 8, "n_head": 4, "n_positions": 256,
    "vocab_size": VOCABULARY, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0,
}  # fmt: skip
RATE = 3e-4
SETTLED = 3
"""Steps of each turn before those that are timed."""


@dataclass
class Clock(TrainerCallback):
    """When steps ended; watches either of both."""

    ends: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def on_step(self, step: Step, steps: int) -> None:
        del steps
        self.ends.append(time.perf_counter())
        self.losses.append(step.loss)

    def on_measurement(self, measurement: Measurement, is_best: bool) -> None: ...

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())

    def on_log(self, *_: Any, logs: Any = None, **__: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])

    def speed(self, tokens: int) -> float:
        """Tokens a second of the steps that are timed, each of `tokens`."""
        timed = self.ends[SETTLED - 1 :]
        return tokens * (len(timed) - 1) / (timed[-1] - timed[0])


@dataclass(frozen=True)
class Work:
    """What both train on: blocks [N, S], of which the last token has no target."""

    blocks: np.ndarray
    rows: int
    steps: int

    @property
    def tokens(self) -> int:
        """That are predicted in a step."""
        return self.rows * (self.blocks.shape[1] - 1)


def ours(work: Work, begun: Start, run: CausalLM, folder: Path) -> Clock:
    """A turn of our loop, from the same weights each time."""
    clock = Clock()
    task = CausalTask(run, begun, work.blocks, work.blocks[:1], 1.0)
    Loop(task, run, RunFolder(folder), clock).go()
    return clock


def theirs(work: Work, checkpoint: Path, folder: Path) -> Clock:
    """A turn of transformers' `Trainer`, with what it does by default where ours has no opinion."""
    clock = Clock()
    ids = torch.from_numpy(work.blocks).long()
    rows = [{"input_ids": each, "labels": each} for each in ids]
    settings = TrainingArguments(
        output_dir=str(folder), max_steps=work.steps, per_device_train_batch_size=work.rows,
        learning_rate=RATE, weight_decay=0.1, adam_beta1=0.9, adam_beta2=0.95, max_grad_norm=1.0,
        lr_scheduler_type="constant", save_strategy="no", logging_strategy="steps",
        logging_steps=1, report_to="none", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    model = GPT2LMHeadModel.from_pretrained(checkpoint)
    trainer = Trainer(model, settings, train_dataset=rows, callbacks=[clock])  # pyright: ignore[reportArgumentType]
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock


def begin(folder: Path, run: CausalLM) -> Start:
    """Random weights for a vocabulary that nothing is read with."""
    return start(run, Wanted(HEAD, WRITING), ["a vocabulary that nothing is read with"],
                 folder / "run", folder / "cache")  # fmt: skip


def measure(
    rounds: Annotated[int, typer.Option(min=1, help="How often both take their turn.")] = 4,
    steps: Annotated[int, typer.Option(min=SETTLED + 2, help="Of a turn.")] = 18,
    rows: Annotated[int, typer.Option(min=1, help="Blocks of a step.")] = 8,
    tokens: Annotated[int, typer.Option(min=8, max=255, help="Targets of a block.")] = 255,
) -> None:
    """Take turns, and print the speeds and the ratios within rounds."""
    draw = np.random.default_rng(0)
    blocks = draw.integers(0, VOCABULARY, (rows * steps, tokens + 1)).astype(np.int32)
    work = Work(blocks, rows, steps)
    console = Console()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    speeds: dict[str, list[float]] = {"ours": [], "transformers": []}
    first: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room)
        run = read_run(CausalLM, None, {
            "model.architecture": ARCHITECTURE, "data.train": "none", "data.max_tokens": tokens,
            "optimizer.learning_rate": RATE, "schedule.kind": "constant",
            "schedule.warmup_steps": 0, "training.steps": steps, "training.batch_size": rows,
            "training.evaluate_every": steps,
        })  # fmt: skip
        begun = begin(folder, run)
        checkpoint = folder / "checkpoint"
        checkpoint.mkdir()
        write_checkpoint(begun, checkpoint)
        for number in range(rounds):
            for name in (list(speeds), list(reversed(speeds)))[number % 2]:
                place = folder / f"{name}-{number}"
                if name == "ours":
                    clock = ours(work, begin(folder / place, run), run, place)
                else:
                    clock = theirs(work, checkpoint, place)
                speeds[name].append(clock.speed(work.tokens))
                console.print(f"round {number + 1}: {name} {speeds[name][-1]:,.0f} tokens/s")
                first.setdefault(name, clock.losses[0])
    if abs(first["ours"] - first["transformers"]) > 0.02 * first["ours"]:
        raise SystemExit(f"the first losses differ, so this is not the same work: {first}")
    parameters = sum(parameter.numel() for parameter in begun.model.parameters())
    table = Table("", "tokens/s, median", "range", box=None)
    for name, found in speeds.items():
        median = statistics.median(found)
        table.add_row(name, f"{median:,.0f}", f"{min(found):,.0f}–{max(found):,.0f}")
    console.print(f"{parameters:,} parameters, {rows} blocks of {tokens} targets a step, "
                  f"{torch.get_num_threads()} threads, {rounds} rounds")  # fmt: skip
    console.print(table)
    ratios = [a / b for a, b in zip(speeds["ours"], speeds["transformers"], strict=True)]
    console.print(f"ours / transformers: {statistics.median(ratios):.2f} "
                  f"({min(ratios):.2f}–{max(ratios):.2f})")  # fmt: skip


if __name__ == "__main__":
    typer.run(measure)
