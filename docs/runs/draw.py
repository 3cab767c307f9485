"""The curves of docs/training.md: `.venv/bin/python docs/runs/draw.py build/runs` draws them again.

Reads what each run keeps to go on from (`states/step-N/figures.json`). Needs matplotlib (the extra
`train`).
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

IMAGE = Path(__file__).parents[1] / "images" / "training.svg"
# What is drawn of a run: what its loss is a mean over, and the figure of its validation part.
CURVES = {
    "g2p": ("token", "loss"),
    "tiny-lm": ("token", "loss"),
    "translation": ("token", "loss"),
    "supersense": ("text", "loss"),
    "definitions": ("match", ""),
}
POINTS = 120
"""Points of a curve: each the mean of the steps around it."""


def story_of(run: Path) -> dict[str, Any]:
    """What happened in a run, from its newest state."""
    states = sorted((run / "states").glob("step-*"), key=lambda path: int(path.name[5:]))
    if not states:
        raise SystemExit(f"{run} holds no run: make {run.name} first")
    return json.loads((states[-1] / "figures.json").read_text())


def draw(axis: Axes, name: str, story: dict[str, Any]) -> None:
    """A run's loss in training, and on the validation part where it is measured on the way."""
    unit, figure = CURVES[name]
    steps = np.array([step["step"] for step in story["steps"]])
    losses = np.array([step["loss"] for step in story["steps"]])
    parts = min(POINTS, len(steps))
    axis.plot(
        [part.mean() for part in np.array_split(steps, parts)],
        [part.mean() for part in np.array_split(losses, parts)],
        color="#4878a8", label="training",
    )  # fmt: skip
    if figure:
        measured = story["measurements"]
        axis.plot(
            [each["step"] for each in measured],
            [each["figures"][figure] for each in measured],
            color="#c06030", marker=".", label="validation",
        )  # fmt: skip
    axis.set_title(name, fontsize=9, loc="left")
    axis.set_ylabel(f"loss, nats a {unit}", fontsize=8)
    axis.set_xlabel("step", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.25)
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=7, frameon=False)


def main(runs: Path) -> None:
    """All runs' curves, side by side."""
    mpl.rcParams["svg.hashsalt"] = "training"
    stories = {name: story_of(runs / name) for name in CURVES}
    figure, axes = plt.subplots(2, 3, figsize=(9, 4.6), layout="constrained")
    for axis, (name, story) in zip(axes.flat, stories.items(), strict=False):
        draw(axis, name, story)
    axes.flat[-1].axis("off")
    figure.savefig(IMAGE, metadata={"Date": None})


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("expected the folder of the runs, as build/runs")
    main(Path(sys.argv[1]))
