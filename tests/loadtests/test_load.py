"""`make load`: what it loads, and what it says where it can't."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.load import is_ready, service_at
from loadtests.report.figures import read_json
from loadtests.service_process import ServiceDidNotStart, free_port
from tests.support.documents import ROOT
from tests.support.fakes import FakeRanker
from tests.support.servers import running
from tests.support.service import served


def test_what_answers_is_taken() -> None:
    with running(served()) as url:
        assert is_ready(url)
        with service_at(url) as found:
            assert found == url
    with running(served(ready=False)) as url:
        assert not is_ready(url)
    assert not is_ready(f"http://127.0.0.1:{free_port()}")


def test_another_machines_service_is_not_started_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtests.load.is_ready", lambda url: False)
    with (
        pytest.raises(ServiceDidNotStart, match="start it, or name another --url"),
        service_at("http://192.0.2.1:8000"),
    ):
        pytest.fail("it has no service")


def test_a_short_mix_is_offered_and_judged(tmp_path: Path) -> None:
    corpus, slos = tmp_path / "corpus.txt", tmp_path / "slos.yaml"
    corpus.write_text("time flies\nlike an arrow\n")
    slos.write_text("thresholds: {failed_share: 0}\n")
    names = ("--embedder", "embedder", "--classifier", "classifier", "--generator", "generator")
    with running(served(ranker=FakeRanker())) as url:
        done = subprocess.run(
            [sys.executable, "-m", "loadtests.load", "--url", url, "--seconds", "2", "--users", "4",
             "--rate", "5", "--slos", str(slos), "--report", str(tmp_path / "out"), "--", *names],
            cwd=ROOT, env=os.environ | {"LOADTESTS_CORPUS": str(corpus), "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = read_json(tmp_path / "out" / "figures.json")
    assert found.settings["arrivals"] == "poisson"
    assert found.total.answered == found.total.asked > 10


def test_a_service_of_somebody_elses_is_left_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.load", "--url", "http://192.0.2.1"], cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "LOADTESTS_ANYWHERE=1" in done.stderr
