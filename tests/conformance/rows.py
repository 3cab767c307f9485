"""A row of `docs/conformance.md` for each test: which client, which call, how it went."""

import os
import subprocess
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest

WORKS = "works"
CANT = "can't"


@dataclass(frozen=True, slots=True)
class Row:
    """How a call of a client went; `why` says what it can't do, or what has to be known."""

    client: str
    version: str
    call: str
    outcome: str
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        """The same as JSON's types."""
        return asdict(self)


def covers(client: str, call: str, *, outcome: str = WORKS, why: str = "") -> pytest.MarkDecorator:
    """A test of `call`. One that passes shows `outcome`: what a client can't do is tested as well.

    `client` is the name of a distribution.
    """
    return pytest.mark.covers(client, call, outcome, why)


def row_of(item: pytest.Item, passed: bool) -> Row | None:
    """The row of a test that ran."""
    mark = item.get_closest_marker("covers")
    if mark is None:
        return None
    client, call, outcome, why = mark.args
    return Row(client, version_of(client), call, outcome if passed else "FAILS", why)


def version_of(client: str) -> str:
    """Of the client in this environment, or else in the clients'."""
    try:
        return version(client)
    except PackageNotFoundError:
        script = f"from importlib.metadata import version; print(version({client!r}))"
        command = [os.environ["CLIENTS_PYTHON"], "-c", script]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
