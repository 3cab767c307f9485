"""Goals, and the page that is made of the figures."""

from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.machine import Machine
from loadtests.peers import growth
from loadtests.peers.comparison import Comparison, Missing, Row, save
from loadtests.peers.goals import Goal, Verdict, outcome
from loadtests.peers.growth import Curve, Line, Point
from loadtests.peers.limits import Limits, Product, Reading
from loadtests.peers.report import jobs_of, page_text
from loadtests.peers.table import as_markdown

MACHINE = Machine("a processor", ("avx512_vnni",), 2, 24, "Linux, Python 3.11")
LIMITS = Limits((Product("one", "fp32", 512, 384, 1152, 400.0),), (Reading(1, 20.0),))
GOAL = Goal("int8 against the best", "encoder", "texts/s", 1.5, 2.0, "ours-int8")


def row(name: str, *speeds: float, limit: float | None = None) -> Row:
    precision = name.rsplit("-", 1)[-1]
    ours = name.startswith("ours")
    return Row(name, precision, ours, "1.0", "2 threads", {"texts/s": speeds}, limit, 0.9991)


FOUND = Comparison(
    job="encoder",
    variant="",
    title="MiniLM, 512 texts",
    units=("texts/s",),
    agreement="smallest cosine",
    rounds=2,
    machine=MACHINE,
    limits=LIMITS,
    rows=(row("ours-int8", 400, 440, limit=840), row("a-fp32", 100, 110), row("b-int8", 200, 220)),
    missing=(Missing("c-bf16", "its installation failed"),),
)
CURVE = Curve(
    subject="rows",
    title="by rows",
    axis="rows",
    unit="tokens/s",
    rounds=2,
    machine=MACHINE,
    lines=(Line("ours-int8", True, (Point(1, (1.0, 2.0)), Point(2, (2.0, 3.0)))),),
    left_out=("peer at 2: out of memory",),
)


def test_a_table_has_medians_ranges_leads_and_shares() -> None:
    text = as_markdown(FOUND)
    assert "| **ours-int8** | 420 | 400–440 |  | 50% | 0.9991 | 2 threads | 1.0 |" in text
    assert "| a-fp32 | 105 | 100–110 | 4.00 × (4.00–4.00) |  | 0.9991 | 2 threads | 1.0 |" in text
    assert "- c-bf16: no figures. its installation failed" in text


@pytest.mark.parametrize(
    ("speed", "verdict"),
    [(250, Verdict.MISSED), (330, Verdict.MUST), (460, Verdict.AIM)],
)
def test_a_goal_is_held_against_the_best_rival(speed: float, verdict: Verdict) -> None:
    rivals = row("a-fp32", 100), row("b-int8", 210)
    found = replace(FOUND, rows=(row("ours-int8", speed), row("ours-fp32", 999), *rivals))
    judged = outcome(GOAL, {"encoder": found})
    assert (judged.verdict, judged.mine, judged.rival) == (verdict, "ours-int8", "b-int8")
    assert judged.lead == pytest.approx(speed / 210)


def test_an_aim_may_ask_for_a_share_of_the_limit() -> None:
    goal = replace(GOAL, share=0.5)
    rivals = row("a-fp32", 100), row("b-int8", 210)
    for limit, verdict in ((900, Verdict.AIM), (1000, Verdict.MUST)):
        found = replace(FOUND, rows=(row("ours-int8", 460, limit=limit), *rivals))
        assert outcome(goal, {"encoder": found}).verdict is verdict


def test_a_goal_may_be_between_ours() -> None:
    goal = Goal("ray", "encoder", "texts/s", 0.85, 0.95, "ours-int8-ray", "ours-int8-plain")
    rows = row("ours-int8-ray", 90), row("ours-int8-plain", 100), row("peer", 1000)
    assert outcome(goal, {"encoder": replace(FOUND, rows=rows)}).verdict is Verdict.MUST


def test_what_was_not_measured_is_said() -> None:
    assert outcome(GOAL, {}).verdict is Verdict.UNKNOWN
    alone = {"encoder": replace(FOUND, rows=(row("ours-int8", 1),))}
    assert outcome(GOAL, alone).verdict is Verdict.UNKNOWN
    assert "| not measured |" in page_text([], [])


def test_the_page_has_goals_tables_plots_and_what_was_left_out() -> None:
    limits = replace(FOUND, job="limits", rows=(), missing=())
    text = page_text([FOUND, limits], [CURVE])
    assert "| 2.00 × (2.00–2.00) | ours-int8 | b-int8 | aim met |" in text
    assert "![Encoder, offline](images/benchmarks/encoder.svg)" in text
    assert "![by rows](images/benchmarks/growth-rows.svg)" in text
    assert "peer at 2: out of memory" in text
    assert "| fp32, one | 400 |" in text
    assert "Measured on a processor (avx512_vnni), 2 cores, 24 GiB, Linux, Python 3.11." in text


def test_variants_come_in_the_order_of_their_numbers() -> None:
    names = "16x256", "1x2000", "prefill-256", "4x256"
    found = [replace(FOUND, job="decoder", variant=name) for name in names]
    ((job, ordered),) = jobs_of(found)
    assert job == "decoder"
    assert [one.variant for one in ordered] == ["prefill-256", "4x256", "16x256", "1x2000"]


def test_a_saved_curve_is_read_again(tmp_path: Path) -> None:
    assert growth.read(growth.save(CURVE, tmp_path)) == CURVE


def test_the_report_is_written_with_its_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from loadtests.peers.report import write_report

    save(FOUND, tmp_path / "benchmarks")
    growth.save(CURVE, tmp_path / "benchmarks")
    page = write_report(tmp_path / "benchmarks", tmp_path)
    assert page.read_text(encoding="utf-8").startswith("# Benchmarks")
    images = tmp_path / "images" / "benchmarks"
    assert sorted(path.name for path in images.iterdir()) == ["encoder.svg", "growth-rows.svg"]
    first = (images / "encoder.svg").read_bytes()
    write_report(tmp_path / "benchmarks", tmp_path)
    assert (images / "encoder.svg").read_bytes() == first
