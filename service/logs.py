"""The service's log: standard error, as text or JSON lines, under Ray Serve as under plain uvicorn.

A line is written by a thread of the log's own, so that a reader that stalls, a full disk or a
closed stream holds up no request: what can't be written is dropped, and counted. What comes from
outside is escaped, so that nobody writes lines, or colours, of their own.
"""

import json
import logging
import queue
import re
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, TextIO, TypeAlias

LogFormat: TypeAlias = Literal["text", "json"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

FIELDS = "fields"
"""The attribute of a record that has values by name, beside its message."""

WAITING_LINES = 10_000
LOGGERS = ("service", "uvicorn")
LAST_LINES_S = 2.0
"""How long the end of the process waits for lines that aren't written yet."""

# Control characters, line ends of Unicode, and what turns the direction of text.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
BARE = re.compile(r"[^\s\"'=\\]+")


def log_to_stderr(
    form: LogFormat = "text",
    level: LogLevel = "info",
    on_lost: Callable[[], None] = lambda: None,
) -> None:
    """Give the loggers of the service and of uvicorn one handler, in place of what they had from
    here.

    Ray Serve's replicas set up no handler for other loggers than Serve's, and put what is written
    to `sys.stderr` into a buffer that is lost with them: the stream that the process was started
    with is written to. `on_lost` is called for each line that is dropped, on any thread.
    """
    handler = BackgroundHandler(sys.__stderr__, on_lost)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    for logger in map(logging.getLogger, LOGGERS):
        for before in [found for found in logger.handlers if isinstance(found, BackgroundHandler)]:
            logger.removeHandler(before)
            before.close()
        logger.addHandler(handler)
    logging.getLogger("service").setLevel(level.upper())


class BackgroundHandler(logging.Handler):
    """Writes lines to `stream` on a thread of its own; at most `waiting` are kept for it."""

    def __init__(
        self, stream: TextIO | None, on_lost: Callable[[], None], *, waiting: int = WAITING_LINES
    ) -> None:
        super().__init__()
        self._stream = stream
        self._on_lost = on_lost
        self._lines: queue.Queue[str | None] = queue.Queue(waiting)
        self._thread = threading.Thread(target=self._write, name="anatomy-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line, or drop it; never waits and never raises."""
        try:
            self._lines.put_nowait(self.format(record))
        except (queue.Full, TypeError, ValueError, KeyError):
            self._on_lost()

    def close(self) -> None:
        """Write what has been taken, for as long as that may take."""
        super().close()
        try:
            self._lines.put(None, timeout=LAST_LINES_S)
        except queue.Full:
            return
        self._thread.join(LAST_LINES_S)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            if self._stream is None:
                self._on_lost()
                continue
            try:
                self._stream.write(f"{line}\n")
                self._stream.flush()
            except (OSError, ValueError):  # a full disk, a reader that left; a closed stream
                self._on_lost()


class JsonLines(logging.Formatter):
    """A record as one JSON object in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """A line without its end."""
        said = {
            "time": time_of(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


class TextLines(logging.Formatter):
    """A record as one line of text; an exception's lines follow, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Lines without the last one's end."""
        values = " ".join(f"{name}={shown(value)}" for name, value in fields_of(record).items())
        parts = (time_of(record), record.levelname, record.name, record.getMessage(), values)
        text = escaped(" ".join(part for part in parts if part))
        if record.exc_info:
            lines = self.formatException(record.exc_info).split("\n")
            text += "".join(f"\n    {escaped(line)}" for line in lines)
        return text


def time_of(record: logging.LogRecord) -> str:
    """When a record was made, in UTC to the millisecond."""
    made = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return made.replace("+00:00", "Z")


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The values that a record has beside its message."""
    return getattr(record, FIELDS, {})


def shown(value: object) -> str:
    """A value as one word, in quotes where it has more."""
    text = str(value)
    return text if BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def escaped(text: str) -> str:
    """Text that stays in its line, and leaves a terminal as it is."""
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
