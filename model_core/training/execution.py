"""A run from its file to its report, top to bottom.

run → data, model, vocabulary → the loop → what the recipe does at the end → report
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from model_core.checkpoints.load import read_json
from model_core.training.averaging import restore_best
from model_core.training.errors import TrainingError
from model_core.training.loop import Ending, Loop, Story, Watch, evaluating
from model_core.training.recipes.recipe import Prepared, Recipe, Say
from model_core.training.report import Outcome, write_report
from model_core.training.run_files import write_run
from model_core.training.run_folder import RunFolder
from model_core.training.runs import Run
from model_core.training.tables import Table

DATA_FILE: Final = "data.json"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a run is given beside what it is: where fetched models are kept, who is told what is
    being done, and who may stop it."""

    cache: Path
    say: Say
    watch: Callable[[RunFolder, Prepared], Watch]
    is_stopping: Callable[[], bool] = lambda: False


def carry_out(
    recipe: Recipe, run: Run, output: Path, around: Surroundings, *, resume: bool = False
) -> Outcome:
    """Run `run` in the folder `output`, from the beginning or from where it was stopped.

    Raises `TrainingError`, or what reading a checkpoint raises.
    """
    folder = RunFolder(output)
    state = folder.read_state() if resume else None
    if not resume:
        folder.require_fresh()
    prepared = recipe.prepare(run, output, around.cache, around.say)
    output.mkdir(parents=True, exist_ok=True)
    keep_account(output / DATA_FILE, prepared.tables, is_known=resume)
    loop = Loop(prepared.task, run, folder, around.watch(folder, prepared), around.is_stopping)
    if state is not None:
        loop.restore(state)
    write_run(run, folder.run_file)
    story = loop.go()
    if story.ending is Ending.STOPPED:
        return Outcome(story, {}, prepared)
    around.say("finishing")
    restore_best(prepared.start, folder)
    final = {**best_figures(story), **prepared.finish(folder), **prepared.examine()}
    outcome = Outcome(story, final, prepared)
    write_report(folder, run, outcome)
    return outcome


def measure_result(recipe: Recipe, run: Run, output: Path, cache: Path, say: Say) -> Outcome:
    """The figures of what a run in `output` has come to, once more; nothing is written.

    On the data of the run, or on other data to validate on, if `run` now names such.
    """
    folder = RunFolder(output)
    story = Story.of(folder.read_state().figures)
    prepared = recipe.prepare(run, output, cache, say)
    require_known_data(output / DATA_FILE, prepared.tables)
    restore_best(prepared.start, folder)
    say("measuring")
    with evaluating(prepared.task.model):
        figures = dict(prepared.task.evaluate())
    return Outcome(story, {**figures, **prepared.examine()}, prepared)


def best_figures(story: Story) -> Mapping[str, float]:
    """What the best checkpoint was measured at."""
    found = [each for each in story.measurements if each.step == story.best_step]
    return found[-1].figures if found else {}


def keep_account(file: Path, tables: Sequence[Table], *, is_known: bool) -> None:
    """Write what was read and what was skipped; a run that goes on has to find the same data."""
    account = {table.source: account_of(table) for table in tables}
    if is_known and file.is_file():
        before = read_json(file)
        changed = [
            source
            for source, now in account.items()
            if before.get(source, {}).get("sha256") != now["sha256"]
        ]
        if changed:
            raise TrainingError(
                f"{', '.join(changed)}: not the data that the run began with, so it can't go on; "
                "begin a new one"
            )
    text = json.dumps(account, indent=1, ensure_ascii=False) + "\n"
    file.write_text(text, encoding="utf-8")


def require_known_data(file: Path, tables: Sequence[Table]) -> None:
    """Refuse data that changed since the run read it: what was held out may have been learned."""
    before = read_json(file) if file.is_file() else {}
    for table in tables:
        known = before.get(table.source)
        if known is not None and known["sha256"] != account_of(table)["sha256"]:
            raise TrainingError(
                f"{table.source} is not what it was when the run read it, so that figures on what "
                "is held out would mean nothing; name other data with --validation"
            )


def account_of(table: Table) -> dict[str, Any]:
    """How many rows a table has, a digest of them, and what was skipped."""
    digest = hashlib.sha256()
    for row in table.rows:
        digest.update(repr(sorted(row.items())).encode("utf-8", "surrogatepass"))
    skipped = {
        reason: {"rows": each.count, "first": each.first} for reason, each in table.skipped.items()
    }
    return {"rows": len(table.rows), "sha256": digest.hexdigest(), "skipped": skipped}
