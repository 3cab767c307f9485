"""What came of a run, for a person: `report.md`, and its curves where matplotlib is there."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from model_core.training.loop import Ending, Story
from model_core.training.recipes.recipe import Prepared
from model_core.training.run_folder import RunFolder
from model_core.training.runs import Run

REPORT_FILE: Final = "report.md"
CURVES_FILE: Final = "curves.png"
ENDINGS: Final = {
    Ending.DONE: "after all steps",
    Ending.EARLY: "early, since measurements got no better",
    Ending.STOPPED: "because it was stopped",
}


@dataclass(frozen=True, slots=True)
class Conclusion:
    """How a run ended, at which step, and the figures of its best checkpoint."""

    ending: Ending
    step: int
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run went, the figures of its best checkpoint, what it was made of, and how many
    parameters were trained."""

    story: Story
    figures: Mapping[str, float]
    prepared: Prepared
    trained: int

    @property
    def conclusion(self) -> Conclusion:
        """The same in short."""
        return Conclusion(self.story.ending, self.story.step, self.figures)


def write_report(folder: RunFolder, run: Run, outcome: Outcome) -> None:
    """The report and its curves, into the run's folder."""
    has_curves = draw_curves(folder, outcome.story)
    text = "\n\n".join(
        part for part in sections(folder, run, outcome, has_curves=has_curves) if part
    )
    (folder.folder / REPORT_FILE).write_text(text + "\n", encoding="utf-8")


def sections(folder: RunFolder, run: Run, outcome: Outcome, *, has_curves: bool) -> list[str]:
    """The report's parts, top to bottom."""
    story, prepared = outcome.story, outcome.prepared
    best = folder.path("best")
    where = best.relative_to(folder.folder) if best else "nothing"
    data = [f"- {table.summary()}" for table in prepared.tables]
    return [
        f"# {getattr(run, 'recipe', 'training')}",
        f"The run ended {ENDINGS[story.ending]}, at step {story.step:,}. Its result is `best` "
        f"(`{where}`), of step {story.best_step:,}; `anatomy export {folder.folder / 'best'}` "
        "makes it ready to be served.",
        figures_table(outcome),
        "![loss and figures over the steps](curves.png)" if has_curves else "",
        "## Data\n\n" + "\n".join(data),
        "## What it is made of\n\n" + markdown_table(("", ""), facts(run, outcome)),
        "The whole run stands in `run.yaml`.",
    ]


def figures_table(outcome: Outcome) -> str:
    """The best checkpoint's figures on the validation part, beside the baseline's."""
    baseline = outcome.prepared.baseline
    rows = [
        (
            name.replace("_", " "),
            f"{value:.4g}",
            f"{baseline[name]:.4g}" if name in baseline else "",
        )
        for name, value in outcome.figures.items()
    ]
    return markdown_table(("on the validation part", "model", outcome.prepared.baseline_name), rows)


def facts(run: Run, outcome: Outcome) -> list[tuple[str, str]]:
    """Sizes and times, by name."""
    story = outcome.story
    parameters = sum(p.numel() for p in outcome.prepared.task.model.parameters())
    seconds = sum(step.seconds for step in story.steps)
    tokens = sum(step.tokens for step in story.steps)
    origin = run.model.source or "random weights"
    return [
        ("model", f"{outcome.prepared.start.description.family.title}, from {origin}"),
        ("parameters", f"{parameters:,}, of which {outcome.trained:,} were trained"),
        *outcome.prepared.facts.items(),
        ("tokens seen", f"{tokens:,}"),
        ("time in steps", f"{seconds:,.0f} s"),
        ("speed", f"{tokens / max(seconds, 1e-9):,.0f} tokens/s"),
    ]


def markdown_table(heading: tuple[str, ...], rows: list[Any]) -> str:
    """A table in Markdown."""
    lines = [heading, tuple("---" for _ in heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw_curves(folder: RunFolder, story: Story) -> bool:
    """Loss, learning rate and every figure over the steps; false where there is no matplotlib."""
    if not story.steps or importlib.util.find_spec("matplotlib") is None:
        return False
    from matplotlib.figure import Figure

    names = list(story.measurements[-1].figures) if story.measurements else []
    panels = ["loss", "learning rate", *(name for name in names if name != "loss")]
    figure = Figure(figsize=(6, 2.4 * len(panels)), layout="constrained")
    axes = cast("list[Any]", figure.subplots(len(panels), 1, squeeze=False)[:, 0].tolist())
    for axis, panel in zip(axes, panels, strict=True):
        if panel == "loss":
            axis.plot(
                [s.step for s in story.steps], [s.loss for s in story.steps], label="training"
            )
        if panel == "learning rate":
            axis.plot([s.step for s in story.steps], [s.learning_rate for s in story.steps])
        if panel in names:
            places = [m.step for m in story.measurements]
            values = [m.figures.get(panel) for m in story.measurements]
            axis.plot(places, values, marker=".", label="validation")
        axis.set_ylabel(panel.replace("_", " "))
        if panel == "loss":
            axis.legend()
    axes[-1].set_xlabel("step")
    cast("Any", figure).savefig(folder.folder / CURVES_FILE, dpi=120)
    return True
