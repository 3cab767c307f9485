"""Workers that Ray starts: what one worker does, also when one is killed; Ctrl-C leaves nothing.

Minutes, as each run starts a cluster: `pytest -m workers`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from model_core.commands import app
from model_core.training.run_folder import RunFolder
from tests.support.processes import descendants, parents
from tests.support.training import TINY_LLAMA, write_matches, write_sentences

COMMAND = "from service.cli import main; main()"
LIMIT_S = 900


def write_settings(folder: Path, steps: int) -> Path:
    values = {
        "model": {"architecture": TINY_LLAMA},
        "data": {"train": str(write_sentences(folder / "texts.jsonl", 300)), "max_tokens": 16},
        "tokenizer": {"vocab_size": 300},
        "optimizer": {"learning_rate": 3e-3},
        "training": {"steps": steps, "batch_size": 9, "evaluate_every": 5},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    return folder / "run.yaml"


@contextmanager
def training(config: Path, output: Path) -> Iterator[subprocess.Popen[str]]:
    arguments = ["train", "causal-lm", "--config", str(config), "--output", str(output)]
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments, "--workers", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not happened():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "nothing happened for too long"
        time.sleep(0.1)


@pytest.mark.workers
def test_workers_one_of_which_is_killed_train_what_one_does(tmp_path: Path):
    config = write_settings(tmp_path, 60)
    whole = CliRunner().invoke(
        app, ["causal-lm", "--config", str(config), "--output", str(tmp_path / "one")]
    )
    assert whole.exit_code == 0, whole.output
    folder = RunFolder(tmp_path / "two")
    with training(config, tmp_path / "two") as process:
        wait_for(lambda: folder.newest_state() is not None, process)
        victims = descendants(process.pid, "RayTrainWorker")
        assert len(victims) == 2
        os.kill(min(victims), signal.SIGKILL)
        said, _ = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, said
    one, two = RunFolder(tmp_path / "one").read_state(), folder.read_state()
    assert [step["step"] for step in two.figures["steps"]] == list(range(1, 61))
    for ours, theirs in zip(one.figures["steps"], two.figures["steps"], strict=True):
        # Sums of float32 in another order, over sixty steps.
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-5)
    for name, value in one.parameters.items():
        torch.testing.assert_close(two.parameters[name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert not (tmp_path / "two" / ".ray").exists()


@pytest.mark.workers
def test_ctrl_c_saves_and_leaves_no_process(tmp_path: Path):
    config = write_settings(tmp_path, 100_000)
    folder = RunFolder(tmp_path / "run")
    with training(config, tmp_path / "run") as process:
        wait_for(lambda: folder.newest_state() is not None, process)
        started = descendants(process.pid)
        assert started
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 130, said
        assert "--resume" in said
    deadline = time.monotonic() + 30
    while started & parents().keys() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not started & parents().keys()
    state = folder.read_state()
    assert state.figures["ending"] == "stopped"
    assert state.figures["step"] == len(state.figures["steps"])


def test_what_needs_a_whole_batch_takes_one_worker(tmp_path: Path):
    data = write_matches(tmp_path / "data.jsonl")
    found = CliRunner().invoke(
        app, ["embed", "--data", str(data), "--output", str(tmp_path / "run"), "--workers", "2"]
    )
    assert found.exit_code == 2
    assert "No such option" in found.output
