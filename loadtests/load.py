"""A short mixed load on the default service: `make load`.

    .venv/bin/python -m loadtests.load                      # 30 s; starts a service if none answers
    .venv/bin/python -m loadtests.load --url http://127.0.0.1:9000 --users 8 --seconds 60
    .venv/bin/python -m loadtests.load -- --shape spike     # locust's own options, and the users'

Arrivals are random (an open loop), `--rate` a second by each user. It ends with 1 where a threshold
of `--slos` isn't kept, and leaves report.html, figures.json and rows.csv in `--report`.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console

from loadtests.locust_command import command_of
from loadtests.service_process import ServiceDidNotStart, serve
from loadtests.slos import DEFAULT_FILE
from loadtests.target import TargetRefused, check_target, is_loopback

console = Console(stderr=True)


def load(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="For locust, after --.", metavar="[-- ARGS]")
    ] = None,
    url: Annotated[str, typer.Option(help="The service.")] = "http://127.0.0.1:8000",
    users: Annotated[int, typer.Option(min=1, help="Streams of arrivals.")] = 4,
    rate: Annotated[float, typer.Option(min=0.01, help="Requests a second of each.")] = 1.0,
    seconds: Annotated[int, typer.Option(min=1, max=3600, help="How long.")] = 30,
    slos: Annotated[Path, typer.Option(help="SLOs and thresholds.")] = DEFAULT_FILE,
    report: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("reports/load"),
    plain: Annotated[
        bool, typer.Option(help="A service that is started: uvicorn alone, without Ray.")
    ] = False,
) -> None:
    """Offer a mix of embeddings, classification, reranking and chats, and judge what came."""
    try:
        check_target(url)
        with service_at(url, plain=plain) as found:
            command = command_of(
                "MixedUser", found, seconds=seconds, users=users, slos=slos, report=report
            )
            command += ["--arrivals", "poisson", "--rate", str(rate), *(arguments or ())]
            status = subprocess.run(command, check=False).returncode
    except (TargetRefused, ServiceDidNotStart) as failed:
        console.print(str(failed), soft_wrap=True, highlight=False)
        raise typer.Exit(2) from failed
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(status)


@contextmanager
def service_at(url: str, *, plain: bool = False) -> Iterator[str]:
    """The address of what answers at `url`, else of a default service that lives until the end.

    Raises `ServiceDidNotStart`, also where `url` is another machine's and nothing is ready there.
    """
    if is_ready(url):
        yield url
        return
    if not is_loopback(httpx.URL(url).host):
        raise ServiceDidNotStart(f"nothing is ready at {url}; start it, or name another --url")
    console.print(f"nothing is ready at {url}; starting a service for this run (minutes, the first")
    console.print("time: models are fetched and exported) …")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "service.log"
        with serve(("--plain",) if plain else (), log=log, start_timeout_s=1800) as running:
            yield running.url


def is_ready(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/ready", timeout=5.0).status_code == httpx.codes.OK
    return False


if __name__ == "__main__":
    typer.run(load)
