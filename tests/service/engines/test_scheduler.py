"""Counts and queues: slots, chunks, order."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from service.engines.scheduler import Scheduler, Sequence


def test_the_lowest_free_slot_is_taken() -> None:
    scheduler = Scheduler(slots=3, chunk_tokens=4)
    sequences = [Sequence(1) for _ in range(4)]
    for sequence in sequences[:3]:
        scheduler.add(sequence)
    assert [sequence.slots for sequence in scheduler.admit()] == [(0,), (1,), (2,)]
    scheduler.remove(sequences[0])
    scheduler.remove(sequences[2])
    assert scheduler.bound_rows == 2
    scheduler.add(sequences[3])
    assert [sequence.slots for sequence in scheduler.admit()] == [(0,)]
    assert scheduler.bound_rows == 2


def test_those_who_waited_longest_come_first() -> None:
    scheduler = Scheduler(slots=1, chunk_tokens=4)
    sequences = [Sequence(1) for _ in range(3)]
    for sequence in sequences:
        scheduler.add(sequence)
    order: list[Sequence] = []
    while not scheduler.idle:
        (admitted,) = scheduler.admit()
        order.append(admitted)
        scheduler.remove(admitted)
    assert order == sequences


def test_a_wide_sequence_waits_until_it_fits_and_is_not_passed() -> None:
    scheduler = Scheduler(slots=3, chunk_tokens=4)
    one, other, wide, late = Sequence(1), Sequence(1), Sequence(1, width=2), Sequence(1)
    for sequence in (one, other, wide, late):
        scheduler.add(sequence)
    assert scheduler.admit() == [one, other]
    assert scheduler.admit() == [], "one slot is free, which the last would fit"
    scheduler.remove(one)
    assert scheduler.admit() == [wide]
    assert wide.slots == (0, 2)
    assert scheduler.admitted == [other, wide]
    scheduler.remove(wide)
    assert scheduler.admit() == [late]


def test_sources_are_encoded_in_order_within_the_budget_and_one_at_least() -> None:
    scheduler = Scheduler(slots=5, chunk_tokens=4, source_tokens=10)
    sizes = (25, 4, 6, 1, 9)
    sequences = [Sequence(1, to_encode=size) for size in sizes]
    for sequence in sequences:
        scheduler.add(sequence)
    scheduler.admit()
    batches: list[list[int]] = []
    while chosen := scheduler.next_sources():
        assert not any(sequence.decodes for sequence in chosen)
        batches.append([sequence.to_encode for sequence in chosen])
        for sequence in chosen:
            sequence.to_encode = 0
    assert batches == [[25], [4, 6], [1, 9]]
    assert scheduler.decoding() == sequences


def test_a_prompt_waits_for_its_source() -> None:
    scheduler = Scheduler(slots=1, chunk_tokens=4)
    sequence = Sequence(3, to_encode=5)
    scheduler.add(sequence)
    scheduler.admit()
    assert scheduler.next_chunk() is None
    sequence.to_encode = 0
    assert scheduler.next_chunk() is not None


def test_chunk_borders_depend_on_the_prompt_alone_and_one_token_left_is_decoded() -> None:
    scheduler = Scheduler(slots=2, chunk_tokens=4)
    first, second = Sequence(10), Sequence(5)
    scheduler.add(first)
    scheduler.add(second)
    scheduler.admit()
    borders: list[tuple[Sequence, int, int, bool]] = []
    while (chunk := scheduler.next_chunk()) is not None:
        borders.append((chunk.sequence, chunk.start, chunk.stop, chunk.completes))
        chunk.sequence.cached = chunk.stop
    assert borders == [
        (first, 0, 4, False), (first, 4, 8, False), (first, 8, 10, True), (second, 0, 4, False),
    ]  # fmt: skip
    assert scheduler.decoding() == [first, second]


def test_a_prompt_is_read_faster_while_nobody_decodes_and_its_tail_runs_by_itself() -> None:
    scheduler = Scheduler(slots=2, chunk_tokens=4, lone_chunks=3)
    prompt, running = Sequence(22), Sequence(1)
    scheduler.add(prompt)
    scheduler.admit()

    def stop() -> int:
        chunk = scheduler.next_chunk()
        assert chunk is not None
        assert chunk.start == prompt.cached
        prompt.cached = chunk.stop
        return chunk.stop

    assert stop() == 12
    scheduler.add(running)
    scheduler.admit()
    assert stop() == 16
    scheduler.remove(running)
    assert [stop(), stop()] == [20, 22]
    assert scheduler.next_chunk() is None


def test_a_sequence_that_waits_can_be_removed_and_removing_twice_is_harmless() -> None:
    scheduler = Scheduler(slots=1, chunk_tokens=4)
    running, waiting = Sequence(1), Sequence(1)
    for sequence in (running, waiting):
        scheduler.add(sequence)
    scheduler.admit()
    for _ in range(2):
        scheduler.remove(waiting)
        scheduler.remove(running)
    assert scheduler.idle
    assert scheduler.bound_rows == 0


events = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            st.integers(1, 30),
            st.integers(1, 6),
            st.integers(1, 3),
            st.integers(0, 20),
        ),
        st.tuples(st.just("cancel"), st.integers(0, 50)),
        st.tuples(st.just("step"), st.integers(1, 3)),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(events=events, slots=st.integers(3, 6), chunk=st.integers(1, 9))
def test_no_slot_is_held_twice_and_all_that_is_admitted_finishes(
    events: list[tuple[Any, ...]], slots: int, chunk: int
) -> None:
    scheduler = Scheduler(slots, chunk, source_tokens=8)
    left: dict[Sequence, int] = {}
    arrived: list[Sequence] = []
    admitted: list[Sequence] = []
    cancelled: set[int] = set()

    def step() -> None:
        admitted.extend(scheduler.admit())
        held = [slot for sequence in left for slot in sequence.slots]
        assert len(held) == len(set(held)) == len(scheduler.running) <= slots
        assert not scheduler.waiting or len(held) + scheduler.waiting[0].width > slots
        assert scheduler.bound_rows == max((slot + 1 for slot in held), default=0)
        for sequence in scheduler.next_sources():
            sequence.to_encode = 0
        piece = scheduler.next_chunk()
        if piece is not None:
            assert 0 < piece.stop - piece.start <= chunk
            assert piece.start == piece.sequence.cached
            assert piece.start % chunk == 0
            piece.sequence.cached = piece.stop
        for sequence in scheduler.decoding():
            left[sequence] -= 1
            if left[sequence] == 0:
                scheduler.remove(sequence)
                del left[sequence]

    for kind, number, *rest in events:
        if kind == "add":
            tokens, width, to_encode = rest
            sequence = Sequence(number, to_encode, width)
            left[sequence] = tokens
            arrived.append(sequence)
            scheduler.add(sequence)
        elif kind == "cancel" and arrived:
            victim = arrived[number % len(arrived)]
            if victim in left:
                cancelled.add(id(victim))
                scheduler.remove(victim)
                del left[victim]
        elif kind == "step":
            for _ in range(number):
                step()

    bound = sum(-(-s.prompt_tokens // chunk) + left[s] + 2 for s in left)
    for _ in range(bound):
        step()
    assert scheduler.idle
    assert not left
    in_order = [sequence for sequence in arrived if sequence in admitted]
    assert in_order == admitted
    assert {id(s) for s in arrived if s not in admitted} <= cancelled
