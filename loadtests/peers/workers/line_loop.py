"""The worker's side of the protocol: a JSON object a line in, one out, until standard input ends.

Standard library alone: it is imported in the peers' own environments.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any


def serve_lines(handlers: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """Answer `{"do": name, …arguments}` with what `handlers[name](**arguments)` returns.

    What libraries print goes to standard error, so that it can't end up between the answers. A
    handler that raises is answered with `{"error": …}` and the traceback goes to standard error.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = handlers[command.pop("do")](**command)
        except Exception as error:  # noqa: BLE001 - the boundary: the parent reports it and ends
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
