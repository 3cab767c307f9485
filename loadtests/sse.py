"""A client for server-sent events that knows when each one came.

Load generators that read a whole response before they look at it can't tell the time to the first
token from the time to the last; here every event is stamped as its last byte is read.
Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

MAX_LINE_BYTES = 1024**2
DONE = "[DONE]"


class StreamBroken(Exception):
    """A stream that isn't what it should be, or that ended before its end."""


@dataclass
class EventParser:
    """Bytes in, as they come, data of complete events out."""

    _rest: bytes = b""
    _data: list[str] = field(default_factory=list[str])

    def feed(self, chunk: bytes) -> list[str]:
        """The data of every event that `chunk` completes; comments and other fields are skipped.

        Raises `StreamBroken` when a line grows past a mebibyte or isn't UTF-8.
        """
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_LINE_BYTES:
            raise StreamBroken(f"a line of more than {MAX_LINE_BYTES} bytes")
        events: list[str] = []
        for line in lines:
            self._take_line(line.removesuffix(b"\r"), events)
        return events

    def _take_line(self, line: bytes, events: list[str]) -> None:
        if not line:
            if self._data:
                events.append("\n".join(self._data))
            self._data = []
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            try:
                self._data.append(value.removeprefix(b" ").decode())
            except UnicodeDecodeError as error:
                raise StreamBroken(f"an event that is not UTF-8: {error}") from error


@dataclass(frozen=True, slots=True)
class StreamedText:
    """What a stream of completion chunks said, and when (seconds on the caller's clock).

    `token_times_s` has one entry for each chunk with text: an engine sends a chunk a token, unless
    a token ends inside a character or a possible stop string.
    """

    started_s: float
    token_times_s: tuple[float, ...]
    ended_s: float
    text: str
    finish_reason: str | None

    @property
    def time_to_first_token_s(self) -> float:
        return self.token_times_s[0] - self.started_s

    @property
    def inter_token_s(self) -> tuple[float, ...]:
        """The gaps between chunks, one fewer than there are chunks."""
        return tuple(later - earlier for earlier, later in pairwise(self.token_times_s))

    @property
    def time_per_output_token_s(self) -> float | None:
        """(end to end − time to first token) / (n − 1); None for a single chunk."""
        gaps = len(self.token_times_s) - 1
        if gaps < 1:
            return None
        return (self.ended_s - self.token_times_s[0]) / gaps

    @property
    def end_to_end_s(self) -> float:
        return self.ended_s - self.started_s


@dataclass
class StreamReader:
    """A streamed completion or chat completion, read as its bytes come.

    Raises `StreamBroken` for an error event, for one that isn't understood, and where no text came.
    """

    started_s: float
    clock: Callable[[], float]
    _parser: EventParser = field(default_factory=EventParser)
    _times: list[float] = field(default_factory=list[float])
    _pieces: list[str] = field(default_factory=list[str])
    _finish_reason: str | None = None

    def feed(self, chunk: bytes) -> StreamedText | None:
        """The whole text, once `chunk` has its end."""
        for data in self._parser.feed(chunk):
            now = self.clock()
            if data == DONE:
                return self._whole(now)
            piece, reason = read_chunk(data)
            self._finish_reason = reason or self._finish_reason
            if piece:
                self._times.append(now)
                self._pieces.append(piece)
        return None

    def cut(self) -> StreamBroken:
        """What to raise when the bytes ended before the text did."""
        return StreamBroken(
            f"the stream was cut after {len(self._times)} chunks of text, before {DONE}"
        )

    def _whole(self, now: float) -> StreamedText:
        if not self._times:
            raise StreamBroken("the stream ended without any text")
        text = "".join(self._pieces)
        return StreamedText(self.started_s, tuple(self._times), now, text, self._finish_reason)


def read_stream(
    chunks: Iterable[bytes], *, started_s: float, clock: Callable[[], float]
) -> StreamedText:
    """Read a stream to its `[DONE]`. Raises `StreamBroken`, also for a body cut short."""
    reader = StreamReader(started_s, clock)
    for chunk in chunks:
        if (whole := reader.feed(chunk)) is not None:
            return whole
    raise reader.cut()


def read_chunk(data: str) -> tuple[str, str | None]:
    """Text and finish reason of a completion's or chat completion's chunk."""
    try:
        body: dict[str, Any] = json.loads(data)
    except json.JSONDecodeError as error:
        raise StreamBroken(f"an event that is not JSON: {data[:200]!r}") from error
    if "error" in body:
        raise StreamBroken(f"the service reported {body['error']}")
    for choice in body.get("choices", ()):
        text = choice["text"] if "text" in choice else choice["delta"].get("content")
        return text or "", choice.get("finish_reason")
    return "", None  # the chunk that carries usage alone
