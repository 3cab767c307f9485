"""The batcher over a graph that is a function: order, budget, failure, cancellation."""

import asyncio
import random
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.engines.batcher import Batcher, Observe, Run
from service.engines.pooling import UNROLLED, pack, sigmoid, softmax
from service.errors import DeadlineExceeded, EngineFailure, NotReady, Overloaded
from service.messages import Inputs, Terms

BUDGET, QUEUE = 16, 64
POISON, NAN = 666, 777


class Graph:
    """Each row is (sum of ids, length, number of the output); `gate` holds it back when cleared."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[list[list[int]]] = []

    def __call__(
        self, feeds: dict[str, NDArray[Any]], outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        assert self.gate.wait(timeout=30)
        ends = np.cumsum(feeds["lengths"])
        texts = [part.tolist() for part in np.split(feeds["input_ids"], ends[:-1])]
        self.batches.append(texts)
        if any(POISON in text for text in texts):
            raise RuntimeError("poisoned")
        if list(outputs) == ["tokens"]:
            return [feeds["input_ids"][:, None].astype(np.float32)]
        rows = np.array([[sum(text), len(text)] for text in texts], np.float32)
        rows[[NAN in text for text in texts]] = np.nan
        return [np.column_stack((rows, np.full(len(rows), len(name)))) for name in outputs]


async def run_texts(batcher: Batcher, texts: list[list[int]], output: str = "out") -> Any:
    """The rows of one request."""
    found = await batcher.run(Inputs.whole(texts), output)
    assert found.queue_s >= 0
    assert found.run_s >= 0
    return np.stack(found.values)


def answer(text: list[int], output: str = "out") -> list[float]:
    return [sum(text), len(text), len(output)]


@pytest.fixture
def graph() -> Graph:
    return Graph()


@pytest.fixture
def seen() -> list[tuple[int, int, int]]:
    return []


@contextmanager
def batching(run: Run, observe: Observe, runners: int = 1) -> Generator[Batcher]:
    made = Batcher(
        run, token_types=False, budget=BUDGET, max_queue_tokens=QUEUE, observe=observe, name="test",
        runners=runners, per_token=("tokens",),
    )  # fmt: skip
    try:
        yield made
    finally:
        made.close()


def running_threads() -> int:
    return sum(thread.name.startswith("batcher-test-") for thread in threading.enumerate())


@pytest.fixture
def batcher(graph: Graph, seen: list[tuple[int, int, int]]) -> Iterator[Batcher]:
    def observe(texts: int, tokens: int, padded: int, seconds: float) -> None:
        seen.append((texts, tokens, padded))

    with batching(graph, observe) as made:
        yield made
        graph.gate.set()


@pytest.fixture
def pair(graph: Graph) -> Iterator[Batcher]:
    """A batcher that runs two batches at the same time."""
    with batching(graph, lambda *_: None, runners=2) as made:
        yield made
        graph.gate.set()


async def until_waiting(batcher: Batcher, texts: int) -> None:
    for _ in range(2000):
        if batcher.waiting == texts:
            return
        await asyncio.sleep(0.005)
    pytest.fail(f"{batcher.waiting} texts wait, expected {texts}")


async def occupied(batcher: Batcher, graph: Graph) -> asyncio.Task[Any]:
    """A request that holds a runner until the gate opens."""
    graph.gate.clear()
    first = asyncio.create_task(run_texts(batcher, [[1]], "out"))
    await asyncio.sleep(0)
    await until_waiting(batcher, 0)
    return first


async def test_rows_come_in_the_order_of_the_texts(batcher: Batcher) -> None:
    texts = [[n] * length for n, length in enumerate([5, 1, 9, 3, 1, 16, 30])]
    rows = await run_texts(batcher, texts, "out")
    assert rows.tolist() == [answer(text) for text in texts]


async def test_an_output_of_every_token_is_cut_into_texts(batcher: Batcher, graph: Graph) -> None:
    first = await occupied(batcher, graph)
    requests = [Inputs.whole([[1, 2, 3], [4]]), Inputs.whole([[5, 6]])]
    waiting = [asyncio.create_task(batcher.run(each, "tokens")) for each in requests]
    await until_waiting(batcher, 3)
    graph.gate.set()
    found = [[row.tolist() for row in (await each).values] for each in waiting]
    assert found == [[[[1], [2], [3]], [[4]]], [[[5], [6]]]]
    await first


async def test_how_long_a_request_waited_and_ran_is_told(batcher: Batcher, graph: Graph) -> None:
    first = await occupied(batcher, graph)
    second = asyncio.create_task(batcher.run(Inputs.whole([[2]]), "out"))
    await until_waiting(batcher, 1)
    await asyncio.sleep(0.05)
    graph.gate.set()
    found = await second
    assert found.queue_s >= 0.05
    assert 0 <= found.run_s < 20
    await first


async def test_many_requests_at_once_each_get_their_own(batcher: Batcher) -> None:
    draw = np.random.default_rng(0)
    requests = [
        [draw.integers(1, 500, size).tolist() for size in draw.integers(1, 4, draw.integers(1, 4))]
        for _ in range(8)
    ]
    for _ in range(10):
        rows = await asyncio.gather(*(
            run_texts(batcher, texts, "out" if n % 2 else "other")
            for n, texts in enumerate(requests)
        ))  # fmt: skip
        for number, (texts, found) in enumerate(zip(requests, rows, strict=True)):
            name = "out" if number % 2 else "other"
            assert found.tolist() == [answer(text, name) for text in texts]


async def test_a_batch_keeps_to_the_budget_unless_one_text_is_longer(
    batcher: Batcher, graph: Graph, seen: list[tuple[int, int, int]]
) -> None:
    first = await occupied(batcher, graph)
    others = asyncio.gather(*(run_texts(batcher, [[1] * 5], "out") for _ in range(6)))
    long = asyncio.create_task(run_texts(batcher, [[1] * 20], "out"))
    await until_waiting(batcher, 7)
    graph.gate.set()
    await asyncio.gather(first, others, long)
    sizes = [[len(text) for text in batch] for batch in graph.batches]
    assert sizes == [[1], [5, 5, 5], [5, 5, 5], [20]]
    # The last number counts padding: rows are as wide as a multiple of UNROLLED.
    assert seen == [(1, 1, 8), (3, 15, 24), (3, 15, 24), (1, 20, 24)]


async def test_a_request_that_was_cancelled_is_not_run(batcher: Batcher, graph: Graph) -> None:
    first = await occupied(batcher, graph)
    gone = asyncio.create_task(run_texts(batcher, [[7], [8]], "out"))
    stays = asyncio.create_task(run_texts(batcher, [[9]], "out"))
    await until_waiting(batcher, 3)
    gone.cancel()
    await asyncio.sleep(0)
    graph.gate.set()
    await asyncio.gather(first, stays)
    assert graph.batches == [[[1]], [[9]]]
    with pytest.raises(asyncio.CancelledError):
        await gone


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_cancelled_nothing_is_left_behind(
    pair: Batcher, graph: Graph, seed: int
) -> None:
    draw = random.Random(seed)

    async def come_and_go() -> None:
        await asyncio.sleep(draw.random() * 0.01)
        texts = [
            [draw.randrange(1, 9)] * draw.randrange(1, 20) for _ in range(draw.randrange(1, 4))
        ]
        terms = Terms(draw.randrange(-2, 3), draw.choice([None, 0.002, 5.0]))
        running = asyncio.create_task(pair.run(Inputs.whole(texts), "out", terms))
        if draw.random() < 0.5:
            await asyncio.sleep(draw.random() * 0.005)
            running.cancel()
        try:
            found = await running
            assert [row.tolist() for row in found.values] == [answer(text) for text in texts]
        except (asyncio.CancelledError, DeadlineExceeded, Overloaded):
            pass

    tasks = len(asyncio.all_tasks())
    for _ in range(4):
        await asyncio.gather(*(come_and_go() for _ in range(20)))
    await until_waiting(pair, 0)
    assert pair._queue.tokens == 0
    assert len(asyncio.all_tasks()) == tasks
    assert (await run_texts(pair, [[3]], "out")).tolist() == [answer([3])]
    assert pair._running == 0


async def test_a_full_queue_refuses_with_the_counts(batcher: Batcher, graph: Graph) -> None:
    first = await occupied(batcher, graph)
    waiting = asyncio.create_task(run_texts(batcher, [[1] * 60], "out"))
    await until_waiting(batcher, 1)
    with pytest.raises(Overloaded, match=r"60 tokens are waiting, and 5 more .* limit of 64"):
        await run_texts(batcher, [[1] * 5], "out")
    graph.gate.set()
    await asyncio.gather(first, waiting)
    assert (await run_texts(batcher, [[1] * 5], "out")).tolist() == [answer([1] * 5)]


async def test_a_request_larger_than_the_queue_runs_when_nothing_waits(batcher: Batcher) -> None:
    texts = [[n] * 10 for n in range(20)]
    assert (await run_texts(batcher, texts, "out")).tolist() == [answer(text) for text in texts]


async def test_a_failure_reaches_the_request_at_fault_alone(batcher: Batcher, graph: Graph) -> None:
    first = await occupied(batcher, graph)
    before = asyncio.create_task(run_texts(batcher, [[2] * BUDGET], "out"))
    await until_waiting(batcher, 1)
    poisoned = asyncio.create_task(run_texts(batcher, [[2], [POISON] * (BUDGET - 2)], "out"))
    neighbour = asyncio.create_task(run_texts(batcher, [[3]], "out"))
    await until_waiting(batcher, 4)
    graph.gate.set()
    with pytest.raises(EngineFailure, match="the model failed: poisoned") as failed:
        await poisoned
    assert failed.value.item == 1
    assert (await neighbour).tolist() == [answer([3])]
    assert (await first).tolist() == [answer([1])]
    assert (await before).tolist() == [answer([2] * BUDGET)]


async def test_what_waits_is_taken_by_priority_and_then_in_the_order_of_arrival(
    batcher: Batcher, graph: Graph
) -> None:
    first = await occupied(batcher, graph)
    waiting: list[asyncio.Task[Any]] = []
    for number, priority in enumerate([0, 5, -1, 0, 5, -1], start=2):
        run = batcher.run(Inputs.whole([[number] * 10]), "out", Terms(priority))
        waiting.append(asyncio.create_task(run))
        await until_waiting(batcher, len(waiting))
    graph.gate.set()
    await asyncio.gather(first, *waiting)
    assert [batch[0][0] for batch in graph.batches[1:]] == [4, 7, 2, 5, 3, 6]


async def test_a_wait_that_would_be_too_long_is_refused_at_once_but_not_who_comes_first(
    batcher: Batcher, graph: Graph
) -> None:
    batcher._pace.note(10, 10.0)  # a token a second
    first = await occupied(batcher, graph)
    text = Inputs.whole([[1] * 9])
    soon = asyncio.create_task(batcher.run(text, "out", Terms(within_s=8.0)))
    await until_waiting(batcher, 1)
    with pytest.raises(Overloaded, match=r"about 9.0 s, and at most 8.0 s are waited") as refused:
        await batcher.run(text, "out", Terms(within_s=8.0))
    assert refused.value.retry_after_s == 1
    urgent = asyncio.create_task(batcher.run(text, "out", Terms(priority=-1, within_s=8.0)))
    await until_waiting(batcher, 2)
    soon.cancel()
    await asyncio.sleep(0)
    patient = asyncio.create_task(batcher.run(text, "out", Terms(within_s=9.5)))
    await until_waiting(batcher, 2)
    graph.gate.set()
    await asyncio.gather(first, urgent, patient)


async def test_what_waited_too_long_is_not_run(batcher: Batcher, graph: Graph) -> None:
    first = await occupied(batcher, graph)
    run = batcher.run(Inputs.whole([[7]]), "out", Terms(within_s=0.05))
    with pytest.raises(DeadlineExceeded, match=r"longer than 0\.05 s"):
        await run
    graph.gate.set()
    await first
    assert (await run_texts(batcher, [[9]], "out")).tolist() == [answer([9])]
    assert graph.batches == [[[1]], [[9]]]


async def test_whoever_left_takes_no_room_in_the_queue(batcher: Batcher, graph: Graph) -> None:
    first = await occupied(batcher, graph)
    gone = asyncio.create_task(run_texts(batcher, [[1] * 60], "out"))
    await until_waiting(batcher, 1)
    with pytest.raises(Overloaded, match="60 tokens are waiting, and 5 more"):
        batcher.require_room(5)
    gone.cancel()
    await asyncio.sleep(0)
    batcher.require_room(5)
    stays = asyncio.create_task(run_texts(batcher, [[2] * 60], "out"))
    await until_waiting(batcher, 1)
    graph.gate.set()
    await asyncio.gather(first, stays)
    assert graph.batches[1:] == [[[2] * 60]]


async def test_a_value_that_is_not_finite_is_refused_for_its_own_request(
    batcher: Batcher, graph: Graph
) -> None:
    first = await occupied(batcher, graph)
    bad = asyncio.create_task(run_texts(batcher, [[1, 2, 3], [NAN]], "out"))
    good = asyncio.create_task(run_texts(batcher, [[5]], "out"))
    await until_waiting(batcher, 3)
    graph.gate.set()
    with pytest.raises(EngineFailure, match="the model gave a value that is not finite") as failed:
        await bad
    assert failed.value.item == 1
    assert (await good).tolist() == [answer([5])]
    await first


async def test_closing_finishes_the_batch_at_hand_and_refuses_the_rest(
    batcher: Batcher, graph: Graph
) -> None:
    first = await occupied(batcher, graph)
    waiting = asyncio.create_task(run_texts(batcher, [[2]], "out"))
    await until_waiting(batcher, 1)
    closing = asyncio.create_task(asyncio.to_thread(batcher.close))
    await asyncio.sleep(0.02)
    graph.gate.set()
    await closing
    assert (await first).tolist() == [answer([1])]
    with pytest.raises(NotReady, match="stopping"):
        await waiting
    with pytest.raises(NotReady, match="stopping"):
        await run_texts(batcher, [[1]], "out")


async def test_several_runners_take_batches_at_the_same_time(pair: Batcher, graph: Graph) -> None:
    first, second = await occupied(pair, graph), await occupied(pair, graph)
    third = asyncio.create_task(run_texts(pair, [[3]], "out"))
    await until_waiting(pair, 1)
    assert not first.done()
    assert not second.done()
    graph.gate.set()
    for task, text in ((first, [1]), (second, [1]), (third, [3])):
        assert (await task).tolist() == [answer(text)]


async def test_a_batch_alone_has_all_cores_and_those_beside_others_their_own(
    graph: Graph,
) -> None:
    used: list[tuple[str, int]] = []

    def noting(name: str) -> Run:
        def run(
            feeds: dict[str, NDArray[Any]], outputs: Sequence[str]
        ) -> Sequence[NDArray[np.float32]]:
            used.append((name, len(feeds["lengths"])))
            return graph(feeds, outputs)

        return run

    made = Batcher(
        noting("beside"), token_types=False, budget=BUDGET, max_queue_tokens=QUEUE,
        observe=lambda *_: None, name="test", runners=2, run_alone=noting("alone"),
    )  # fmt: skip
    try:
        await run_texts(made, [[1]])
        await run_texts(made, [[2], [3]])
        assert used == [("alone", 1), ("alone", 2)]
        first = await occupied(made, graph)
        second = asyncio.create_task(run_texts(made, [[5]]))
        await asyncio.sleep(0)
        await until_waiting(made, 0)
        graph.gate.set()
        await asyncio.gather(first, second)
        assert used[2:] == [("alone", 1), ("beside", 1)]
        # More than one batch waits: each runner takes one, and neither is alone.
        await run_texts(made, [[7] * BUDGET, [8] * BUDGET, [9] * BUDGET])
        assert [name for name, _ in used[4:]].count("beside") >= 2
    finally:
        graph.gate.set()
        made.close()


@pytest.mark.parametrize("last", range(3))
async def test_rows_from_several_batches_are_in_order_whichever_ends_last(last: int) -> None:
    texts = [[n] * BUDGET for n in range(3)]
    others = threading.Semaphore(0)
    graph = Graph()

    def run(feeds: dict[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        if last in feeds["input_ids"]:
            assert all(others.acquire(timeout=30) for _ in range(len(texts) - 1))
        return graph(feeds, outputs)

    # Told of a batch after it ran, just before its rows are handed out.
    with batching(run, lambda *_: others.release(), runners=2) as batcher:
        rows = await run_texts(batcher, texts, "out")
    assert rows.tolist() == [answer(text) for text in texts]
    assert graph.batches[-1] == [texts[last]]


async def test_closing_several_runners_finishes_their_batches_and_ends_their_threads(
    pair: Batcher, graph: Graph
) -> None:
    first, second = await occupied(pair, graph), await occupied(pair, graph)
    waiting = asyncio.create_task(run_texts(pair, [[3]], "out"))
    await until_waiting(pair, 1)
    assert running_threads() == 2
    closing = asyncio.create_task(asyncio.to_thread(pair.close))
    await until_waiting(pair, 0)
    graph.gate.set()
    await closing
    assert running_threads() == 0
    for task in (first, second):
        assert (await task).tolist() == [answer([1])]
    with pytest.raises(NotReady, match="stopping"):
        await waiting


texts_of_ids = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=6)


@given(texts=texts_of_ids)
def test_packing_leads_to_rows_and_back(texts: list[list[int]]) -> None:
    packed = pack(texts, token_types=True)
    tokens = packed["input_ids"]
    rows = tokens[packed["padded_from_packed"]]
    assert [row[: len(text)].tolist() for row, text in zip(rows, texts, strict=True)] == texts
    assert rows.flatten()[packed["packed_from_padded"]].tolist() == tokens.tolist()
    assert packed["position_ids"].tolist() == [at for text in texts for at in range(len(text))]
    assert packed["lengths"].tolist() == [len(text) for text in texts]
    assert packed["token_type_ids"].tolist() == [0] * len(tokens)


def test_the_second_text_of_a_pair_has_type_one() -> None:
    packed = pack([[7, 8, 9], [5, 6], [4]], token_types=True, second_at=[1, 2, 0])
    assert packed["token_type_ids"].tolist() == [0, 1, 1, 0, 0, 1]


def test_probabilities_of_huge_scores_are_finite() -> None:
    scores = np.array([[1e4, 0.0, -1e4], [0.0, 0.0, 0.0]], np.float32)
    np.testing.assert_allclose(softmax(scores), [[1, 0, 0], [1 / 3] * 3], rtol=1e-6)
    np.testing.assert_allclose(sigmoid(scores), [[1, 0.5, 0], [0.5] * 3], rtol=1e-6)


def test_padding_repeats_a_texts_own_last_token() -> None:
    """Whatever a neighbour holds, even a NaN, doesn't get into another text's row."""
    packed = pack([[7], [8, 9, 10]], token_types=False)
    rows = packed["input_ids"][packed["padded_from_packed"]]
    assert rows.tolist() == [[7] * UNROLLED, [8, 9] + [10] * (UNROLLED - 2)]
