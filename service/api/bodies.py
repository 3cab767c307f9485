"""Request bodies: read within limits of size and time, then validated against a type."""

import asyncio
import json
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from service.api.exchange import exchange_of
from service.errors import BodyTooLarge, InvalidRequest

SHOWN_CHARACTERS = 60
SHOWN_ERRORS = 3
MOST_DEEP = 200
"""Lists and objects within each other that pydantic's parser reads; it says so of more."""
OF_PYDANTIC = re.compile("^[Vv]alue error, | after validation(, not .*)?$")
"""What its messages have beside what is accepted."""
# An error is noted for each unknown key, and a body of the largest size has room for a million:
# that would hold the event loop for seconds. Lists stop at their first error by themselves.
MAX_KEYS = 50_000
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class RequestBody(BaseModel):
    """Base of every request body: strict types, finite numbers, no unknown field."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Body = TypeVar("Body", bound=RequestBody)


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """How much is read of a body, in bytes, and for how long, in seconds."""

    max_bytes: int
    timeout_s: float


async def read(request: Request, kind: type[Body], limits: BodyLimits) -> Body:
    """The request's JSON body as a `kind`.

    Raises `BodyTooLarge` before anything is parsed, `InvalidRequest` naming the field at fault
    (`messages[0].content`), and HTTP 415 for another media type or a compressed body, 408 for a
    body that doesn't arrive in time.
    """
    _require_json(request)
    raw = await _read_bytes(request, limits)
    exchange = exchange_of(request.scope)
    if exchange.keeps_body:
        exchange.body = raw
    if raw.count(b'":') > MAX_KEYS:
        raise InvalidRequest(f"the body has more keys than any request; at most {MAX_KEYS}")
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        raise _lone_surrogate(raw) or _invalid_request(error) from error


def _lone_surrogate(raw: bytes) -> InvalidRequest | None:
    """The error that names the field with half a surrogate pair, if that is what is wrong.

    pydantic's parser refuses such a body without saying where; the standard library's takes it.
    """
    if b"\\u" not in raw:
        return None
    try:
        left: list[tuple[tuple[int | str, ...], Any]] = [((), json.loads(raw))]
    except (ValueError, RecursionError):
        return None
    while left:
        path, value = left.pop()
        if isinstance(value, str) and LONE_SURROGATE.search(value):
            field = _path(path) or "the body"
            return InvalidRequest(
                f"{field}: {_shortened(value)} has half of a surrogate pair, which is no "
                "character; send valid Unicode",
                field=_path(path),
            )
        if isinstance(value, dict):
            left += [((*path, str(k)), v) for k, v in cast("dict[str, Any]", value).items()]
        elif isinstance(value, list):
            left += [((*path, i), v) for i, v in enumerate(cast("list[Any]", value))]
    return None


def _require_json(request: Request) -> None:
    # A form or plain text is what a web page may post across origins without asking: refusing
    # them keeps other pages in the user's browser away from a service on loopback.
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise HTTPException(
            415,
            f"content-type {_shortened(media_type)} is not accepted; send application/json",
        )
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise HTTPException(
            415,
            f"content-encoding {_shortened(encoding)} is not accepted; send the body uncompressed",
        )


async def _read_bytes(request: Request, limits: BodyLimits) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limits.max_bytes:
        raise _too_large(limits)
    parts = bytearray()
    try:
        async with asyncio.timeout(limits.timeout_s):
            async for part in request.stream():
                parts += part
                if len(parts) > limits.max_bytes:
                    raise _too_large(limits)
    except TimeoutError as error:
        raise HTTPException(
            408, f"the request body did not arrive within {limits.timeout_s:g} s"
        ) from error
    return bytes(parts)


def _too_large(limits: BodyLimits) -> BodyTooLarge:
    return BodyTooLarge(
        f"the request body is over the limit; at most {limits.max_bytes} bytes are accepted"
    )


def _invalid_request(error: ValidationError) -> InvalidRequest:
    found = error.errors(include_url=False, include_context=True)
    messages = [_message(item) for item in found[:SHOWN_ERRORS]]
    if len(found) > SHOWN_ERRORS:
        messages.append(f"and {len(found) - SHOWN_ERRORS} more")
    return InvalidRequest("; ".join(messages), field=_path(found[0]["loc"]))


def _message(item: Any) -> str:
    field = _path(item["loc"])
    kind, said = item["type"], OF_PYDANTIC.sub("", item["msg"])
    said = said[0].lower() + said[1:]
    if kind == "json_invalid" and "recursion limit" in item["ctx"]["error"]:
        return (
            "the body is nested too deeply: lists and objects within each other may be "
            f"{MOST_DEEP} deep"
        )
    if kind == "json_invalid":
        return f"the body is not valid JSON: {item['ctx']['error']}"
    if field is None:
        return f"the body is not accepted: {said}"
    if kind == "missing":
        return f"{field} is missing"
    if kind == "extra_forbidden":
        return f"{field} is not a known field"
    if kind == "none_required":
        return f"{field} is not supported by this service; leave it out"
    return f"{field}: {_shortened(item['input'])} is not accepted; {said}"


def _path(location: Sequence[int | str]) -> str | None:
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith("<"):
            # Tags of unions are written <so>: they are no part of the client's JSON.
            part = part if len(part) <= SHOWN_CHARACTERS else part[:SHOWN_CHARACTERS] + "…"
            # Half a surrogate pair in a key can't be written in the answer.
            part = part.encode("utf-8", "backslashreplace").decode()
            path += f".{part}" if path else part
    return path or None


class Shown(reprlib.Repr):
    """Values as Python writes them, cut, but for what JSON has other words for."""

    def repr_NoneType(self, _value: None, _level: int) -> str:  # noqa: N802 (the type's name)
        return "null"

    def repr_bool(self, value: bool, _level: int) -> str:
        return "true" if value else "false"


def _shortened(value: object) -> str:
    # Cut before it is written out: the value may be as large as the body.
    shown = repr(value[:SHOWN_CHARACTERS]) if isinstance(value, str) else Shown().repr(value)
    return shown if len(shown) <= SHOWN_CHARACTERS else shown[:SHOWN_CHARACTERS] + "…"
