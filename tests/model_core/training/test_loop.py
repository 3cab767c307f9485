"""A run that goes on is the run that wasn't stopped, and a lost cause is said to be one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from model_core.attention import Fused
from model_core.checkpoints.load import load
from model_core.checkpoints.sources import locate
from model_core.training.crew import ALONE, Crew
from model_core.training.errors import TrainingError
from model_core.training.loop import Choice, Ending, Loop
from model_core.training.run_files import read_run
from model_core.training.run_folder import (
    BEST,
    LAST,
    MOMENTS_FILE,
    PARAMETERS_FILE,
    RunFolder,
    write_folder,
)
from model_core.training.runs import CausalLM, Run
from tests.support.training import (
    TINY_LLAMA,
    Nobody,
    classify_settings,
    embed_settings,
    go,
    masked_settings,
    seq2seq_settings,
    stop_after,
    with_settings,
    write_labelled,
    write_matches,
    write_pairs,
    write_sentences,
)


def tiny_run(folder: Path, **training: Any) -> dict[str, Any]:
    return {
        "model": {"architecture": TINY_LLAMA},
        "data": {"train": str(write_sentences(folder / "texts.jsonl", 300)), "max_tokens": 16},
        "tokenizer": {"vocab_size": 300},
        "optimizer": {"learning_rate": 3e-3},
        "schedule": {"warmup_steps": 4},
        "training": {
            "steps": 12, "batch_size": 8, "evaluate_every": 5, "dropout": 0.1, "accumulation": 2,
            **training,
        },
    }  # fmt: skip


def bytes_of(output: Path) -> dict[str, bytes]:
    state = RunFolder(output).newest_state()
    best = RunFolder(output).path(BEST)
    assert state is not None
    assert best is not None
    return {
        "parameters": (state / PARAMETERS_FILE).read_bytes(),
        "moments": (state / MOMENTS_FILE).read_bytes(),
        "best": (best / "model.safetensors").read_bytes(),
        "best step": best.name.encode(),
    }


@pytest.mark.parametrize("calls", [1, 7])
def test_a_run_that_was_stopped_and_goes_on_is_the_one_that_was_not(tmp_path: Path, calls: int):
    settings = tiny_run(tmp_path)
    whole = go("causal_lm", settings, tmp_path / "whole")
    stopped = go("causal_lm", settings, tmp_path / "cut", is_stopping=stop_after(calls))
    assert (stopped.story.ending, stopped.story.step) == (Ending.STOPPED, calls)
    resumed = go("causal_lm", settings, tmp_path / "cut", resume=True)
    assert resumed.story.step == 12
    assert [s.loss for s in resumed.story.steps] == [s.loss for s in whole.story.steps]
    assert resumed.story.measurements == whole.story.measurements
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("recipe", "write", "settings"),
    [
        ("masked_lm", write_sentences, masked_settings),
        ("seq2seq", write_pairs, seq2seq_settings),
        ("classify", write_labelled, classify_settings),
        ("embed", write_matches, embed_settings),
    ],
)
def test_so_is_a_run_of_every_recipe(
    tmp_path: Path,
    recipe: str,
    write: Callable[[Path], Path],
    settings: Callable[..., dict[str, Any]],
):
    data = write(tmp_path / "data.jsonl")
    values = settings(data, steps=7, evaluate_every=4, dropout=0.1)
    # A vocabulary that is the same each time it is learned.
    values["tokenizer"] = {"pattern": r"\w", **values["tokenizer"], "kind": "words"}
    whole = go(recipe, values, tmp_path / "whole")
    go(recipe, values, tmp_path / "cut", is_stopping=stop_after(3))
    resumed = go(recipe, values, tmp_path / "cut", resume=True)
    assert [s.loss for s in resumed.story.steps] == [s.loss for s in whole.story.steps]
    assert resumed.figures == whole.figures
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


def test_another_seed_is_another_run(tmp_path: Path):
    first, second = (
        go("causal_lm", tiny_run(tmp_path, seed=seed, steps=2), tmp_path / str(seed))
        for seed in (1, 2)
    )
    assert first.story.steps[0].loss != second.story.steps[0].loss


def test_batches_that_are_accumulated_are_as_one_large_batch(tmp_path: Path):
    def gradient_norm(rows: int, accumulation: int) -> float:
        settings = tiny_run(
            tmp_path, steps=1, dropout=0.0, batch_size=rows, accumulation=accumulation
        )
        outcome = go("causal_lm", settings, tmp_path / f"{rows}")
        return outcome.story.steps[0].gradient_norm

    # All examples of an epoch, in one batch or in several of different sizes: sums in float32.
    whole = gradient_norm(1000, 1)
    settings = tiny_run(tmp_path, steps=1, dropout=0.0, batch_size=100, accumulation=1)
    count = go("causal_lm", settings, tmp_path / "count").prepared.task.batches_per_epoch
    assert count > 1
    assert gradient_norm(100, count) == pytest.approx(whole, rel=1e-4)


def test_blocks_that_are_computed_twice_give_the_same_bits(tmp_path: Path):
    once, twice = (
        go("causal_lm", tiny_run(tmp_path, gradient_checkpointing=on, steps=4), tmp_path / str(on))
        for on in (False, True)
    )
    assert [s.loss for s in once.story.steps] == [s.loss for s in twice.story.steps]
    assert bytes_of(tmp_path / "False") == bytes_of(tmp_path / "True")


def test_bfloat16_learns_too_and_keeps_float32_parameters(tmp_path: Path):
    outcome = go("causal_lm", tiny_run(tmp_path, precision="bf16", steps=10), tmp_path / "run")
    steps = outcome.story.steps
    assert steps[-1].loss < steps[0].loss
    state = RunFolder(tmp_path / "run").newest_state()
    assert state is not None
    parameters = load_file(state / PARAMETERS_FILE)
    assert {value.dtype for value in parameters.values()} == {torch.float32}


def test_checkpoints_are_loadable_and_no_more_are_kept_than_wanted(tmp_path: Path):
    output = tmp_path / "run"
    outcome = go("causal_lm", tiny_run(tmp_path, evaluate_every=2, keep_last=2), output)
    folder = RunFolder(output)
    kept = {path.name for path in (output / "checkpoints").iterdir()}
    assert kept == {"step-10", "step-12", f"step-{outcome.story.best_step}"}
    assert [path.name for path in (output / "states").iterdir()] == ["step-12"]
    for name in (BEST, LAST):
        located = locate(str(folder.folder / name), cache=tmp_path)
        loaded = load(located, Fused(), ("language_model",))
        assert not loaded.unused
    last = folder.path(LAST)
    assert last is not None
    assert last.name == "step-12"
    report = (output / "report.md").read_text()
    assert "tokens drawn by their frequency" in report
    assert not [path for path in output.rglob(".*") if path.name not in {".", ".."}]


@pytest.mark.parametrize("kind", [OSError, SafetensorError])
def test_a_folder_is_written_whole_or_not_at_all(kind: type[Exception], tmp_path: Path):
    target = tmp_path / "step-1"

    def fail(folder: Path) -> None:
        (folder / "half").write_text("…")
        raise kind("the disk is full")

    with pytest.raises(TrainingError, match=r"step-1 can't be written: .*full"):
        write_folder(target, fail)
    assert not list(tmp_path.iterdir())
    write_folder(target, lambda folder: None)
    with pytest.raises(TrainingError, match=r"step-1 can't be written: .*full"):
        write_folder(target, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
    assert not list(target.iterdir())


def test_a_folder_that_another_process_trains_in_is_refused(tmp_path: Path):
    settings = tiny_run(tmp_path, steps=1)
    held = RunFolder(tmp_path / "run")
    with held.claimed(), pytest.raises(TrainingError, match="another process trains in"):
        go("causal_lm", settings, held.folder)
    assert held.newest_state() is None
    go("causal_lm", settings, held.folder)
    assert held.newest_state() is not None


def test_a_folder_that_holds_a_run_is_not_written_over(tmp_path: Path):
    settings = tiny_run(tmp_path, steps=1)
    go("causal_lm", settings, tmp_path / "run")
    with pytest.raises(TrainingError, match=r"holds a run already.*--resume"):
        go("causal_lm", settings, tmp_path / "run")
    with pytest.raises(TrainingError, match="taken 1 of 1 steps already"):
        go("causal_lm", settings, tmp_path / "run", resume=True)
    with pytest.raises(TrainingError, match="no run to go on with"):
        go("causal_lm", settings, tmp_path / "other", resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="is a file"):
        go("causal_lm", settings, tmp_path / "file")


def test_a_run_goes_on_with_its_own_data_and_model_alone(tmp_path: Path):
    settings = tiny_run(tmp_path)
    go("causal_lm", settings, tmp_path / "run", is_stopping=stop_after(2))
    wide = with_settings(settings, model={"architecture": {**TINY_LLAMA, "hidden_size": 64}})
    with pytest.raises(TrainingError, match="another model's"):
        go("causal_lm", wide, tmp_path / "run", resume=True)
    write_sentences(tmp_path / "texts.jsonl", 300, seed=9)
    with pytest.raises(TrainingError, match="not the data that the run began with"):
        go("causal_lm", settings, tmp_path / "run", resume=True)


def test_a_damaged_state_is_named(tmp_path: Path):
    settings = tiny_run(tmp_path)
    go("causal_lm", settings, tmp_path / "run", is_stopping=stop_after(1))
    state = RunFolder(tmp_path / "run").newest_state()
    assert state is not None
    (state / MOMENTS_FILE).write_bytes(b"\0" * 100)
    with pytest.raises(TrainingError, match=r"step-1 is damaged"):
        go("causal_lm", settings, tmp_path / "run", resume=True)


def test_a_learning_rate_that_tears_the_model_apart_is_said_to(tmp_path: Path):
    settings = with_settings(tiny_run(tmp_path), optimizer={"learning_rate": 1e30, "clip": 0})
    with pytest.raises(TrainingError, match=r"(?s)the loss is .* at step .*learning_rate"):
        go("causal_lm", settings, tmp_path / "run")


class Given:
    """A task whose validation figures are given."""

    def __init__(self, values: list[float], choice: Choice) -> None:
        self.model = nn.Linear(1, 1)
        self.values = iter(values)
        self.choice = choice
        self.batches_per_epoch = 1

    def batch(self, number: int, crew: Crew = ALONE) -> torch.Tensor:
        return torch.full((1, 1), float(number))

    def units(self, batch: torch.Tensor) -> int:
        return 1

    def tokens(self, batch: torch.Tensor) -> int:
        return 1

    def loss(self, batch: torch.Tensor) -> torch.Tensor:
        return self.model(batch).square().sum()

    def evaluate(self) -> dict[str, float]:
        return {self.choice.figure: next(self.values)}

    def write(self, folder: Path) -> None:
        (folder / "model").write_text("")


def go_given(tmp_path: Path, values: list[float], *, higher: bool, **training: Any) -> Loop:
    run: Run = read_run(CausalLM, None, {
        "model.source": "none", "data.train": "none", "training.steps": len(values),
        "training.evaluate_every": 1, **{f"training.{key}": v for key, v in training.items()},
    })  # fmt: skip
    loop = Loop(Given(values, Choice("score", higher)), run, RunFolder(tmp_path), Nobody())
    loop.go()
    return loop


def test_the_best_checkpoint_is_that_of_the_best_figure(tmp_path: Path):
    for higher, best in ((True, "step-2"), (False, "step-3")):
        loop = go_given(tmp_path / str(higher), [2.0, 5.0, 1.0, 4.0], higher=higher)
        path = loop.folder.path(BEST)
        assert path is not None
        assert path.name == best


def test_training_ends_early_once_patience_is_over(tmp_path: Path):
    loop = go_given(tmp_path, [3.0, 2.0, 2.5, 2.0, 1.0, 0.5], higher=False, patience=2)
    assert (loop.story.ending, loop.story.step, loop.story.best_step) == (Ending.EARLY, 4, 2)


def test_a_figure_that_is_no_number_ends_the_run(tmp_path: Path):
    with pytest.raises(TrainingError, match="the loss is nan at step 2"):
        go_given(tmp_path, [1.0, float("nan")], higher=False)
