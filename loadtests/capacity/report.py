"""docs/capacity.md: knees, the formula, growth and replicas, as tables and plots."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator

from loadtests.capacity import growth as growing
from loadtests.capacity import knee as bending
from loadtests.capacity import replicas as replicating
from loadtests.capacity.formula import HEADROOM, Targets, replicas_for, targets_of
from loadtests.capacity.growth import Growth
from loadtests.capacity.knee import Knee
from loadtests.capacity.replicas import COUNTS, Replicas
from loadtests.drawing import STYLE, tidy, write
from loadtests.markdown import in_ms, table

IMAGES = Path("images") / "capacity"
EXAMPLE_RATE = 100.0
WIDTH, HEIGHT = 9.0, 3.0

INTRODUCTION = """\
# Capacity

`python -m loadtests.capacity` measures this again and writes this page; the raw figures are in
`docs/benchmarks/capacity/`. Services run under plain uvicorn on the machine that also makes the
load; requests arrive at random whether or not those before them were answered, and times count
from when they were due.
"""


def write_report(figures: Path, documents: Path) -> Path:
    """Write `<documents>/capacity.md` and its plots; give the page."""
    knees, growth = bending.read_all(figures), growing.read_all(figures)
    folder = documents / IMAGES
    folder.mkdir(parents=True, exist_ok=True)
    for knee in knees.values():
        draw_knee(knee, folder / f"knee-{knee.task}.svg")
    for each in growth:
        draw_growth(each, folder / f"growth-{each.subject}.svg")
    page = documents / "capacity.md"
    text = page_text(knees, growth, replicating.read(figures))
    page.write_text(text, encoding="utf-8")
    return page


def page_text(
    knees: Mapping[str, Knee], growth: Sequence[Growth], replicas: Replicas | None
) -> str:
    sections = [
        INTRODUCTION,
        machines_text([*knees.values(), *growth, *([replicas] if replicas else [])]),
        knees_text(knees),
        formula_text(knees, targets_of(knees)),
        *(knee_text(knee) for knee in knees.values()),
        replicas_text(replicas) if replicas else "",
        growth_text(growth),
    ]
    return "\n".join(section for section in sections if section)


def machines_text(measured: Sequence[Knee | Growth | Replicas]) -> str:
    sentences = dict.fromkeys(found.machine.sentence() for found in measured)
    return "".join(f"Measured on {sentence}.\n" for sentence in sentences)


def knees_text(knees: Mapping[str, Knee]) -> str:
    rows = []
    for knee in knees.values():
        at = knee.at
        rows.append((
            f"{knee.task} (`{knee.model}`)",
            ", ".join(f"{name.removesuffix('_ms').replace('_', ' ')} {limit:g} ms"
                      for name, limit in knee.slo.items()),
            f"{knee.closed_rate:.1f}",
            "–" if at is None else f"{at.rate:.1f}",
            "–" if at is None else f"{at.figures.good_per_s:.1f}",
            "–" if at is None else in_ms(at.figures.end_to_end_ms["p99"]),
            "–" if at is None else f"{sum(at.queue.values()):.1f}",
        ))  # fmt: skip
    heads = ("task", "SLO of a request", "closed loop, requests/s", "knee, offered/s",
             "good/s there", "p99 there, ms", "at hand there")  # fmt: skip
    least = next(iter(knees.values())).least
    return f"""\
## Knees

The knee is the highest load, of those that were offered, up to which at least {least:.0%} of
requests met every SLO of their task (`loadtests/slos.yaml`), or so few were asked that one or two
that didn't may be chance (Wilson's 95% interval reaches {least:.0%}). A load that fell short was
offered once more, and the better of both counts: a moment in which the machine stood still is not
the knee. “At hand” is the mean of the texts that waited for a batch, and of the generations that
ran or waited, while it was offered.

{table(heads, rows)}"""


def formula_text(knees: Mapping[str, Knee], targets: Targets) -> str:
    planned = [
        (name, f"{knee.at.rate:.1f}", str(replicas_for(EXAMPLE_RATE, knee.at.rate)))
        for name, knee in knees.items()
        if knee.at is not None
    ]
    settings = [
        ("`autoscaled`", "`target_queue`, encoders and a generator in one group",
         str(targets.generations)),
        ("`split`", "`target_queue` of `encoders`", str(targets.texts)),
        ("`split`", "`target_queue` of `generators`", str(targets.generations)),
        ("`plain`", "`anatomy_waiting_texts`", str(targets.texts)),
        ("`plain`", "`anatomy_waiting_generations`", str(targets.waiting_generations)),
    ]  # fmt: skip
    return f"""\
## Replicas

While it runs, an autoscaled group has as many replicas as it takes for each to have its target at
hand (`service/scaling.py`):

> replicas = ⌈ mean of what replicas have at hand × replicas / target ⌉

The target is what a replica had at hand at its knee. These numbers are made of the figures above by
`loadtests/capacity/formula.py`, and a test holds the overlays to them:

