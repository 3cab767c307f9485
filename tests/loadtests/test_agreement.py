"""How generators are compared; the others run in `python -m loadtests.agreement` alone."""

import json
import random
from pathlib import Path

import pytest

from loadtests.abuse.report import agreements_text
from loadtests.agreement import (
    EACH,
    LOCUST,
    OURS,
    RATE,
    TASKS,
    THEIRS,
    WHOLE,
    Agreement,
    Figures,
    by_aiperf,
    calls_of,
    figures_of_ours,
    prompt_of,
    read_all,
    write,
)
from loadtests.http_load import LoadResult
from loadtests.machine import this_machine
from loadtests.rows import Row
from loadtests.service_process import Running
from loadtests.tasks import Material


def figures(rate: float, whole: float) -> Figures:
    return {RATE: rate, WHOLE: whole}


def found(*rounds: tuple[float, float]) -> Agreement:
    """Of each round, how many times ours aiperf's rate and time are."""
    return Agreement(
        this_machine(), "chat", "a service",
        tuple({OURS: figures(2.0, 50.0), LOCUST: figures(2.0, 51.0),
               THEIRS: figures(2.0 * rate, 50.0 * whole)} for rate, whole in rounds),
    )  # fmt: skip


def test_figures_further_apart_than_is_borne_are_named() -> None:
    assert found((1.05, 0.95), (0.98, 1.02), (1.2, 1.0)).apart(0.1) == []
    assert found((1.0, 1.3), (1.0, 1.2)).apart(0.1) == ["whole answer, ms: 1.250 of ours"]


def test_ours_are_medians_of_the_rows() -> None:
    rows = [Row("chat", 0.0, 0.0, 1.0, 200, None, 0.2, (0.1,) * 8)] * 3
    assert figures_of_ours(LoadResult(1.5, rows))[RATE] == 2.0
    assert figures_of_ours(LoadResult(1.5, rows))[EACH] == pytest.approx(100.0)


def test_figures_are_read_as_they_were_written_and_are_part_of_the_page(tmp_path: Path) -> None:
    one = found((1.0, 1.01))
    write(one, tmp_path)
    assert read_all(tmp_path) == [one]
    assert "(1.010 ×)" in agreements_text([one])


@pytest.mark.parametrize("task", TASKS)
def test_both_are_given_the_same_words(task: str) -> None:
    what, _ = TASKS[task]
    call = what.call(Material(random.Random(0), ["time flies"]))
    assert prompt_of(call.body) == "time flies"


def test_texts_are_the_same_and_begin_apart() -> None:
    what, _ = TASKS["chat"]
    mine, yours = ([prompt_of(call.body) for call in calls_of(what, mark)] for mark in ("0a", "0b"))
    assert [text.removeprefix("0a ") for text in mine] == [
        text.removeprefix("0b ") for text in yours
    ]
    assert not set(mine) & set(yours)


PRETENDER = """\
#!/usr/bin/env python3
import json, pathlib, sys
arguments = sys.argv
folder = pathlib.Path(arguments[arguments.index("--output-artifact-dir") + 1])
folder.mkdir(parents=True)
count = int(arguments[arguments.index("--request-count") + 1]) - {short}
lines = pathlib.Path(arguments[arguments.index("--input-file") + 1]).read_text().splitlines()
assert json.loads(lines[0]) == {{"text": "one"}}
found = {{"request_throughput": {{"avg": 2.5}}, "request_latency": {{"p50": 40.0}},
         "request_count": {{"avg": count}}}}
(folder / "profile_export_aiperf.json").write_text(json.dumps(found))
"""


@pytest.mark.parametrize("short", [0, 1])
def test_what_aiperf_says_is_read_and_an_answer_too_few_is_refused(
    tmp_path: Path, short: int
) -> None:
    program = tmp_path / "aiperf"
    program.write_text(PRETENDER.format(short=short))
    program.chmod(0o755)

    work = tmp_path / "work"
    work.mkdir()

    def ask() -> Figures:
        return by_aiperf(
            tmp_path / "python", Running(1), "chat", "m", ["one", "two"], 1, work, work
        )

    if short:
        with pytest.raises(SystemExit, match="1 of 2 answers"):
            ask()
    else:
        assert ask() == {RATE: 2.5, WHOLE: 40.0}
    assert json.loads((work / "prompts.jsonl").read_text().splitlines()[1]) == {"text": "two"}
