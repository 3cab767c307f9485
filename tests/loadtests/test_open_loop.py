"""Open-loop arrivals against a tiny server."""

import asyncio

from loadtests.http_load import Request
from loadtests.open_loop import arrivals, offer
from loadtests.rows import BROKEN
from tests.support.servers import answering

GET = Request("get", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
FULL = b"HTTP/1.1 429 No\r\ncontent-length: 0\r\nRetry-After: 3\r\n\r\n"


def test_arrivals_have_their_rate_and_are_the_same_for_a_seed() -> None:
    times = list(arrivals(50.0, 100.0, seed=3))
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < 100
    # Of 5,000 arrivals the standard deviation is 71.
    assert abs(len(times) - 5000) < 5 * 71
    assert times == list(arrivals(50.0, 100.0, seed=3)) != list(arrivals(50.0, 100.0, seed=4))


async def test_an_open_loop_doesnt_wait_for_answers() -> None:
    under_way, most = 0, 0

    async def answer(writer: asyncio.StreamWriter) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.3)
        under_way -= 1
        writer.write(OK)

    async with answering(answer) as port:
        rows = await offer("127.0.0.1", port, [GET], rate=100.0, seconds=0.5, seed=1)
    assert {row.status for row in rows} == {200}
    assert len(rows) == len(list(arrivals(100.0, 0.5, 1)))
    assert most > 10
    assert all(row.latency_s >= row.lag_s >= 0 for row in rows)


async def test_refusals_and_broken_answers_are_told_apart() -> None:
    turn = 0

    async def answer(writer: asyncio.StreamWriter) -> None:
        nonlocal turn
        turn += 1
        writer.write((OK, FULL, OK[:20])[turn % 3])

    async with answering(answer) as port:
        rows = await offer("127.0.0.1", port, [GET], rate=200.0, seconds=0.3, seed=1)
    assert {row.status for row in rows} == {200, 429, BROKEN}
    assert {o.retry_after_s for o in rows if o.status == 429} == {3}
    assert {o.retry_after_s for o in rows if o.status != 429} == {None}


async def test_nobody_listening_is_a_broken_request() -> None:
    async with answering(lambda _: asyncio.sleep(0)) as port:
        pass
    rows = await offer("127.0.0.1", port, [GET], rate=50.0, seconds=0.2, seed=1)
    assert {row.status for row in rows} == {BROKEN}
