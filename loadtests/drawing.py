"""How every plot looks and is written; the same figures make the same file."""

from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# No date, and no random names inside.
STYLE: dict[Any, Any] = {
    "backend": "Agg",
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "svg.hashsalt": "benchmarks",
}


def tidy(axis: Axes) -> None:
    """From zero where the scale has one, without a frame."""
    if axis.get_yscale() == "linear":
        axis.set_ylim(bottom=0)
    axis.spines[["top", "right"]].set_visible(False)


def write(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
