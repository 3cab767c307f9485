"""A run from its file to its report, top to bottom.

run → data, model, vocabulary → the loop → what the recipe does at the end → report
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from model_core.checkpoints.load import read_json
from model_core.training.averaging import restore_best
from model_core.training.crew import ALONE, Crew
from model_core.training.distillation import taught
from model_core.training.errors import TrainingError
from model_core.training.loop import Ending, Loop, Story, Watch, evaluating
from model_core.training.recipes.recipe import Prepared, Recipe, Say
from model_core.training.report import Outcome, write_report
from model_core.training.run_files import write_run
from model_core.training.run_folder import RunFolder, trained_parameters
from model_core.training.runs import DistillableRun, Run
from model_core.training.starting_point import VOCABULARY_FOLDER
from model_core.training.tables import Table

DATA_FILE: Final = "data.json"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a run is given beside what it is: where fetched models are kept, who is told what is
    being done, who may stop it, and the processes that train together."""

    cache: Path
    say: Say
    watch: Callable[[RunFolder, Prepared], Watch]
    is_stopping: Callable[[], bool] = lambda: False
    crew: Crew = ALONE


def carry_out(
    recipe: Recipe, run: Run, output: Path, around: Surroundings, *, resume: bool = False
) -> Outcome:
    """Run `run` in the folder `output`, from the beginning or from where it was stopped.

    Raises `TrainingError`, or what reading a checkpoint raises.
    """
    folder, crew = RunFolder(output), around.crew
    state = folder.read_state() if resume else None
    if not resume and crew.size == 1:
        folder.require_fresh()
    prepared = prepare_in_turn(recipe, run, output, around)
    watch = around.watch(folder, prepared)
    loop = Loop(prepared.task, run, folder, watch, around.is_stopping, crew)
    if state is not None:
        loop.restore(state)
    with folder.claimed() if crew.is_first else nullcontext():
        if crew.is_first:
            keep_account(output / DATA_FILE, prepared.tables, is_known=resume)
            write_run(run, folder.run_file)
        trained = trained_count(prepared)
        story = loop.go()
        if story.ending is Ending.STOPPED or not crew.is_first:
            return Outcome(story, {}, prepared, trained)
        around.say("finishing")
        restore_best(prepared.start, folder)
        final = {**best_figures(story), **prepared.finish(folder), **prepared.examine()}
        outcome = Outcome(story, final, prepared, trained)
        write_report(folder, run, outcome)
        return outcome


def prepare_in_turn(recipe: Recipe, run: Run, output: Path, around: Surroundings) -> Prepared:
    """What the recipe makes ready; the first process alone learns a vocabulary, for all."""
    crew = around.crew
    if crew.is_first:
        prepared = prepare(recipe, run, output, around.cache, around.say)
        crew.wait()
        return prepared
    crew.wait()
    if run.model.source is None and run.tokenizer.folder is None:
        tokenizer = run.tokenizer.model_copy(update={"folder": output / VOCABULARY_FOLDER})
        run = run.model_copy(update={"tokenizer": tokenizer})
    return prepare(recipe, run, output, around.cache, around.say)


def prepare(recipe: Recipe, run: Run, output: Path, cache: Path, say: Say) -> Prepared:
    """What the recipe makes ready, with a teacher if the run has one."""
    prepared = recipe.prepare(run, output, cache, say)
    if isinstance(run, DistillableRun) and run.distillation is not None:
        return taught(prepared, run.distillation, say)
    return prepared


def measure_result(recipe: Recipe, run: Run, output: Path, cache: Path, say: Say) -> Outcome:
    """The figures of what a run in `output` has come to, once more; nothing is written.

    On the data of the run, or on other data to validate on, if `run` now names such.
    """
    folder = RunFolder(output)
    story = Story.of(folder.read_state().figures)
    prepared = prepare(recipe, run, output, cache, say)
    require_known_data(output / DATA_FILE, prepared.tables)
    trained = trained_count(prepared)
    restore_best(prepared.start, folder)
    say("measuring")
    with evaluating(prepared.task.model):
        figures = dict(prepared.task.evaluate())
    return Outcome(story, {**figures, **prepared.examine()}, prepared, trained)


def trained_count(prepared: Prepared) -> int:
    """How many parameters are trained; adapters alone, where there are."""
    return sum(each.numel() for each in trained_parameters(prepared.task.model).values())


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
