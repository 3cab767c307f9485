import asyncio

from service.in_flight import InFlight


async def test_nothing_is_waited_for_where_nothing_runs() -> None:
    assert await InFlight().drained(timeout_s=1)


async def test_what_ran_before_is_waited_for_and_what_comes_later_is_not() -> None:
    in_flight = InFlight()
    before, later = in_flight.request(), in_flight.request()
    with later:
        pass
    before.__enter__()
    drained = asyncio.create_task(in_flight.drained(timeout_s=60))
    await asyncio.sleep(0)
    with in_flight.request():
        await asyncio.sleep(0.01)
        assert not drained.done()
        assert in_flight.count == 2
        before.__exit__(None, None, None)
        assert await drained
        assert in_flight.count == 1


async def test_waiting_ends_in_time_and_the_next_wait_is_for_the_same_request_too() -> None:
    in_flight = InFlight()
    with in_flight.request():
        assert not await in_flight.drained(timeout_s=0.01)
        assert not await in_flight.drained(timeout_s=0.01)
    assert await in_flight.drained(timeout_s=1)
