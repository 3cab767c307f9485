"""Answers in JSON."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import orjson
from starlette.responses import Response

from service.errors import NotFinite
from service.messages import Floats

# About what a number takes as JSON: how large an answer will be, before it is written.
BYTES_PER_NUMBER = 12


def json_response(payload: object, *, status: int = 200) -> Response:
    """`payload` as a JSON answer."""
    content = orjson.dumps(payload, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, status_code=status, media_type="application/json")


def rows_json(rows: Iterable[Floats]) -> bytes:
    """A JSON list of arrays. orjson keeps the interpreter's lock while it writes: a row at a time
    lets the event loop in."""
    write = orjson.OPT_SERIALIZE_NUMPY
    parts = (orjson.dumps(np.ascontiguousarray(row, np.float32), option=write) for row in rows)
    return b"[" + b",".join(parts) + b"]"


def usage(tokens: int) -> dict[str, int]:
    """The usage of a request that generates nothing: the tokens that were read."""
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def told(dropped: int) -> dict[str, Any]:
    """What an item says of the tokens that were cut off it; nothing if none were, as clients of
    services that never say so expect."""
    return {"truncated": True, "dropped_tokens": dropped} if dropped else {}


def require_finite(rows: Iterable[Floats], model: str, what: str) -> None:
    """Raises `NotFinite` unless every number is finite: others never leave."""
    if not all(np.isfinite(row).all() for row in rows):
        raise NotFinite(f"model {model!r} gave a {what} that is not finite")
