"""The plots of a run's page, as SVG to stand in it."""

import io
from collections.abc import Callable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtests.drawing import STYLE, tidy
from loadtests.rows import Outcome, Row, of_outcome
from loadtests.slos import Slos

WIDTH, HEIGHT = 9.0, 2.8
COLOURS = {Outcome.ANSWERED: "#4c78a8", Outcome.SHED: "#f2a93b", Outcome.FAILED: "#d64545"}
WINDOWS = 60
"""A run is cut into at most so many."""


def plots_of(rows: Sequence[Row], slos: Slos, seconds: float) -> dict[str, str]:
    """Title → SVG; those that there is nothing to show of are left out."""
    answered = of_outcome(rows, Outcome.ANSWERED)
    found = {
        "Requests a second": draw(lambda axis: over_time(axis, rows, seconds)),
        "Time to the whole answer, p50 and p95 over time": draw(
            lambda axis: latency_over_time(axis, by_task(answered), seconds)
        ),
        "Time to the whole answer": draw(
            lambda axis: distribution(
                axis, times(answered, lambda row: row.latency_s), limits(slos, "end_to_end_ms")
            )
        ),
        "Time to the first token": draw(
            lambda axis: distribution(
                axis, times(answered, lambda row: row.first_token_s), limits(slos, "first_token_ms")
            )
        ),
        "Time per output token": draw(
            lambda axis: distribution(
                axis,
                times(answered, lambda row: row.time_per_output_token_s),
                limits(slos, "time_per_output_token_ms"),
            )
        ),
        "How late the generator was": draw(
            lambda axis: (
                distribution(axis, {"requests": [row.lag_s * 1000 for row in rows]}, {})
                if any(row.lag_s > 0 for row in rows)
                else False
            )
        ),
    }
    return {title: svg for title, svg in found.items() if svg}


def draw(fill: Callable[[Axes], bool]) -> str:
    """A plot, or nothing where `fill` says that there is nothing to show."""
    with mpl.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(WIDTH, HEIGHT))
        if not fill(axis):
            plt.close(figure)
            return ""
        tidy(axis)
        figure.legend(frameon=False, loc="outside right center")
        return svg_of(figure)


def svg_of(figure: Figure) -> str:
    """The figure's `<svg>` without the heading of a file."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]


def by_task(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {name: [r for r in rows if r.task == name] for name in sorted({r.task for r in rows})}


def times(rows: Sequence[Row], take: Callable[[Row], float | None]) -> dict[str, list[float]]:
    """Milliseconds of each task that has any."""
    found = {
        name: [value * 1000 for row in group if (value := take(row)) is not None]
        for name, group in by_task(rows).items()
    }
    return {name: values for name, values in found.items() if values}


def limits(slos: Slos, name: str) -> dict[str, float]:
    """The limit of that name of each task that has one."""
    return {t: slo.limits()[name] for t, slo in slos.slos.items() if name in slo.limits()}


def edges_of(seconds: float) -> np.ndarray:
    """The borders of the windows: of a second, or of longer runs a sixtieth."""
    width = max(1.0, seconds / WINDOWS)
    return np.arange(0.0, seconds + width, width)


def over_time(axis: Axes, rows: Sequence[Row], seconds: float) -> bool:
    """What ended in each window by what became of it, over what was due in it."""
    last = max([seconds, *(row.ended_s for row in rows)])
    edges = edges_of(last)
    width = edges[1] - edges[0]
    below = np.zeros(len(edges) - 1)
    for outcome, colour in COLOURS.items():
        counts, _ = np.histogram([r.ended_s for r in of_outcome(rows, outcome)], edges)
        if counts.any():
            axis.bar(edges[:-1], counts / width, width, below, align="edge", color=colour,
                     label=outcome, alpha=0.85)  # fmt: skip
        below += counts / width
    due, _ = np.histogram([row.due_s for row in rows], edges)
    axis.stairs(due / width, edges, color="black", linewidth=0.9, label="due")
    axis.set(xlabel="seconds", ylabel="requests/s", xlim=(0, last))
    return True


def latency_over_time(axis: Axes, tasks: Mapping[str, Sequence[Row]], seconds: float) -> bool:
    """Of what was due in each window: a line of medians, and a band up to the 95th percentile."""
    edges = edges_of(seconds)
    middles = (edges[:-1] + edges[1:]) / 2
    for name, rows in tasks.items():
        places = np.digitize([row.due_s for row in rows], edges) - 1
        values = np.array([row.latency_s * 1000 for row in rows])
        windows = [place for place in range(len(middles)) if (places == place).any()]
        p50, p95 = (
            [np.percentile(values[places == place], percent) for place in windows]
            for percent in (50, 95)
        )
        (line,) = axis.plot(middles[windows], p50, label=name, linewidth=1.4)
        axis.fill_between(middles[windows], p50, p95, alpha=0.18, color=line.get_color(), lw=0)
    # Tasks take from milliseconds to seconds.
    axis.set(xlabel="when it was due, seconds", ylabel="ms", xlim=(0, seconds), yscale="log")
    axis.yaxis.set_major_formatter("{x:,g}")
    return bool(tasks)


def distribution(
    axis: Axes, tasks: Mapping[str, Sequence[float]], slos: Mapping[str, float]
) -> bool:
    """The share of requests that took at most so long, with each task's SLO as a dotted line."""
    for name, values in tasks.items():
        ordered = np.maximum(np.sort(values), 0.01)
        share = np.arange(1, len(ordered) + 1) / len(ordered)
        (line,) = axis.step(ordered, share, where="post", label=name, linewidth=1.4)
        if name in slos:
            axis.axvline(slos[name], linestyle=":", color=line.get_color(), linewidth=1.2)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:,g}")
    axis.yaxis.set_major_formatter("{x:.0%}")
    axis.set(xlabel="ms", ylabel="of requests", ylim=(0, 1.02))
    axis.grid(axis="both", color="#e8e8e8", linewidth=0.6)
    axis.set_axisbelow(True)
    return bool(tasks)
