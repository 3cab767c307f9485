"""The page of all figures: tables, goals and plots, from the files that runs have left."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from loadtests.peers import comparison, growth, plots
from loadtests.peers.comparison import Comparison
from loadtests.peers.goals import GOALS, Goal, Outcome, Verdict, outcome
from loadtests.peers.growth import Curve
from loadtests.peers.table import as_markdown, limits_markdown

IMAGES = Path("images") / "benchmarks"
REMARKS = "remarks.md"
"""What figures don't say by themselves, written by hand: it stands behind the goals."""

HEADINGS = {
    "encoder": "Encoder, offline",
    "decoder": "Decoder",
    "http": "Over HTTP",
    "translation": "Encoder-decoder",
    "gpu-encoder": "On a GPU: encoder",
    "gpu-decoder": "On a GPU: decoder",
    "gpu-http": "On a GPU: MiniLM over HTTP",
}

INTRODUCTION = """\
# Benchmarks

`make bench` measures all of this again and writes this page; the raw figures are in
`docs/benchmarks/`. In each comparison ours and every peer do the same work on the same machine in
the same run: loaded side by side, they take turns, and who begins moves on from round to round.
Every peer runs at the best settings that a sweep found beforehand. Figures are medians over the
rounds; “ahead” is the median of the ratios within each round, with their range.

The share of the limit compares with the speed that the machine would reach if a contender did
nothing but the model's products of matrices, at the fastest rate found for its precision in the
same run, and reading its weights. Attention, norms and tokenising count as distance from it.
"""


def write_report(figures: Path, documents: Path) -> Path:
    """Write `<documents>/benchmarks.md` and its plots; give the page."""
    files = sorted(figures.glob("*.json"))
    curves = [growth.read(path) for path in files if path.stem.startswith(growth.PREFIX)]
    comparisons = [
        comparison.read(path) for path in files if not path.stem.startswith(growth.PREFIX)
    ]
    images = documents / IMAGES
    images.mkdir(parents=True, exist_ok=True)
    for job, group in jobs_of(comparisons):
        plots.draw_comparisons(group, images / f"{job}.svg")
    for curve in curves:
        plots.draw_curve(curve, images / f"{curve.name}.svg")
    page = documents / "benchmarks.md"
    remarks = figures / REMARKS
    said = remarks.read_text(encoding="utf-8") if remarks.is_file() else ""
    page.write_text(page_text(comparisons, curves, said), encoding="utf-8")
    return page


def page_text(comparisons: Sequence[Comparison], curves: Sequence[Curve], remarks: str = "") -> str:
    by_name = {found.name: found for found in comparisons}
    sections = [
        INTRODUCTION,
        machines_text(comparisons, curves),
        goals_text([outcome(goal, by_name) for goal in GOALS]),
        remarks,
        *(job_text(job, group) for job, group in jobs_of(comparisons)),
        growth_text(curves),
        limits_text(by_name),
    ]
    return "\n".join(section for section in sections if section)


def machines_text(comparisons: Sequence[Comparison], curves: Sequence[Curve]) -> str:
    """What was measured on: a sentence, or one for each machine."""
    names: dict[str, list[str]] = {}
    for found in (*comparisons, *curves):
        names.setdefault(found.machine.sentence(), []).append(found.name)
    if len(names) < 2:
        return "".join(f"Measured on {sentence}.\n" for sentence in names)
    return "".join(f"- {', '.join(which)}: {sentence}\n" for sentence, which in names.items())


def goals_text(outcomes: Sequence[Outcome]) -> str:
    lines = [
        "## Goals",
        "",
        "| work | must | aim | found | ours | against | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(f"| {' | '.join(goal_cells(one))} |" for one in outcomes),
    ]
    return "\n".join(lines) + "\n"


def goal_cells(found: Outcome) -> list[str]:
    goal = found.goal
    if found.verdict is Verdict.UNKNOWN:
        lead = ""
    else:
        lead = f"{found.lead:.2f} × ({min(found.leads):.2f}–{max(found.leads):.2f})"
    verdict = f"**{found.verdict}**" if found.verdict is Verdict.MISSED else str(found.verdict)
    return [
        goal.work, must_text(goal), aim_text(goal), lead, found.mine, found.rival, verdict,
    ]  # fmt: skip


def must_text(goal: Goal) -> str:
    return "ahead" if goal.must == 1 else f"{goal.must:g} ×"


def aim_text(goal: Goal) -> str:
    limit = f", {goal.share:.0%} of the limit" if goal.share else ""
    return f"{goal.aim:g} ×{limit}"


def jobs_of(comparisons: Sequence[Comparison]) -> list[tuple[str, list[Comparison]]]:
    """Comparisons by job in the page's order, each job's by variant, numbers as numbers."""
    order = list(HEADINGS)
    found = sorted(
        (one for one in comparisons if one.job in HEADINGS),
        key=lambda one: (order.index(one.job), variant_key(one.variant)),
    )
    return [(job, list(group)) for job, group in groupby(found, key=lambda one: one.job)]


def variant_key(variant: str) -> tuple[list[int], str]:
    """Words first, then by the numbers from the last to the first: 16x256 before 1x2000."""
    parts = variant.split("x")
    numeric = all(part.isdigit() for part in parts)
    return [int(part) for part in reversed(parts)] if numeric else [], variant


def job_text(job: str, comparisons: Sequence[Comparison]) -> str:
    notes = sorted({found.agreement for found in comparisons if found.agreement})
    parts = [
        f"## {HEADINGS[job]}\n",
        f"![{HEADINGS[job]}]({(IMAGES / f'{job}.svg').as_posix()})\n",
        *(f"Agreement: {note}.\n" for note in notes),
        *map(as_markdown, comparisons),
    ]
    return "\n".join(parts)


def growth_text(curves: Sequence[Curve]) -> str:
    if not curves:
        return ""
    parts = ["## How figures grow\n"]
    for curve in curves:
        parts.append(f"![{curve.title}]({(IMAGES / f'{curve.name}.svg').as_posix()})\n")
        parts += [f"- {line}\n" for line in curve.left_out]
    return "\n".join(parts)


def limits_text(by_name: Mapping[str, Comparison]) -> str:
    if "limits" not in by_name:
        return ""
    return f"## Limits of the machine\n\n{limits_markdown(by_name['limits'])}"
