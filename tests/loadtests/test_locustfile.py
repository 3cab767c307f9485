"""Locust's users as people run them: a process of its own against a service over fake models."""

import csv
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from loadtests.report.figures import Figures, read_json
from tests.support.documents import ROOT
from tests.support.fakes import FakeEmbeddingModel, FakeGenerationModel, FakeRanker
from tests.support.servers import running
from tests.support.service import served

NAMES = ("--embedder", "embedder", "--classifier", "classifier", "--generator", "generator")
KEPT = "slos: {chat: {first_token_ms: 30000}}\nthresholds: {good_share: 0.9, failed_share: 0}\n"


def run(
    folder: Path, url: str, *arguments: str, slos: str = KEPT, seconds: int = 2
) -> subprocess.CompletedProcess[str]:
    """Locust without its page; its reports go to `folder`."""
    corpus, objectives = folder / "corpus.txt", folder / "slos.yaml"
    corpus.write_text("time flies\nlike an arrow\n")
    objectives.write_text(slos)
    command = [
        sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", *arguments, "--headless",
        "--run-time", f"{seconds}s", "--host", url, "--report", str(folder / "out"),
        "--slos", str(objectives), *NAMES, "--only-summary",
    ]  # fmt: skip
    environment = os.environ | {"LOADTESTS_CORPUS": str(corpus), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def figures(folder: Path) -> Figures:
    return read_json(folder / "out" / "figures.json")


def test_the_mix_asks_everything_and_leaves_its_reports(tmp_path: Path) -> None:
    model = FakeGenerationModel(script=["word "] * 5, pause_s=0.01)
    with running(served(generator=model, ranker=FakeRanker())) as url:
        # Workers may take a second or two of it to begin.
        done = run(tmp_path, url, "MixedUser", "--users", "4", "--processes", "2", seconds=6)
    assert done.returncode == 0, done.stderr
    found = figures(tmp_path)
    assert {task.task for task in found.tasks} == {"embeddings", "classification", "rerank", "chat"}
    assert found.faults == ()
    assert found.settings["workers"] == "2"
    (chat,) = [task for task in found.tasks if task.task == "chat"]
    # Four gaps of at least 0.01 s: what the model slept is in every one of them.
    assert chat.inter_token_ms["p50"] is not None
    assert chat.inter_token_ms["p50"] > 5
    with (tmp_path / "out" / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == found.total.asked > 20
    assert {row["tokens"] for row in rows if row["task"] == "chat"} == {"5"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") >= 5
    # What it shows is in it: it asks nobody for anything.
    assert not [part for part in ("<script", "<link", "@import", " src=") if part in page]
    for entry in ("chat: time to first token", "chat: inter-token latency", "chat: end to end"):
        assert entry in done.stderr + done.stdout


def test_an_open_loop_counts_from_when_a_request_was_due(tmp_path: Path) -> None:
    slow = FakeGenerationModel(script=["word "] * 3, pause_s=0.2)
    with running(served(generator=slow)) as url:
        done = run(
            tmp_path, url, "ChatUser", "--users", "2", "--arrivals", "poisson", "--rate", "10",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = figures(tmp_path)
    # Twenty a second for two seconds, each of which takes 0.6 s: two users of a closed loop would
    # have asked seven times.
    assert 15 < found.total.asked < 80
    assert found.total.answered == found.total.asked
    assert found.lag_ms["p99"] is not None
    with (tmp_path / "out" / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["latency_s"]) >= 0.6 + float(row["lag_s"]) - 0.05 for row in rows)
    assert max(Counter(int(float(row["due_s"])) for row in rows).values()) > 4


@pytest.mark.parametrize("arrivals", ["closed", "poisson"])
def test_what_is_unanswered_at_the_end_has_failed(tmp_path: Path, arrivals: str) -> None:
    stuck = FakeGenerationModel(script=["word "] * 3, pause_s=30.0)
    with running(served(generator=stuck)) as url:
        done = run(tmp_path, url, "ChatUser", "--users", "2", "--arrivals", arrivals, "--rate", "4",
                   "--stop-timeout", "1")  # fmt: skip
    assert done.returncode == 1
    found = figures(tmp_path)
    assert found.total.failed == found.total.asked >= 2
    assert "no answer by the end of the run" in (tmp_path / "out" / "rows.csv").read_text()


@pytest.mark.parametrize(
    ("slos", "said"),
    [
        ("slos: {embeddings: {end_to_end_ms: 0.001}}\nthresholds: {good_share: 0.5}", "were good"),
        ("thresholds: {failed_share: 0}", "of requests failed"),
    ],
)
def test_a_broken_threshold_is_the_exit_code(tmp_path: Path, slos: str, said: str) -> None:
    model = FakeEmbeddingModel(fill=float("nan") if "failed" in slos else None)
    with running(served(embedder=model)) as url:
        done = run(tmp_path, url, "EmbeddingsUser", "--users", "1", slos=slos, seconds=1)
    assert done.returncode == 1
    assert "threshold broken: " in done.stderr
    assert said in done.stderr
    assert "Thresholds were broken" in (tmp_path / "out" / "report.html").read_text()


def test_refusals_are_shed_and_not_failed(tmp_path: Path) -> None:
    model = FakeEmbeddingModel()
    model.is_full = True
    with running(served(embedder=model)) as url:
        done = run(tmp_path, url, "EmbeddingsUser", "--users", "1", slos="{}", seconds=1)
    found = figures(tmp_path)
    assert found.total.shed == found.total.asked > 0
    assert found.total.failed == 0
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--slos", "/nowhere.yaml"), "/nowhere.yaml can't be read"),
        (("--rate", "0"), "--rate 0.0"),
        (("--host", "http://192.0.2.1"), "LOADTESTS_ANYWHERE=1"),
        (("--shape", "pyramid"), "invalid choice: 'pyramid'"),
    ],
)
def test_what_cant_be_done_is_said_before_anything_is_asked(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--headless"]
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert said in done.stderr
