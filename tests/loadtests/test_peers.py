"""How peers are compared; the peers themselves run in `python -m loadtests.peers` alone."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from loadtests.machine import Machine, this_machine
from loadtests.peers.comparison import (
    Comparison,
    Missing,
    Row,
    leads,
    read,
    save,
    take_turns,
)
from loadtests.peers.contenders import (
    DECODERS,
    ENCODERS,
    SERVERS,
    TRANSLATORS,
    Contender,
    Environment,
)
from loadtests.peers.jobs import same_start
from loadtests.peers.limits import Cost, Limits, Product, Reading
from loadtests.peers.stage import WORKERS, Run, Stage, summary
from loadtests.peers.worker_process import WorkerFailed, worker

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
MACHINE = Machine("a processor", ("avx512_vnni",), 2, 24, "Linux, Python 3.11")
LIMITS = Limits(
    (
        Product("one", "fp32", 512, 384, 1152, 400.0),
        Product("other", "fp32", 512, 384, 1152, 200.0),
        Product("one", "int8", 512, 384, 1152, 1600.0),
    ),
    (Reading(1, 20.0), Reading(2, 40.0)),
)


def row(name: str, *speeds: float, unit: str = "texts/s", limit: float | None = None) -> Row:
    precision = name.rsplit("-", 1)[-1]
    return Row(name, precision, name.startswith("ours"), "1.0", "", {unit: speeds}, limit)


def compared(*rows: Row, job: str = "encoder", variant: str = "") -> Comparison:
    return Comparison(
        job=job,
        variant=variant,
        title="MiniLM",
        units=tuple(rows[0].figures),
        agreement="",
        rounds=len(next(iter(rows[0].figures.values()))),
        machine=MACHINE,
        limits=LIMITS,
        rows=rows,
        missing=(Missing("peer-bf16", "its installation failed"),),
    )


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


def test_who_fails_is_dropped_by_name_and_the_others_go_on(tmp_path: Path) -> None:
    contenders = {name: Contender(name, None, "echo", (), "fp32") for name in ("a", "b")}
    said: list[str] = []
    with (
        worker([sys.executable, "-c", ECHO], log=tmp_path / "a") as a,
        worker([sys.executable, "-c", "pass"], log=tmp_path / "b") as b,
    ):
        stage = Stage(contenders, said.append, {"a": a, "b": b})
        assert stage.ask_all("say", word="hm") == {"a": {"said": "hm"}}
        assert list(stage.workers) == ["a"]
    assert [one.name for one in stage.missing] == ["b"]
    assert any("b is left out" in line for line in said)


def test_a_reason_names_no_folders() -> None:
    assert (
        summary("it ended; see /home/me/log:\nKeyError: 'x'") == "it ended; see log: KeyError: 'x'"
    )
    assert len(summary("word " * 200)) <= 300


def test_rounds_take_turns_and_who_goes_first_moves_on() -> None:
    order: list[str] = []

    def run(name: str) -> Callable[[], Mapping[str, float]]:
        def turn() -> Mapping[str, float]:
            order.append(name)
            return {"texts/s": float(len(order))}

        return turn

    found = take_turns({name: run(name) for name in "abc"}, 3, lambda _: None, WorkerFailed)
    assert "".join(order) == "abc" + "bca" + "cab"
    assert found.figures["a"] == {"texts/s": (1.0, 6.0, 8.0)}
    assert found.failures == {}


def test_who_fails_in_a_round_has_no_figures_at_all() -> None:
    answers = iter([{"texts/s": 1.0}])

    def run() -> Mapping[str, float]:
        try:
            return next(answers)
        except StopIteration:
            raise WorkerFailed("out of memory") from None

    found = take_turns({"a": lambda: {"texts/s": 2.0}, "b": run}, 2, lambda _: None, WorkerFailed)
    assert found.figures == {"a": {"texts/s": (2.0, 2.0)}}
    assert found.failures == {"b": "out of memory"}


def test_the_lead_is_over_neighbours_in_time() -> None:
    # The machine halves its speed after the first round: the lead in each round stays 2.
    ours, theirs = row("ours-int8", 400, 200, 200), row("peer-int8", 200, 100, 100)
    assert leads(ours, theirs, "texts/s") == (2.0, 2.0, 2.0)


def test_ahead_in_milliseconds_is_shorter() -> None:
    ours, theirs = row("ours", 1, 2, unit="p50 ms"), row("peer", 10, 20, unit="p50 ms")
    assert leads(ours, theirs, "p50 ms") == (10.0, 10.0)
    found = compared(ours, theirs)
    assert found.best(found.rows, "p50 ms") is ours


def test_a_saved_comparison_is_read_again(tmp_path: Path) -> None:
    found = compared(row("ours-int8", 4, 5, limit=10.0), row("peer-fp32", 2, 3), variant="x")
    path = save(found, tmp_path)
    assert path.name == "encoder-x.json"
    assert read(path) == found


def test_the_limit_is_the_fastest_product_or_reading_whichever_takes_longer() -> None:
    assert Cost(4e9).speed(LIMITS, "fp32") == pytest.approx(100)
    # 1 G weights of four bytes at 40 GB/s take 0.1 s, longer than the products' 0.01 s.
    assert Cost(4e9, weights=1e9).speed(LIMITS, "fp32") == pytest.approx(10)
    assert Cost(1.6e9, weights=1e6).speed(LIMITS, "int4") == pytest.approx(1000)
    assert Cost(1.0).speed(LIMITS, "bf16") is None


def test_tokens_agree_until_the_first_that_differs() -> None:
    assert same_start([[1, 2, 3, 4], [1, 9, 3, 4]], [[1, 2, 3, 4], [1, 2, 3, 4]]) == 0.625


def test_against_names_peers_or_environments_and_ours_take_part_anyway() -> None:
    environment = Environment("openvino", ())
    peers = [Contender(f"openvino-{kind}", environment, "", (), kind) for kind in ("fp32", "bf16")]
    ours = Contender("ours-fp32", None, "", (), "fp32")

    def chosen(*against: str) -> list[str]:
        run = Run(Path(), 1, against, (), lambda _: None)
        return [one.name for one in (*peers, ours) if run.takes(one)]

    assert chosen() == ["openvino-fp32", "openvino-bf16", "ours-fp32"]
    assert chosen("openvino") == ["openvino-fp32", "openvino-bf16", "ours-fp32"]
    assert chosen("*-bf16") == ["openvino-bf16", "ours-fp32"]
    assert chosen("nobody") == ["ours-fp32"]


def test_the_machine_is_described_without_names() -> None:
    found = this_machine()
    assert found.cores >= 1
    assert found.processor


@pytest.mark.parametrize("job", [ENCODERS, DECODERS, TRANSLATORS, SERVERS])
def test_contenders_have_their_scripts_and_a_name_of_their_own(job: tuple[Contender, ...]) -> None:
    assert len({one.name for one in job}) == len(job)
    for one in job:
        assert one.is_ours == one.name.startswith("ours-")
        if one.environment:
            assert (WORKERS / one.script).is_file(), one.name
        elif job is not SERVERS:  # there ours are the product's own command
            assert (WORKERS.parent / f"{one.script}.py").is_file(), one.name
