"""Answers in JSON."""

import orjson
from starlette.responses import Response

# About what a number takes as JSON: how large an answer will be, before it is written.
BYTES_PER_NUMBER = 12


def json_response(payload: object, *, status: int = 200) -> Response:
    """`payload` as a JSON answer."""
    return Response(orjson.dumps(payload), status_code=status, media_type="application/json")
