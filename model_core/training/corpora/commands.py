"""`anatomy corpus`: public data, downloaded by a package manager, as files to train on."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, NoReturn, TypeAlias

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from model_core.training.corpora.bits import bits_per_byte
from model_core.training.corpora.corpus import Corpus, write_corpus
from model_core.training.corpora.messages import messages
from model_core.training.corpora.verses import verses
from model_core.training.corpora.words import definitions, glosses
from model_core.training.errors import TrainingError
from model_core.training.tables import Column, as_text, read_table

WORDNET: Final = Path("/usr/share/wordnet")

WordNet: TypeAlias = Annotated[Path, typer.Argument(help="WordNet's data.* files.")]
Output: TypeAlias = Annotated[Path, typer.Option(help="The folder for the parts, a .jsonl each.")]
Limit: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Rows of each held-out part, at "
    "most.")]  # fmt: skip

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def corpus() -> None:
    """Make training data of public data: parts that share nothing, and corpus.json about them."""


@app.command("glosses", epilog="Example:  anatomy corpus glosses --output glosses")
def glosses_command(output: Output, folder: WordNet = WORDNET, limit: Limit = None) -> None:
    """WordNet's definitions and their lexicographer files, to classify (wordnet-base)."""
    write(lambda: glosses(folder, limit), output)


@app.command("definitions", epilog="Example:  anatomy corpus definitions --output definitions")
def definitions_command(output: Output, folder: WordNet = WORDNET, limit: Limit = None) -> None:
    """WordNet's definitions and their words, to embed (wordnet-base)."""
    write(lambda: definitions(folder, limit), output)


@app.command(
    "verses",
    epilog="Example:  bible -f Gen1:1-Rev22:21 > kjv.txt && anatomy corpus verses kjv.txt "
    "--output verses",
)
def verses_command(
    output: Output,
    file: Annotated[Path, typer.Argument(help="What `bible -f Gen1:1-Rev22:21` printed.")],
) -> None:
    """The King James Bible by chapters, to continue (bible-kjv, bible-kjv-text)."""
    write(lambda: verses(file), output)


@app.command(
    "messages",
    epilog="Example:  pip download --no-deps --dest wheels django==5.2.19 && "
    "anatomy corpus messages wheels/*.whl --language fr --output messages",
)
def messages_command(
    output: Output,
    sources: Annotated[list[Path], typer.Argument(help="Wheels, or folders, with catalogues.")],
    language: Annotated[str, typer.Option(help="The language of the translations.")] = "fr",
) -> None:
    """Messages of programs and their translations (wheels with .mo files)."""
    write(lambda: messages(sources, language), output)


@app.command(
    "bits", epilog="Example:  anatomy corpus bits verses/train.jsonl verses/validation.jsonl"
)
def bits_command(
    train: Annotated[Path, typer.Argument(help="Texts that are known.")],
    held_out: Annotated[Path, typer.Argument(help="Texts that are to be described.")],
    text_column: Annotated[str, typer.Option(help="The column with the texts.")] = "text",
) -> None:
    """Bits per byte of held-out texts by compressors and n-grams: what a model has to beat."""
    console = Console(stderr=True)
    column = Column(text_column, "--text-column", as_text)
    try:
        known, asked = (
            "".join(row[text_column] for row in read_table(file, [column]).rows).encode()
            for file in (train, held_out)
        )
        found = bits_per_byte(known, asked)
    except (OSError, TrainingError) as error:
        fail(console, error)
    table = Table("", "bits per byte", box=None)
    for name, bits in found.items():
        table.add_row(name, f"{bits:.3f}")
    Console().print(table)


def write(make: Callable[[], Corpus], output: Path) -> None:
    """Make a corpus and write it; prints its folder. Expected errors end the process."""
    console = Console(stderr=True)
    try:
        account = write_corpus(make(), output)
    except (OSError, TrainingError) as error:
        fail(console, error)
    counts = ", ".join(f"{name} {part['rows']:,}" for name, part in account["parts"].items())
    left_out = ", ".join(f"{count:,} {why}" for why, count in account["left_out"].items() if count)
    console.print(f"{counts}" + (f"; left out: {left_out}" if left_out else ""), highlight=False)
    print(output)


def fail(console: Console, error: Exception) -> NoReturn:
    """Say what is wrong and end the process."""
    console.print(f"[red]error:[/] {escape(str(error))}", highlight=False)
    sys.exit(1)
