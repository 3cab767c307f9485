"""What a recipe is to those who run it: data and a model made ready, and what comes after."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from model_core.checkpoints.save import save
from model_core.checkpoints.sources import UNKNOWN_LICENCE
from model_core.training.errors import TrainingError
from model_core.training.loop import Task
from model_core.training.low_rank import merged
from model_core.training.run_folder import RunFolder
from model_core.training.runs import Run
from model_core.training.starting_point import Start
from model_core.training.tables import Table

LONGEST_BLOCK: Final = 1_024

Say: TypeAlias = Callable[[str], None]
"""Told what is being done before training."""

Finish: TypeAlias = Callable[[RunFolder], Mapping[str, float]]
"""What a recipe does to the best checkpoint once training is over, with the folder of the run; its
figures then. The model has the parameters of that checkpoint before, and of the result after."""

Examine: TypeAlias = Callable[[], Mapping[str, float]]
"""Figures of the model as it is that take too long for every measurement."""


def nothing_more(folder: RunFolder) -> Mapping[str, float]:
    """For a recipe that is done when training is."""
    del folder
    return {}


def nothing_else() -> Mapping[str, float]:
    """For a recipe all of whose figures are taken at every measurement."""
    return {}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that can begin.

    `baseline` are figures, by the same names as those of the task, of something simple that the
    model has to beat, which `baseline_name` says; `facts` are for the report. Once training is over
    `finish` comes, then `examine`.
    """

    task: Task[Any]
    start: Start
    tables: Sequence[Table]
    baseline: Mapping[str, float]
    baseline_name: str
    facts: Mapping[str, str] = field(default_factory=dict[str, str])
    finish: Finish = nothing_more
    examine: Examine = nothing_else


Prepare: TypeAlias = Callable[[Any, Path, Path, Say], Prepared]
"""(run, its folder, where fetched models are kept, say) → what is ready to be trained."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe by the kind of run that it takes."""

    run: type[Run]
    prepare: Prepare


def write_checkpoint(start: Start, folder: Path) -> None:
    """The model of `start` and all that goes with it, into an existing folder."""
    with merged(start.model):
        save(start.model, start.description, folder)
    for name, path in start.files.items():
        (folder / name).write_bytes(path.read_bytes())
    if start.licence != UNKNOWN_LICENCE:
        card = (
            f"---\nlicense: {start.licence}\n---\n\nTrained further; the licence is that of what "
        )
        (folder / "README.md").write_text(card + "it started from.\n", encoding="utf-8")


def tokens_of_block(asked: int | None, start: Start) -> int:
    """How many tokens a packed block has: as many as the run says, or the model has positions, but
    then a thousand at most, since every block is that long."""
    return tokens_allowed(asked or min(LONGEST_BLOCK, start.max_tokens), start)


def tokens_allowed(asked: int | None, start: Start) -> int:
    """How many tokens a text may have: as many as the run says, or the model has positions."""
    if asked is not None and asked > start.max_tokens:
        raise TrainingError(
            f"data.max_tokens is {asked}, but the model has {start.max_tokens} positions"
        )
    return asked or start.max_tokens