{table(("overlay", "number", "value"), settings)}
To plan for a rate, a replica is counted at {HEADROOM:.0%} of its knee, because arrivals come in
bursts and replicas are lost:

> replicas = ⌈ requests/s / ({HEADROOM:g} × knee) ⌉

{table(("task", "knee, requests/s", f"replicas for {EXAMPLE_RATE:,.0f} requests/s"), planned)}
They are those of this machine, of these texts and SLOs: measure again on the nodes that serve.
"""


def knee_text(knee: Knee) -> str:
    heads = ("offered/s", "good", "good/s", "shed", "p50, ms", "p95, ms", "p99, ms",
             "first token p95, ms", "per token p95, ms", "at hand", "lag p99, ms")  # fmt: skip
    rows = []
    for step in knee.steps:
        found = step.figures
        rate = f"{step.rate:.1f}"
        rows.append((
            f"**{rate}**" if step is knee.at else rate,
            f"{found.good_share:.1%}", f"{found.good_per_s:.1f}", str(found.shed),
            *(in_ms(value) for value in found.end_to_end_ms.values()),
            in_ms(found.first_token_ms["p95"]), in_ms(found.time_per_output_token_ms["p95"]),
            f"{sum(step.queue.values()):.1f}", in_ms(step.lag_p99_ms),
        ))  # fmt: skip
    return f"""\
### {knee.task}

`{knee.settings}`, {knee.seconds:g} s of each load.

![Offered load against goodput and latency]({(IMAGES / f"knee-{knee.task}.svg").as_posix()})

{table(heads, rows)}"""


def replicas_text(found: Replicas) -> str:
    rows = [
        (str(count), f"{found.median(count):.0f}",
         f"{min(found.requests_per_s[count]):.0f}–{max(found.requests_per_s[count]):.0f}")
        for count in COUNTS
    ]  # fmt: skip
    return f"""\
## From one replica to two

Behind Ray Serve, one thread each; {found.settings}, in turns.
Two do {found.ratio:.2f} times what one does; the generator and HAProxy take a part of the same
cores.

{table(("replicas", "requests/s", "range"), rows)}"""


def growth_text(growth: Sequence[Growth]) -> str:
    parts = ["## How cost grows\n"] if growth else []
    for each in growth:
        units = list(each.points[0].figures)
        rows = [
            (f"{p.at:,}", *(f"{p.figures[u]:,.1f}" for u in units)) for p in each.points
        ]  # fmt: skip
        image = (IMAGES / f"growth-{each.subject}.svg").as_posix()
        parts.append(f"""\
### {each.title}

{each.settings}.

![{each.title}]({image})

{table((each.axis, *units), rows)}""")
    return "\n".join(parts)


def draw_knee(knee: Knee, path: Path) -> None:
    """Left: goodput over the offered load, with the knee. Right: percentiles of latency."""
    rates = [step.rate for step in knee.steps]
    with mpl.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, HEIGHT))
        left.plot(rates, rates, color="lightgray", linestyle="--", label="offered")
        left.plot(rates, [s.figures.answered_per_s for s in knee.steps], marker="s", ms=4,
                  color="tab:gray", label="answered")  # fmt: skip
        left.plot(rates, [s.figures.good_per_s for s in knee.steps], marker="o", ms=4,
                  color="tab:blue", label="good")  # fmt: skip
        for axis in (left, right):
            if knee.at is not None:
                axis.axvline(knee.at.rate, color="tab:red", linestyle=":", linewidth=1.2)
            axis.set(xlabel="offered, requests/s")
        left.set(ylabel="requests/s")
        left.legend(frameon=False)
        for percent in ("p50", "p95", "p99"):
            values = [step.figures.end_to_end_ms[percent] or float("nan") for step in knee.steps]
            right.plot(rates, values, marker="o", ms=4, label=percent)
        right.set(yscale="log", ylabel="ms, whole answer")
        right.yaxis.set_major_formatter("{x:,g}")
        right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        right.yaxis.set_minor_locator(NullLocator())
        for axis in (left, right):
            axis.set_xlim(left=0)
        right.legend(frameon=False)
        tidy(left)
        right.spines[["top", "right"]].set_visible(False)
        write(figure, path)


def draw_growth(found: Growth, path: Path) -> None:
    """A panel a unit."""
    units = list(found.points[0].figures)
    places = [point.at for point in found.points]
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(units), figsize=(WIDTH, HEIGHT), squeeze=False)
        for axis, unit in zip(axes[0], units, strict=True):
            axis.plot(places, [p.figures[unit] for p in found.points], marker="o", ms=4)
            axis.set_xscale("log", base=2)
            axis.set_xticks(places, [f"{place:,}" for place in places])
            axis.minorticks_off()
            axis.set(xlabel=found.axis, ylabel=unit)
            tidy(axis)
        write(figure, path)
