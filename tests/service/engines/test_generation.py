"""The generation engine over a toy decoder: company, cancellation, failure, closing."""

import asyncio
import itertools
import random
from collections.abc import Iterator

import numpy as np
import pytest

from service.engines.admission import PRIORITY_STEP_S, place_in_queue
from service.engines.generation import GenerationEngine
from service.engines.scheduler import Scheduler
from service.engines.slots import Slots
from service.errors import DeadlineExceeded, EngineFailure, NotReady, Overloaded
from service.messages import FinishReason, Sampling, Terms
from tests.support.decoders import END_ID, POISON_ID, ToyDecoder, letter, letter_tokenizer
from tests.support.engines import Ledger, tokens_of, until

SLOTS, CHUNK = 3, 4


@pytest.fixture
def decoder() -> ToyDecoder:
    return ToyDecoder(SLOTS)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def engine(decoder: ToyDecoder, ledger: Ledger) -> Iterator[GenerationEngine]:
    made = GenerationEngine(
        Slots(decoder, SLOTS, block=CHUNK), Scheduler(SLOTS, CHUNK), letter_tokenizer(), ledger,
        max_waiting=4, name="toy",
    )  # fmt: skip
    yield made
    decoder.gate.set()
    made.close()


def by_hand(decoder: ToyDecoder, prompt: list[int], count: int) -> list[int]:
    """Greedy, without an engine or a cache."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(decoder.logits(tokens).argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("length", [1, CHUNK, CHUNK + 1, 3 * CHUNK])
async def test_greedy_generation_is_the_decoders_own(
    engine: GenerationEngine, decoder: ToyDecoder, length: int
) -> None:
    prompt = list(range(1, length + 1))
    found = await tokens_of(engine.generate(prompt, Sampling(10, temperature=0.0)))
    assert found == by_hand(decoder, prompt, 10)


@pytest.mark.parametrize("length", [1, 2, CHUNK, CHUNK + 1, 3 * CHUNK])
async def test_a_prompts_tokens_have_their_log_probabilities(
    engine: GenerationEngine, decoder: ToyDecoder, length: int
) -> None:
    prompt = [1 + token % 7 for token in range(length)]
    wanted = Sampling(3, temperature=0.0, top_logprobs=2, prompt_logprobs=True)
    company = engine.generate([5, 3, 2, 4, 6], Sampling(20, seed=3))
    chunks = [chunk async for chunk in engine.generate(prompt, wanted)]
    await tokens_of(company)
    found = chunks[0].prompt_logprobs
    assert not any(chunk.prompt_logprobs for chunk in chunks[1:])
    assert [item.token_id for item in found] == prompt[1:]
    for place, item in enumerate(found):
        logits = decoder.logits(prompt[: place + 1]).astype(np.float64)
        expected = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        assert item.logprob == pytest.approx(expected[item.token_id], abs=1e-6)
        assert [token for token, _ in item.top] == np.argsort(-expected, kind="stable")[:2].tolist()
    tokens = [token for chunk in chunks for token in chunk.token_ids]
    assert tokens == by_hand(decoder, prompt, 3)


@pytest.mark.parametrize("scored", [True, False])
async def test_no_token_may_be_wanted_and_the_prompt_is_scored(
    engine: GenerationEngine, scored: bool
) -> None:
    wanted = Sampling(0, top_logprobs=0 if scored else None, prompt_logprobs=scored)
    chunks = [chunk async for chunk in engine.generate([1, 2, 3], wanted)]
    (chunk,) = chunks
    assert (chunk.text, chunk.token_ids) == ("", ())
    assert chunk.finish_reason is FinishReason.LENGTH
    assert [item.token_id for item in chunk.prompt_logprobs] == ([2, 3] if scored else [])
    await until(lambda: engine.running == 0, "the slot is free")


async def test_a_prompt_with_a_logit_that_is_not_finite_fails_alone(
    engine: GenerationEngine,
) -> None:
    company = engine.generate([1, 2], Sampling(8, temperature=0.0))
    wanted = Sampling(3, temperature=0.0, top_logprobs=0, prompt_logprobs=True)
    with pytest.raises(EngineFailure, match="not finite"):
        await tokens_of(engine.generate([1, POISON_ID, *[2] * CHUNK], wanted))
    assert len(await tokens_of(company)) == 8
    await until(lambda: engine.running == 0, "slots are free")


async def test_the_last_chunk_alone_says_why_it_ended(engine: GenerationEngine) -> None:
    chunks = [chunk async for chunk in engine.generate([1, 2], Sampling(5, seed=1))]
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason is FinishReason.LENGTH
    text = "".join(chunk.text for chunk in chunks)
    assert text == "".join(letter(token) for chunk in chunks for token in chunk.token_ids)
    assert len(text) == 5


async def test_the_end_token_ends_it_and_has_no_text(
    engine: GenerationEngine, decoder: ToyDecoder
) -> None:
    decoder.end_logit = 50.0
    wanted = Sampling(9, temperature=0.0, min_tokens=3)
    chunks = [chunk async for chunk in engine.generate([1], wanted)]
    assert chunks[-1].finish_reason is FinishReason.STOP
    tokens = [token for chunk in chunks for token in chunk.token_ids]
    assert tokens[3:] == [END_ID]
    assert "".join(chunk.text for chunk in chunks) == "".join(map(letter, tokens[:3]))


async def test_ignoring_the_end_token_goes_on_to_the_limit(
    engine: GenerationEngine, decoder: ToyDecoder
) -> None:
    decoder.end_logit = 50.0
    wanted = Sampling(9, temperature=0.0, ignore_eos=True)
    tokens = await tokens_of(engine.generate([1], wanted))
    assert len(tokens) == 9
    assert END_ID not in tokens


async def test_a_stop_string_ends_it_and_is_not_part_of_the_text(
    engine: GenerationEngine, decoder: ToyDecoder
) -> None:
    said = "".join(map(letter, by_hand(decoder, [3, 4], 12)))
    stop = said[4:7]
    wanted = Sampling(12, temperature=0.0, stop=(stop,))
    chunks = [chunk async for chunk in engine.generate([3, 4], wanted)]
    assert "".join(chunk.text for chunk in chunks) == said[: said.index(stop)]
    assert chunks[-1].finish_reason is FinishReason.STOP


async def test_a_request_says_the_same_alone_and_in_company(engine: GenerationEngine) -> None:
    wanted = Sampling(20, temperature=1.0, seed=7, top_p=0.9)
    alone = await tokens_of(engine.generate([5, 6, 7], wanted))

    async def company(number: int) -> None:
        await asyncio.sleep(0.002 * number)
        stream = engine.generate([number + 1] * (1 + 3 * number), Sampling(3 + number, seed=number))
        if number % 2:
            await stream.aclose()
        await tokens_of(stream)

    together = await asyncio.gather(
        tokens_of(engine.generate([5, 6, 7], wanted)),
        *(company(number) for number in range(3)),
        tokens_of(engine.generate([5, 6, 7], wanted)),
    )
    assert together[0] == alone
    assert together[-1] == alone


async def test_different_seeds_say_different_things(engine: GenerationEngine) -> None:
    found = [await tokens_of(engine.generate([5], Sampling(12, seed=seed))) for seed in (1, 2)]
    assert found[0] != found[1]


async def test_a_cancelled_generation_frees_its_slot(
    engine: GenerationEngine, decoder: ToyDecoder, ledger: Ledger
) -> None:
    # Slower than a reader that leaves: each step is let through one by one.
    streams = [engine.generate([n + 1], Sampling(60, seed=n)) for n in range(SLOTS)]
    await until(lambda: engine.running == SLOTS, "all slots are taken")
    decoder.gate.clear()
    waiting = engine.generate([9], Sampling(2, seed=9))
    await streams[1].aclose()
    await streams[1].aclose()
    decoder.gate.set()
    assert len(await tokens_of(waiting)) == 2
    await asyncio.gather(*(tokens_of(stream) for stream in streams))
    await until(lambda: len(ledger.ended) == SLOTS + 1, "all have ended")
    assert sorted(reason for reason, *_ in ledger.ended) == ["abort", "length", "length", "length"]
    assert engine.running == engine.waiting == 0
    assert engine.cache_use == 0


async def test_one_that_waits_can_be_cancelled(
    engine: GenerationEngine, decoder: ToyDecoder
) -> None:
    decoder.gate.clear()
    streams = [engine.generate([n + 1], Sampling(5, seed=n)) for n in range(SLOTS + 2)]
    await streams[-1].aclose()
    decoder.gate.set()
    found = await asyncio.gather(*(tokens_of(stream) for stream in streams))
    assert [len(tokens) for tokens in found] == [5] * (SLOTS + 1) + [0]


async def test_more_than_the_queue_holds_is_refused_with_both_counts(
    engine: GenerationEngine, decoder: ToyDecoder
) -> None:
    decoder.gate.clear()
    streams = [engine.generate([1], Sampling(2, seed=n)) for n in range(SLOTS)]
    await until(lambda: engine.running > 0, "the engine holds its first step")
    with pytest.raises(Overloaded, match=r"\d+ generations are waiting, the limit is 4"):
        streams += [engine.generate([1], Sampling(2, seed=n)) for n in range(20)]
    decoder.gate.set()
    found = await asyncio.gather(*(tokens_of(stream) for stream in streams))
    assert all(len(tokens) == 2 for tokens in found)


async def test_a_failure_reaches_all_that_run_and_the_engine_goes_on(
    engine: GenerationEngine, decoder: ToyDecoder, ledger: Ledger
) -> None:
    decoder.gate.clear()
    streams = [engine.generate([n + 1], Sampling(5, seed=n)) for n in range(2)]
    decoder.fail = RuntimeError("out of something")
    decoder.gate.set()
    for stream in streams:
        with pytest.raises(EngineFailure, match="the model failed: out of something"):
            await tokens_of(stream)
    decoder.fail = None
    assert await tokens_of(engine.generate([4], Sampling(6, temperature=0.0))) == by_hand(
        decoder, [4], 6
    )
    assert [reason for reason, *_ in ledger.ended] == ["error", "error", "length"]


async def test_a_run_that_the_runtime_refuses_fails_whoever_is_at_fault_alone(
    engine: GenerationEngine, decoder: ToyDecoder
) -> None:
    decoder.refused = 38
    decoder.gate.clear()
    wanted = Sampling(6, temperature=0.0)
    good = [engine.generate([1], wanted), engine.generate([2] * (CHUNK + 2), wanted)]
    bad = [engine.generate([38], wanted), engine.generate([1, 38, *[1] * CHUNK], wanted)]
    decoder.gate.set()
    for stream in bad:
        with pytest.raises(EngineFailure, match="the model failed: refused"):
            await tokens_of(stream)
    assert await tokens_of(good[0]) == by_hand(decoder, [1], 6)
    assert await tokens_of(good[1]) == by_hand(decoder, [2] * (CHUNK + 2), 6)


async def test_logits_that_are_not_finite_fail_their_request_alone_and_leave_no_trace(
    engine: GenerationEngine, decoder: ToyDecoder
) -> None:
    wanted = Sampling(5, temperature=0.0)
    bad = [engine.generate([POISON_ID], wanted), engine.generate([1, POISON_ID], wanted)]
    good = engine.generate([1], wanted)
    for stream in bad:
        with pytest.raises(EngineFailure, match="not finite"):
            await tokens_of(stream)
    assert await tokens_of(good) == by_hand(decoder, [1], 5)
    again = [tokens_of(engine.generate([1], wanted)) for _ in range(SLOTS)]
    assert await asyncio.gather(*again) == [by_hand(decoder, [1], 5)] * SLOTS


async def test_closing_ends_what_runs_and_what_waits(
    engine: GenerationEngine, decoder: ToyDecoder
) -> None:
    decoder.gate.clear()
    streams = [engine.generate([n + 1], Sampling(50, seed=n)) for n in range(SLOTS + 1)]
    closing = asyncio.create_task(asyncio.to_thread(engine.close))
    await asyncio.sleep(0.02)
    decoder.gate.set()
    await closing
    for stream in streams:
        with pytest.raises(NotReady, match="stopping"):
            await tokens_of(stream)
    with pytest.raises(NotReady, match="stopping"):
        engine.generate([1], Sampling(1))


async def test_a_slow_reader_gets_what_it_missed_as_one_chunk(engine: GenerationEngine) -> None:
    stream = engine.generate([1, 2], Sampling(20, seed=3, top_logprobs=2))
    await until(lambda: stream.ended, "the generation has ended")
    chunks = [chunk async for chunk in stream]
    assert len(chunks) == 1
    assert len(chunks[0].token_ids) == len(chunks[0].logprobs) == len(chunks[0].text) == 20
    assert chunks[0].finish_reason is FinishReason.LENGTH


async def test_a_long_prompt_does_not_stall_the_streams_that_run(
    engine: GenerationEngine, decoder: ToyDecoder
) -> None:
    decoder.gate.clear()
    first = engine.generate([1], Sampling(40, seed=1))
    long = engine.generate([2] * (4 * CHUNK), Sampling(2, seed=2))
    decoder.gate.set()
    await tokens_of(long)
    await tokens_of(first)
    prefills = [at for at, (_, _, (_, new)) in enumerate(decoder.steps) if new > 1]
    assert len(prefills) == 4
    for before, after in itertools.pairwise(prefills):
        assert after - before == 2, "one step of decoding between two chunks"


async def test_those_of_a_lower_priority_come_first_and_equals_in_order(
    engine: GenerationEngine, decoder: ToyDecoder
) -> None:
    decoder.gate.clear()
    running = [engine.generate([1], Sampling(9, seed=n)) for n in range(SLOTS)]
    await until(lambda: engine.running == SLOTS, "all slots are taken")
    order: list[int] = []

    async def run(number: int, priority: int) -> None:
        await tokens_of(engine.generate([2], Sampling(30, seed=1), Terms(priority)))
        order.append(number)

    async with asyncio.TaskGroup() as group:
        for number, priority in enumerate([1, 0, -1, 0]):
            group.create_task(run(number, priority))
        await until(lambda: engine.waiting == 4, "four wait")
        decoder.gate.set()
    assert order == [2, 1, 3, 0]
    await asyncio.gather(*(tokens_of(stream) for stream in running))


def test_a_step_of_priority_is_worth_so_much_waiting_that_nobody_waits_for_ever() -> None:
    early, late = place_in_queue(0.0, Terms(3)), place_in_queue(3 * PRIORITY_STEP_S + 1, Terms(0))
    assert early < late


async def test_what_waited_too_long_ends_without_running_and_a_wait_too_long_is_refused(
    engine: GenerationEngine, decoder: ToyDecoder, ledger: Ledger
) -> None:
    decoder.gate.clear()
    running = [engine.generate([1], Sampling(3, seed=n)) for n in range(SLOTS)]
    await until(lambda: engine.running == SLOTS, "all slots are taken")
    late = engine.generate([7], Sampling(3, seed=1), Terms(within_s=0.02))
    engine._running.pace.note(1, 30.0)  # a generation is said to take half a minute
    with pytest.raises(Overloaded, match=r"about 20\.0 s, and at most 5\.0 s") as refused:
        engine.generate([7], Sampling(3, seed=1), Terms(within_s=5.0))
    assert refused.value.retry_after_s == 15
    await asyncio.sleep(0.05)
    decoder.gate.set()
    with pytest.raises(DeadlineExceeded, match=r"longer than 0\.02 s"):
        await tokens_of(late)
    await asyncio.gather(*(tokens_of(stream) for stream in running))
    await until(lambda: len(ledger.ended) == SLOTS + 1, "all have ended")
    assert [7] not in decoder.cache[:, :1].tolist()


async def test_prompts_that_wait_have_a_bound_of_tokens(
    decoder: ToyDecoder, ledger: Ledger
) -> None:
    engine = GenerationEngine(
        Slots(decoder, SLOTS), Scheduler(SLOTS, CHUNK), letter_tokenizer(), ledger,
        max_waiting=9, max_waiting_tokens=20, name="toy",
    )  # fmt: skip
    decoder.gate.clear()
    streams = [engine.generate([1], Sampling(2, seed=n)) for n in range(SLOTS)]
    await until(lambda: engine.running == SLOTS, "all slots are taken")
    streams.append(engine.generate([1] * 30, Sampling(2, seed=9)))
    with pytest.raises(Overloaded, match="30 tokens of prompts are waiting, and 1 more"):
        engine.generate([1], Sampling(2, seed=9))
    with pytest.raises(Overloaded, match="1 generations are waiting, the limit is 9"):
        engine.require_room(9)
    decoder.gate.set()
    await asyncio.gather(*(tokens_of(stream) for stream in streams))
    await asyncio.to_thread(engine.close)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_cancelled_nothing_is_left_behind(
    engine: GenerationEngine, decoder: ToyDecoder, ledger: Ledger, seed: int
) -> None:
    draw = random.Random(seed)
    started = 0

    async def come_and_go() -> None:
        nonlocal started
        prompt = [draw.randrange(1, 4) for _ in range(draw.randrange(1, 4 * CHUNK))]
        wanted = Sampling(
            draw.randrange(1, 12), seed=draw.randrange(9), beams=draw.choice([1, 1, 1, SLOTS]),
            prompt_logprobs=False,
        )  # fmt: skip
        try:
            stream = engine.generate(prompt, wanted, Terms(draw.randrange(-2, 3)))
        except Overloaded:
            return
        started += 1
        reading = asyncio.create_task(tokens_of(stream))
        match draw.randrange(4):
            case 0:
                await stream.aclose()
            case 1:
                await asyncio.sleep(draw.random() * 0.01)
                await stream.aclose()
            case 2:
                await asyncio.sleep(draw.random() * 0.01)
                reading.cancel()
                await stream.aclose()
            case _:
                pass
        await asyncio.gather(reading, return_exceptions=True)

    tasks = len(asyncio.all_tasks())
    for _ in range(4):
        await asyncio.gather(*(come_and_go() for _ in range(12)))
    await until(lambda: len(ledger.ended) == started, "all have ended")
    await until(lambda: engine.running == engine.waiting == 0, "nothing runs or waits")
    assert len(engine._running) == 0
    assert not engine._running._outbox
    assert engine.cache_use == 0
    assert len(asyncio.all_tasks()) == tasks
    assert await tokens_of(engine.generate([1, 2], Sampling(5, temperature=0.0))) == by_hand(
        decoder, [1, 2], 5
    )
