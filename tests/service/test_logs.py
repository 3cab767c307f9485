import errno
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import pytest

from service.logs import FIELDS, BackgroundHandler, JsonLines, TextLines

ROOT = Path(__file__).parents[2]
FORGED = 'a\n2026-01-01T00:00:00.000Z INFO root forged "key"\r\x1b[31m\u2028\u202e\x85end'


def record(message: str, *args: object, **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("service.x", logging.INFO, __file__, 1, message, args, None)
    setattr(made, FIELDS, fields)
    return made


def raised() -> logging.LogRecord:
    made = record("failed")
    try:
        raise ValueError(FORGED)
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


@pytest.mark.parametrize("made", [record("%s", FORGED), record("x", model=FORGED), raised()])
def test_what_comes_from_outside_makes_no_lines_and_no_colours(made: logging.LogRecord) -> None:
    as_json, as_text = JsonLines().format(made), TextLines().format(made)
    assert as_json.isascii()
    assert as_json.isprintable()
    assert FORGED in "".join(map(str, json.loads(as_json).values()))
    first, *others = as_text.split("\n")
    assert first.startswith("20")
    # What follows an exception's line is indented, so that it is no line of its own.
    assert bool(others) == bool(made.exc_info)
    assert all(line.startswith("    ") for line in others)
    assert all(line.isprintable() for line in [first, *others])


def test_a_line_has_its_fields_by_name() -> None:
    made = record("request", route="/embed", status=200, error="two words", model="a=b")
    said = json.loads(JsonLines().format(made))
    assert said["logger"] == "service.x"
    assert (said["message"], said["route"], said["status"]) == ("request", "/embed", 200)
    text = TextLines().format(made)
    assert text.endswith('service.x request route=/embed status=200 error="two words" model="a=b"')


class Stalled(io.StringIO):
    """A reader that takes nothing until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()

    def write(self, text: str) -> int:
        assert self.let.wait(20)
        return super().write(text)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert holds()


def test_a_reader_that_stalls_holds_nobody_up_and_what_is_dropped_is_counted() -> None:
    stream, lost = Stalled(), list[None]()
    handler = BackgroundHandler(stream, lambda: lost.append(None), waiting=4)
    for number in range(50):
        handler.handle(record("line %d", number))
    # One is in the writer's hand at most, and four wait.
    assert 50 - 5 <= len(lost) <= 50 - 4
    stream.let.set()
    handler.close()
    assert len(stream.getvalue().splitlines()) == 50 - len(lost)


class Full(io.StringIO):
    """A disk without room."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def closed() -> TextIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [closed(), Full(), None])
def test_a_log_that_cannot_be_written_is_no_error(stream: TextIO | None) -> None:
    lost: list[None] = []
    handler = BackgroundHandler(stream, lambda: lost.append(None))
    handler.handle(record("one"))
    handler.handle(record("two"))
    until(lambda: len(lost) == 2)
    handler.close()


def test_a_message_that_does_not_fit_its_arguments_is_lost_alone() -> None:
    stream, lost = io.StringIO(), list[None]()
    handler = BackgroundHandler(stream, lambda: lost.append(None))
    handler.handle(record("%d", "no number"))
    handler.handle(record("fine"))
    handler.close()
    assert len(lost) == 1
    assert "fine" in stream.getvalue()


def test_the_last_lines_of_a_process_are_written() -> None:
    code = (
        "import logging; from service.logs import log_to_stderr; log_to_stderr('json');"
        "[logging.getLogger('service.x').info('line %d', n) for n in range(500)]"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    lines = [json.loads(line)["message"] for line in ran.stderr.splitlines()]
    assert lines == [f"line {number}" for number in range(500)]
