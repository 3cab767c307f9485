"""`anatomy inspect`: what `/v1/inspect` shows, without a service."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from export.artifact import Artifact
from export.catalogue import is_embedded, trunk_of
from export.session import find_hardware
from service.commands import PrecisionOption, expected_errors, make_settings
from service.errors import InvalidRequest
from service.exporting import artifact_of
from service.inspection.encoding import as_json
from service.inspection.inquiry import Inquiry, Part
from service.inspection.loading import inspected_models
from service.inspection.model import InspectedModel, Seen
from service.inspection.panels import CAUTION, findings, grid, panels_of, save_png
from service.inspection.sequences import TextLimits
from service.inspection.single_file import single_file
from service.messages import Task
from service.offline_commands import Model
from service.settings import ServiceSettings

MOST_NUMBERS = 2**24
"""In an answer, which stays on this machine."""
TOLD = {
    Task.EMBED: (Part.POOLED,),
    Task.CLASSIFY: (Part.CLASS_SCORES,),
    Task.GENERATE: (Part.NEXT_TOKENS,),
}
"""What is shown beside a pattern unless `--include` says otherwise."""

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Examples:  anatomy inspect minilm 'time flies like an arrow' --layer 0 --head 8 · "
    "anatomy inspect smollm2 'time flies like' --html page.html · anatomy inspect supersense "
    "'a large wild cat' --include attributions"
)
def inspect(
    model: Model,
    text: Annotated[str, typer.Argument(help="A text, a prompt, or what is translated.")],
    second: Annotated[str | None, typer.Option(help="Another: to compare with, the second of a "
        "pair, a continuation, a translation.")] = None,
    layer: Annotated[int | None, typer.Option(min=0, help="Which layer; default 0.")] = None,
    head: Annotated[int | None, typer.Option(min=0, help="Which query head; default 0.")] = None,
    include: Annotated[list[Part] | None, typer.Option(
        help="What else is asked for; several times for several.")] = None,
    label: Annotated[str | None, typer.Option(
        help="The class that attributions explain.")] = None,
    top: Annotated[int, typer.Option(min=1, max=100, help="How many next tokens.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="The whole answer as JSON, of every layer "
        "and head unless they are named.")] = False,
    png: Annotated[Path | None, typer.Option(help="Write a picture of the pattern.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the page of /inspect with it, in "
        "one file that opens without a service.")] = None,
    precision: PrecisionOption = None,
) -> None:  # fmt: skip
    """Look inside a model while it reads a text: where a head looks, what would come next."""
    with expected_errors():
        settings = make_settings(models=[trunk_of(model)], precision=precision, inspect=True)
        inspected = find_model(model, settings)
        chosen = None if json else 0
        layers, heads = (chosen if one is None else one for one in (layer, head))
        parts = (Part.PATTERN, *(include or TOLD[inspected.card.task]))
        inquiry = Inquiry(
            text,
            second,
            tuple(dict.fromkeys(parts)),
            layers=None if layers is None else (layers,),
            heads=None if heads is None else (heads,),
            top=top,
            label=label,
        )
        limits = TextLimits(settings.inspect_max_tokens, settings.max_bytes_per_token)

        def look(one: Inquiry) -> Seen:
            return inspected.look(one, limits, MOST_NUMBERS)

        seen = look(inquiry)
        if png is not None:
            with written(png):
                save_png(panels_of(seen), png)
        if html is not None:
            page = single_file(inspected, look, inquiry, layer or 0, head or 0)
            with written(html):
                html.write_text(page, encoding="utf-8")
        if json:
            sys.stdout.buffer.write(as_json(seen) + b"\n")
            return
        console = Console()
        for panel in panels_of(seen):
            console.print(grid(panel), "")
        for line in findings(seen):
            console.print(line, highlight=False, markup=False)
        console.print(f"[dim]{CAUTION}[/]", highlight=False)


@contextmanager
def written(path: Path) -> Generator[None]:
    """Raises `InvalidRequest` where `path` can't be written."""
    try:
        yield
    except OSError as error:
        raise InvalidRequest(f"{path} can't be written: {error.strerror or error}") from error


def find_model(model: str, settings: ServiceSettings) -> InspectedModel:
    """What is called so; of a source, its own output."""
    hardware = find_hardware()
    artifact = Artifact.open(artifact_of(settings.models[0], settings, hardware))
    models = inspected_models(artifact, settings, hardware)
    if is_embedded(model):
        return next(one for one in models if one.card.name == model)
    return models[0]
