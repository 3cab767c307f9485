"""Plots of the figures: bars for comparisons, lines for growth."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from loadtests.drawing import STYLE, tidy, write
from loadtests.peers.comparison import Comparison
from loadtests.peers.growth import Curve, Line
from loadtests.peers.table import number, ranked

OURS, THEIRS = "tab:blue", "lightgray"
BAR_HEIGHT, TITLE_HEIGHT, WIDTH = 0.26, 0.75, 8.0
MARKERS = "osv^Dx"


def draw_comparisons(comparisons: Sequence[Comparison], path: Path) -> None:
    """A panel a comparison, a bar a contender: its median, and the range over the rounds."""
    heights = [TITLE_HEIGHT + BAR_HEIGHT * max(1, len(found.rows)) for found in comparisons]
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(comparisons),
            1,
            squeeze=False,
            figsize=(WIDTH, sum(heights)),
            height_ratios=heights,
        )
        for axis, found in zip(axes[:, 0], comparisons, strict=True):
            draw_bars(axis, found)
        write(figure, path)


def draw_bars(axis: Axes, found: Comparison) -> None:
    rows = ranked(found)
    medians = [row.median(found.unit) for row in rows]
    spans = [
        [median - min(row.figures[found.unit]) for row, median in zip(rows, medians, strict=True)],
        [max(row.figures[found.unit]) - median for row, median in zip(rows, medians, strict=True)],
    ]
    colours = [OURS if row.ours else THEIRS for row in rows]
    bars = axis.barh([row.name for row in rows], medians, color=colours, xerr=spans, ecolor="gray")
    axis.bar_label(bars, [number(value) for value in medians], padding=4, fontsize=8)
    axis.set_title(f"{found.title}: {found.unit}", fontsize=9, loc="left")
    axis.margins(x=0.12)
    axis.spines[["top", "right"]].set_visible(False)


def draw_curve(curve: Curve, path: Path) -> None:
    """A line a contender over a logarithmic axis, with the range as a band."""
    with mpl.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(WIDTH, 3.4))
        for line, marker in zip(curve.lines, MARKERS * len(curve.lines), strict=False):
            draw_line(axis, line, marker)
        axis.set_xscale("log", base=2)
        places = sorted({point.at for line in curve.lines for point in line.points})
        axis.set_xticks(places, [f"{place:,}" for place in places])
        axis.minorticks_off()
        axis.set(xlabel=curve.axis, ylabel=curve.unit)
        axis.set_title(curve.title, fontsize=9, loc="left")
        tidy(axis)
        figure.legend(frameon=False, loc="outside right center")
        write(figure, path)


def draw_line(axis: Axes, line: Line, marker: str) -> None:
    places = [point.at for point in line.points]
    low, high = zip(*((min(p.values), max(p.values)) for p in line.points), strict=True)
    (drawn,) = axis.plot(
        places,
        [sorted(point.values)[len(point.values) // 2] for point in line.points],
        marker=marker,
        markersize=4,
        label=line.name,
        linestyle="-" if line.ours else "--",
    )
    axis.fill_between(places, low, high, color=drawn.get_color(), alpha=0.15, linewidth=0)
