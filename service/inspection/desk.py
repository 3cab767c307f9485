"""Where inspections run: one after another, on a thread that nothing else uses."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import TypeVar

from service.errors import Overloaded

Result = TypeVar("Result")

RETRY_AFTER_S = 2

NICENESS = 15
"""Of the thread that looks: where cores are short, those who are served go first."""


class InspectionDesk:
    """At most `places` inspections at a time, of which one runs and the others wait.

    Their sessions have a thread each: whatever is looked into, serving keeps its other cores. Call
    `close` when the service ends.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._taken = 0
        self._executor = ThreadPoolExecutor(
            1, thread_name_prefix="anatomy-inspection", initializer=stand_back
        )

    async def run(self, work: Callable[[Callable[[], bool]], Result]) -> Result:
        """The result of `work`, which is told whether it is still wanted.

        Raises `Overloaded` where no place is free. Work that nobody waits for any longer keeps its
        place until it has ended, for until then it takes the thread.
        """
        if self._taken >= self._places:
            raise Overloaded(
                f"{self._taken} inspections are under way, which is all that there may be; try "
                "again",
                retry_after_s=RETRY_AFTER_S,
            )
        left, loop = Event(), asyncio.get_running_loop()
        self._taken += 1
        future = self._executor.submit(work, lambda: not left.is_set())

        def ended(_: Future[Result]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._free)

        future.add_done_callback(ended)
        try:
            return await asyncio.wrap_future(future)
        finally:
            left.set()

    def close(self) -> None:
        """Drop inspections that wait; don't wait for the one that runs."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _free(self) -> None:
        self._taken -= 1


def stand_back() -> None:
    """Give the thread that calls a lower priority, on Linux, where each has one of its own."""
    if sys.platform != "linux":
        return
    thread = threading.get_native_id()
    # Never a higher one than the process was started with, which nobody may take by himself.
    os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
