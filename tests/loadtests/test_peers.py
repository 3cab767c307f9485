"""How peers are compared; the peers themselves run in `python -m loadtests.peers` alone."""

import sys
from pathlib import Path

import pytest

from loadtests.peers.comparison import Comparison, Row, alternate, as_markdown
from loadtests.peers.environments import PEERS, script_of
from loadtests.peers.worker_process import WorkerFailed, worker

WORKERS = script_of(PEERS["encoder"]).parent
ECHO = f"""
import sys
sys.path.insert(0, {str(WORKERS)!r})
from line_loop import serve_lines
def say(word):
    print("a library that prints")
    return {{"said": word}}
def leave():
    sys.exit(3)
serve_lines({{"say": say, "leave": leave}})
"""


def test_a_worker_answers_line_by_line(tmp_path: Path) -> None:
    with worker([sys.executable, "-c", ECHO], log=tmp_path / "log") as echo:
        assert echo.ask("say", word="time\nflies") == {"said": "time\nflies"}
        assert echo.ask("say", word="é") == {"said": "é"}
    assert echo.process.returncode == 0
    assert (tmp_path / "log").read_text().count("a library that prints") == 2


def test_an_error_in_a_worker_is_reported_with_its_log(tmp_path: Path) -> None:
    with worker([sys.executable, "-c", ECHO], log=tmp_path / "log") as echo:
        with pytest.raises(WorkerFailed, match="KeyError"):
            echo.ask("sing")
        assert echo.ask("say", word="still there") == {"said": "still there"}
        with pytest.raises(WorkerFailed, match="ended at 'leave'"):
            echo.ask("leave")


def test_rounds_alternate_and_so_does_who_goes_first() -> None:
    order: list[str] = []
    speeds = iter(range(1, 7))

    def run(name: str) -> float:
        order.append(name)
        return float(next(speeds))

    found = alternate({"a": lambda: run("a"), "b": lambda: run("b")}, 3, lambda _: None)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": (1.0, 4.0, 5.0), "b": (2.0, 3.0, 6.0)}


def test_the_ratio_is_of_neighbours_in_time() -> None:
    # The machine halves its speed after the first round: the ratio of each round stays 2.
    ours = Row("ours", "1", "", (400.0, 200.0, 200.0))
    theirs = Row("theirs", "2", "", (200.0, 100.0, 100.0))
    found = Comparison("MiniLM", "texts/s", ours, theirs)
    assert found.ratios == (2.0, 2.0, 2.0)
    assert "| ours | 200.0 | 200.0–400.0 | 1 |  |" in as_markdown(found)
    assert "Ours / theirs: 2.00 (median of 3 rounds, 2.00–2.00)." in as_markdown(found)


def test_every_peer_has_its_script() -> None:
    assert all(script_of(peer).is_file() for peer in PEERS.values())
