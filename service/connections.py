"""Connections under plain uvicorn: what a client may take in time and bytes before it is heard.

uvicorn's parser waits for the end of a request's head for ever, and keeps all of it. Behind Ray
Serve HAProxy stands in front, which bounds both itself (`service/haproxy-with-bounds`).
"""

import asyncio
from typing import ClassVar, cast

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

TOO_LARGE = 431


class HeadTooLarge(Exception):
    """A request's line and headers are more than is read of them."""


class BoundedHttp(HttpToolsProtocol):
    """HTTP/1.1 with bounds on heads, and on what is still sent when the answer is there already.

    A head has at most `max_headers` headers and `max_head_bytes` bytes, give or take what one read
    brings: more is a 431. One that isn't complete `head_timeout_s` after it began, or after the
    connection was made, ends the connection; so does a body that goes on for `linger_s` after its
    request was answered, which nobody reads.
    """

    head_timeout_s: ClassVar[float] = 30.0
    linger_s: ClassVar[float] = 5.0
    max_head_bytes: ClassVar[int] = HIGH_WATER_LIMIT
    max_headers: ClassVar[int] = 100

    _head_bytes = 0
    _is_in_head = False
    _is_receiving = False
    """Whether a request has begun and its body has not ended."""
    _timer: asyncio.TimerHandle | None = None

    # uvicorn narrows asyncio's own type in the same way.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._end_after(self.head_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._is_receiving and self._timer is None:
            self._end_after(self.head_timeout_s)
        before = self._head_bytes
        super().data_received(data)
        if self._is_in_head and not self.transport.is_closing():
            # The parser holds an unfinished header without saying so: count what came in.
            self._head_bytes = max(self._head_bytes, before + len(data))
            if self._head_bytes > self.max_head_bytes:
                self._refuse_head()

    def on_message_begin(self) -> None:
        self._is_receiving = self._is_in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)
        if len(self.headers) > self.max_headers:
            raise HeadTooLarge

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_receiving = False
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_receiving and self._timer is None:
            self._end_after(self.linger_s)

    def send_400_response(self, msg: str) -> None:
        if self._head_bytes > self.max_head_bytes or len(self.headers or ()) > self.max_headers:
            self._refuse_head()
        else:
            super().send_400_response(msg)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self.max_head_bytes:
            raise HeadTooLarge

    def _refuse_head(self) -> None:
        answer = b"content-length: 0\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[TOO_LARGE] + answer)
        self.transport.close()

    def _end_after(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._end)

    def _end(self) -> None:
        self._timer = None
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None until the first request
        if cycle is not None and not cycle.response_complete:
            # The head of the next request is late; the answer to the last is still on its way.
            self._end_after(self.head_timeout_s)
        else:
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
