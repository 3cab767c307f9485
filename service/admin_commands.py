"""The commands that change which models a running service has, by its admin routes."""

import os
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from export.artifact import Precision
from service.commands import expected_errors
from service.errors import InvalidRequest

KEY_VARIABLE = "ANATOMY_ADMIN_KEY"
CONNECT_TIMEOUT_S = 10.0

app = typer.Typer(add_completion=False, no_args_is_help=True)

Source = Annotated[str, typer.Argument(
    help="A model's name, a source, or an artifact's folder that the service sees.")]  # fmt: skip
Served = Annotated[str, typer.Argument(help="The name that it is served under.")]
Url = Annotated[str, typer.Option(
    help="Where the service is, with the group's prefix.")]  # fmt: skip
Name = Annotated[str | None, typer.Option(help="What it is to be called.")]
PrecisionOption = Annotated[Precision | None, typer.Option(help="fp32, int8 or fp16.")]
Slots = Annotated[int | None, typer.Option(help="Generations that run at the same time.")]
Context = Annotated[int | None, typer.Option(help="Tokens of a slot: prompt and answer.")]
Threads = Annotated[int | None, typer.Option(help="Threads of its session.")]
Digest = Annotated[str | None, typer.Option(
    help="SHA-256 of the artifact's manifest.json; another one is refused.")]  # fmt: skip
AllowLoss = Annotated[bool, typer.Option(
    "--allow-loss", help="Even if names vanish or change their task.")]  # fmt: skip

DEFAULT_URL = "http://127.0.0.1:8000"


@app.command(
    epilog="Example:  ANATOMY_ADMIN_KEY=sk-anatomy-… anatomy load hf:org/name --name small"
)
def load(
    source: Source,
    name: Name = None,
    precision: PrecisionOption = None,
    threads: Threads = None,
    slots: Slots = None,
    max_context: Context = None,
    digest: Digest = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Serve one more model, in every replica; the others go on."""
    with expected_errors():
        asked = spec(source, name=name, precision=precision, threads=threads, slots=slots,
                     max_context=max_context, digest=digest)  # fmt: skip
        show(ask("POST", url, "", asked))


@app.command(epilog="Example:  anatomy swap minilm minilm --precision int8")
def swap(
    served: Served,
    source: Source,
    name: Name = None,
    precision: PrecisionOption = None,
    threads: Threads = None,
    slots: Slots = None,
    max_context: Context = None,
    digest: Digest = None,
    allow_loss: AllowLoss = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Serve another model in the place of one, under its name; requests that run finish."""
    with expected_errors():
        asked = spec(source, name=name, precision=precision, threads=threads, slots=slots,
                     max_context=max_context, digest=digest,
                     allow_loss=allow_loss or None)  # fmt: skip
        show(ask("PUT", url, f"/{served}", asked))


@app.command(epilog="Example:  anatomy unload small")
def unload(served: Served, url: Url = DEFAULT_URL) -> None:
    """Serve a model no more; requests that it has finish."""
    with expected_errors():
        show(ask("DELETE", url, f"/{served}", None))


def spec(source: str, **options: Any) -> dict[str, Any]:
    """The body of a request: a folder that is here is named whole, the service runs elsewhere."""
    found = Path(source).expanduser()
    given = {name: value for name, value in options.items() if value is not None}
    return {"source": str(found.resolve()) if found.exists() else source, **given}


def ask(method: str, url: str, place: str, body: dict[str, Any] | None) -> dict[str, Any]:
    """The state of the service's models after a change.

    Raises `InvalidRequest` with what the service said, or when it can't be reached.
    """
    key = os.environ.get(KEY_VARIABLE, "")
    address = f"{url.rstrip('/')}/admin/models{place}"
    # A model that isn't there yet is fetched and exported first: that may take minutes.
    timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT_S)
    try:
        answer = httpx.request(
            method, address, json=body, headers={"authorization": f"Bearer {key}"}, timeout=timeout
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise InvalidRequest(f"{address} can't be reached: {error}") from error
    if answer.status_code != HTTPStatus.OK:
        raise InvalidRequest(f"{answer.status_code}: {refusal(answer)}")
    return answer.json()


def refusal(answer: httpx.Response) -> str:
    """What the service said, with what to do about a key."""
    try:
        message = str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = answer.text[:200]
    if answer.status_code == HTTPStatus.UNAUTHORIZED:
        return f"{message} (here: {KEY_VARIABLE} in the environment)"
    if answer.status_code == HTTPStatus.NOT_FOUND and "/admin/" in message:
        return f"{message}; the service has no ANATOMY_ADMIN_KEYS_FILE"
    return message


def show(state: dict[str, Any]) -> None:
    """The models that are served now."""
    table = Table("name", "serves", "source")
    for model in state["models"]:
        table.add_row(model["name"], ", ".join(model["serves"]), model["source"])
    console = Console()
    console.print(table)
    console.print(f"in {len(state['replicas'])} replicas", highlight=False)
