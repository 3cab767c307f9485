"""Inspections wait for one another, and not without end."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from service.errors import Overloaded
from service.inspection.desk import NICENESS, InspectionDesk


@pytest.fixture
async def desk() -> AsyncIterator[InspectionDesk]:
    found = InspectionDesk(2)
    yield found
    found.close()


async def test_one_runs_one_waits_and_a_third_is_told_to_come_again(desk: InspectionDesk) -> None:
    gate, begun, running = threading.Event(), threading.Event(), list[str]()

    def work(_: Callable[[], bool]) -> str:
        running.append(threading.current_thread().name)
        begun.set()
        assert gate.wait(30)
        return "seen"

    first, second = (asyncio.create_task(desk.run(work)) for _ in range(2))
    assert await asyncio.to_thread(begun.wait, 30)
    with pytest.raises(Overloaded, match="2 inspections are under way") as refused:
        await desk.run(work)
    assert refused.value.retry_after_s >= 1
    assert len(running) == 1, "the second waits"
    gate.set()
    assert await asyncio.gather(first, second) == ["seen", "seen"]
    assert await desk.run(work) == "seen"
    assert set(running) == {"anatomy-inspection_0"}


async def test_work_that_nobody_waits_for_is_told_so_and_keeps_its_place(
    desk: InspectionDesk,
) -> None:
    told, gate = list[bool](), threading.Event()
    started = threading.Event()

    def work(wanted: Callable[[], bool]) -> None:
        started.set()
        assert gate.wait(30)
        told.append(wanted())

    task = asyncio.create_task(desk.run(work))
    assert await asyncio.to_thread(started.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    other = asyncio.create_task(desk.run(lambda _: None))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await desk.run(lambda _: None)
    gate.set()
    await other
    assert told == [False]
    await desk.run(lambda _: None)


async def test_what_work_raises_reaches_whoever_waits(desk: InspectionDesk) -> None:
    def work(_: Callable[[], bool]) -> None:
        raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await desk.run(work)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
async def test_whoever_looks_stands_behind_those_who_are_served(desk: InspectionDesk) -> None:
    def niceness(_: Callable[[], bool]) -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert await desk.run(niceness) >= NICENESS
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert await asyncio.to_thread(niceness, lambda: True) == own
