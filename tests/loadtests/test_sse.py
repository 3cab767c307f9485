"""The load tests' own client for server-sent events."""

import json
from collections.abc import Iterator
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.sse import EventParser, StreamBroken, read_stream

CHAT = (
    b'data: {"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
    b'data: {"choices":[{"delta":{"content":"time "},"finish_reason":null}]}\n\n'
    b": a comment, sent to keep the connection open\n\n"
    b'data: {"choices":[{"delta":{"content":"flies"},"finish_reason":null}]}\n\n'
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"completion_tokens":2}}\n\n'
    b"data: [DONE]\n\n"
)


def ticking() -> Iterator[float]:
    """A clock that moves by a second each time it is read."""
    return (float(second) for second in count(1))


def test_an_event_is_complete_at_its_blank_line() -> None:
    parser = EventParser()
    assert parser.feed(b"data: a\n") == []
    assert parser.feed(b"\n") == ["a"]


def test_lines_of_one_event_are_joined() -> None:
    assert EventParser().feed(b"event: note\ndata: a\ndata:b\nid: 1\n\n") == ["a\nb"]


def test_carriage_returns_end_lines_too() -> None:
    assert EventParser().feed(b"data: a\r\n\r\ndata: b\r\n\r\n") == ["a", "b"]


@given(
    texts=st.lists(st.text(min_size=1), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 400)),
)
def test_where_the_bytes_are_cut_does_not_matter(texts: list[str], cuts: list[int]) -> None:
    body = "".join(f"data: {json.dumps(text, ensure_ascii=False)}\n\n" for text in texts).encode()
    borders = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    parser = EventParser()
    events: list[str] = []
    for start, end in pairwise(borders):
        events += parser.feed(body[start:end])
    assert [json.loads(event) for event in events] == texts


def test_an_endless_line_is_refused() -> None:
    parser = EventParser()
    for _ in range(10):
        parser.feed(b"x" * 100_000)
    with pytest.raises(StreamBroken, match="bytes"):
        parser.feed(b"x" * 100_000)


def test_times_are_those_of_chunks_with_text() -> None:
    clock = ticking()
    streamed = read_stream([CHAT], started_s=0.0, clock=lambda: next(clock))
    # Events in order: role, text, text, finish, usage, end; a second each.
    assert streamed.text == "time flies"
    assert streamed.finish_reason == "stop"
    assert streamed.time_to_first_token_s == 2.0
    assert streamed.inter_token_s == (1.0,)
    assert streamed.time_per_output_token_s == 4.0
    assert streamed.end_to_end_s == 6.0


def test_completions_are_read_as_well_as_chats() -> None:
    body = b'data: {"choices":[{"text":"an arrow","finish_reason":"length"}]}\n\ndata: [DONE]\n\n'
    streamed = read_stream([body], started_s=0.0, clock=lambda: 1.0)
    assert (streamed.text, streamed.finish_reason) == ("an arrow", "length")
    assert streamed.time_per_output_token_s is None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (CHAT[:200], "cut after 1 chunks"),
        (b"", "cut after 0 chunks"),
        (b'data: {"error":{"message":"no"}}\n\n', "no"),
        (b"data: [DONE]\n\n", "without any text"),
        (b"data: {\n\n", "not JSON"),
        (b"data: \xff\n\n", "not UTF-8"),
    ],
)
def test_a_stream_that_goes_wrong_says_how(body: bytes, reason: str) -> None:
    with pytest.raises(StreamBroken, match=reason):
        read_stream([body], started_s=0.0, clock=lambda: 0.0)
