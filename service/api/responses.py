"""Answers in JSON."""

from collections.abc import Iterable

import numpy as np
import orjson
from starlette.responses import Response

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
