"""API keys: who may ask. Without a file of keys everybody may; with one, nobody else.

A key is 256 random bits, so that a plain SHA-256 of it can't be turned back; only that is kept.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.errors import UNAUTHORIZED, error_response
from service.api.exchange import exchange_of
from service.api.inspect_page import FILES

PREFIX = "sk-anatomy-"
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
DIGEST = re.compile(r"[0-9a-f]{64}")
OPEN_PATHS = frozenset({"/health", "/ready", *FILES})
"""What probes ask, which have no key: it says that a process lives, and nothing else. And a page
that says nothing before it has been given a key: a browser has none to send with its address."""

ADMIN_PATHS = "/admin/"
"""Under which models are changed. Keys of the others don't open it, nor its keys anything else."""


class KeyFileError(Exception):
    """A file of keys that can't be used; the message says which line, and never a key."""


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """The SHA-256 of each key, by the name of who holds it."""

    digests: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> "ApiKeys":
        """From lines `name sha256`; blank ones and those that begin with # are skipped.

        Raises `KeyFileError`.
        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise KeyFileError(f"the file of API keys {path} can't be read: {error}") from error
        digests: dict[str, str] = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            name, _, digest = line.strip().partition(" ")
            digest = digest.strip()
            if not NAME.fullmatch(name) or not DIGEST.fullmatch(digest):
                raise KeyFileError(
                    f"{path}, line {number}: a name of letters, digits, '.', '_' or '-' and the "
                    "SHA-256 of its key as 64 hexadecimal digits are accepted; "
                    "`anatomy key NAME` makes such a line"
                )
            if name in digests:
                raise KeyFileError(f"{path}, line {number}: the name {name!r} is there already")
            digests[name] = digest
        if not digests:
            raise KeyFileError(f"the file of API keys {path} has none, so that nobody could ask")
        return cls(digests)

    def holder(self, key: str) -> str | None:
        """The name that `key` belongs to; None for one that isn't known."""
        found, given = None, digest_of(key)
        # All are compared, each in constant time: how long it takes tells nothing.
        for name, digest in self.digests.items():
            if hmac.compare_digest(digest, given):
                found = name
        return found


def new_key() -> str:
    """A key that nobody has."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(key: str) -> str:
    """What is kept of `key`."""
    return hashlib.sha256(key.encode()).hexdigest()


class RequireKey:
    """Refuses requests without a key, whatever their path, but for `OPEN_PATHS`.

    `admins` are the keys for paths of `ADMIN_PATHS`, in the place of `keys`; either may be absent,
    and then nothing is asked for.
    """

    def __init__(self, app: ASGIApp, *, keys: ApiKeys | None, admins: ApiKeys | None) -> None:
        self._app = app
        self._keys = keys
        self._admins = admins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        is_admin = self._admins is not None and scope["path"].startswith(ADMIN_PATHS)
        keys = self._admins if is_admin else self._keys
        if keys is None:
            await self._app(scope, receive, send)
            return
        exchange, key = exchange_of(scope), key_of(scope)
        holder = None if key is None else keys.holder(key)
        if holder is None:
            exchange.refusal = UNAUTHORIZED.code
            kind = "admin key" if is_admin else "API key"
            said = f"no {kind} was sent" if key is None else f"the {kind} is not known"
            answer = error_response(
                f"{said}; send one as 'Authorization: Bearer …'",
                UNAUTHORIZED,
                headers={"www-authenticate": "Bearer"},
                dialect=exchange.dialect,
            )
            await answer(scope, receive, send)
            return
        exchange.holder = holder
        await self._app(scope, receive, send)


def key_of(scope: Scope) -> str | None:
    """The key that a request brings, as OpenAI's clients send it."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, key = value.decode("latin-1").partition(" ")
            return key.strip() if scheme.lower() == "bearer" and key.strip() else None
    return None
