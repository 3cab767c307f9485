"""Processes that share every batch take the steps that one alone takes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed
from torch.multiprocessing.spawn import start_processes

from model_core.training.crew import Crew
from model_core.training.run_folder import PARAMETERS_FILE, RunFolder
from tests.support.training import (
    TINY_LLAMA,
    classify_settings,
    go,
    masked_settings,
    seq2seq_settings,
    with_settings,
    write_labelled,
    write_pairs,
    write_sentences,
)

SIZE = 2


def take_part(rank: int, folder: str, runs: dict[str, dict[str, Any]]) -> None:
    """What each process does: every run, with the others."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=SIZE
    )
    for name, settings in runs.items():
        go(name, settings, Path(folder) / "together" / name, crew=Crew(rank, SIZE))
    distributed.destroy_process_group()


def test_two_processes_train_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    texts = write_sentences(tmp_path / "texts.jsonl", 120)
    # Batches that end an epoch with one example, so that a process has none.
    portions = {"batch_size": 7, "accumulation": 2, "steps": 6, "evaluate_every": 4}
    causal = {
        "model": {"architecture": TINY_LLAMA},
        "data": {"train": str(texts), "max_tokens": 16},
        "tokenizer": {"vocab_size": 300},
        "optimizer": {"learning_rate": 3e-3},
    }
    runs = {
        "causal_lm": causal,
        "masked_lm": masked_settings(texts),
        "seq2seq": seq2seq_settings(write_pairs(tmp_path / "pairs.jsonl", 60)),
        "classify": classify_settings(write_labelled(tmp_path / "labelled.jsonl", 60)),
    }
    runs = {name: with_settings(each, training=portions) for name, each in runs.items()}
    for each in runs.values():
        # A vocabulary that is the same each time it is learned.
        each["tokenizer"] = {"pattern": r"\w|[A-Z]1", **each["tokenizer"], "kind": "words"}
    start_processes(take_part, (str(tmp_path), runs), nprocs=SIZE, start_method="spawn")
    for name, settings in runs.items():
        alone = go(name, settings, tmp_path / "alone" / name).story
        folders = [RunFolder(tmp_path / how / name) for how in ("alone", "together")]
        one, two = (folder.read_state() for folder in folders)
        # Sums of float32 in another order.
        for ours, theirs in zip(alone.steps, two.figures["steps"], strict=True):
            assert theirs["loss"] == pytest.approx(ours.loss, rel=1e-4), name
            assert theirs["gradient_norm"] == pytest.approx(ours.gradient_norm, rel=1e-3)
            assert theirs["tokens"] == ours.tokens
        for key, value in one.parameters.items():
            # What is added to all keys alike changes no weight: its gradient is rounding, of which
            # AdamW makes steps as large as of any other.
            if key.endswith("attention.key.bias"):
                continue
            torch.testing.assert_close(two.parameters[key], value, rtol=1e-3, atol=1e-4, msg=key)
        assert (folders[1].folder / "report.md").is_file()
        state = folders[1].newest_state()
        assert state is not None
        assert load_file(state / PARAMETERS_FILE).keys() == one.parameters.keys()


def test_shares_are_all_of_a_batch():
    rows = list(range(5))
    assert [list(Crew(rank, 3).share(rows)) for rank in range(3)] == [[0, 3], [1, 4], [2]]
    assert list(Crew(2, 3).share([0, 1])) == []
