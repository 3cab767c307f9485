"""Prompts that begin alike: what is taken again, what never is, and that it changes no bit."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.engines.generation import GenerationEngine
from service.engines.prefixes import Prefixes
from service.engines.running import MOVED_TOKENS
from service.engines.scheduler import Scheduler
from service.engines.slots import Slots
from service.errors import EngineFailure
from service.messages import Floats, Sampling
from tests.support.decoders import POISON_ID, VOCAB, Integers, ToyDecoder, letter_tokenizer
from tests.support.engines import Ledger, tokens_of, until

SLOTS, BLOCK = 4, 4
GREEDY = Sampling(6, temperature=0.0)


class MarkingDecoder(ToyDecoder):
    """What it says also depends on how many tokens were run together with each one in its cache.

    So a token that decoding wrote, or prefill between other borders, is not as good as any other.
    """

    def __init__(self, rows: int, capacity: int = 64) -> None:
        super().__init__(rows, capacity)
        self.marks = np.zeros((rows, capacity), np.int64)
        self.hold_after = -1

    def step(
        self, rows: slice, input_ids: Integers, lengths: Integers, logit_index: Integers
    ) -> Floats:
        new = input_ids.shape[1]
        for row, start in enumerate(lengths, rows.start):
            self.marks[row, start : start + new] = new
        found = super().step(rows, input_ids, lengths, logit_index)
        if len(self.steps) == self.hold_after:
            self.gate.clear()
        return found

    def logits_of_row(self, row: int, length: int) -> Floats:
        found = super().logits_of_row(row, length)
        return found + self.tilt(self.marks[row, :length])

    def tilt(self, marks: Integers | Sequence[int]) -> Floats:
        seed = [int(mark) for mark in marks]
        return np.random.default_rng(seed).standard_normal(VOCAB).astype(np.float32)

    def copy(self, source: int, target: int, tokens: slice) -> None:
        super().copy(source, target, tokens)
        self.marks[target, tokens] = self.marks[source, tokens]

    def read(self, row: int, tokens: slice) -> list[NDArray[Any]]:
        return [*super().read(row, tokens), self.marks[row, tokens].astype(np.float64)]

    def write(self, row: int, tokens: slice, values: Sequence[NDArray[Any]]) -> None:
        super().write(row, tokens, values)
        self.marks[row, tokens] = values[1]

    def cold(self, prompt: Sequence[int], count: int) -> list[int]:
        """What an engine says that has nothing in its cache."""
        tokens, marks = list(prompt), list[int]()
        while len(marks) < len(prompt) - 1:
            marks += [min(BLOCK, len(prompt) - len(marks))] * min(BLOCK, len(prompt) - len(marks))
        for _ in range(count):
            marks += [1] * (len(tokens) - len(marks))
            tokens.append(int((self.logits(tokens) + self.tilt(marks)).argmax()))
        return tokens[len(prompt) :]


@pytest.fixture
def decoder() -> MarkingDecoder:
    return MarkingDecoder(SLOTS)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def engine(decoder: MarkingDecoder, ledger: Ledger) -> Iterator[GenerationEngine]:
    made = GenerationEngine(
        Slots(decoder, SLOTS, block=BLOCK), Scheduler(SLOTS, BLOCK), letter_tokenizer(), ledger,
        max_waiting=64, name="toy",
    )  # fmt: skip
    yield made
    decoder.gate.set()
    made.close()


async def say(
    engine: GenerationEngine, prompt: list[int], wanted: Sampling = GREEDY
) -> tuple[list[int], int]:
    """What follows, and how much of the prompt is said to have been there."""
    chunks = [chunk async for chunk in engine.generate(prompt, wanted)]
    tokens = [token for chunk in chunks for token in chunk.token_ids]
    assert not any(chunk.cached_tokens for chunk in chunks[1:])
    return tokens, chunks[0].cached_tokens


def text(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng([seed]).integers(1, 30, length).tolist()


@pytest.mark.parametrize("length", [1, 2, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 1, 30])
async def test_the_same_prompt_again_starts_behind_its_whole_blocks_and_says_the_same(
    engine: GenerationEngine, decoder: MarkingDecoder, ledger: Ledger, length: int
) -> None:
    prompt = text(length)
    expected = decoder.cold(prompt, GREEDY.max_tokens)
    assert await say(engine, prompt) == (expected, 0)
    decoder.steps.clear()
    # The last token is always run: what follows is read from it.
    cached = (length - 1) // BLOCK * BLOCK
    assert await say(engine, prompt) == (expected, cached)
    assert ledger.hits == [cached] * bool(cached)
    run = sum(new for _, _, (_, new) in decoder.steps)
    assert run == length - cached + GREEDY.max_tokens - 1, "what was there was run again"


async def test_what_was_decoded_is_never_taken_again(
    engine: GenerationEngine, decoder: MarkingDecoder
) -> None:
    prompt = text(2 * BLOCK + 1)
    said, _ = await say(engine, prompt, Sampling(20, temperature=0.0))
    # A conversation goes on: its first answer stands in the prompt, where decoding had written it.
    longer = [*prompt, *said, 5]
    assert await say(engine, longer) == (decoder.cold(longer, 6), 2 * BLOCK)
    assert await say(engine, longer) == (decoder.cold(longer, 6), (len(longer) - 1) // 4 * 4)


async def test_a_prompt_takes_the_row_that_has_most_of_it_and_several_are_kept(
    engine: GenerationEngine, decoder: MarkingDecoder
) -> None:
    system = text(3 * BLOCK)
    others = [text(2 * BLOCK + 2, seed) for seed in (5, 6)]
    for prompt in ([*system, 1, 2, 3, 4, 5], *others):
        await say(engine, prompt)
    # One at a time, each in the lowest row, yet none has lost what it began with.
    for prompt, cached in (([*system, 1, 2, 3, 4, 9, 9], 4), ([*system, 7], 3), (others[0], 2),
                           (others[1], 2)):  # fmt: skip
        assert await say(engine, prompt) == (decoder.cold(prompt, 6), cached * BLOCK)
        assert max(stop for _, stop, _ in decoder.steps) == 1, "rows in use stay dense"


async def test_those_that_run_share_with_those_that_come(
    engine: GenerationEngine, decoder: MarkingDecoder, ledger: Ledger
) -> None:
    prompt = text(4 * BLOCK + 2)
    decoder.gate.clear()
    streams = [engine.generate(prompt, GREEDY) for _ in range(3)]
    decoder.gate.set()
    found = await asyncio.gather(*(tokens_of(stream) for stream in streams))
    assert found == [decoder.cold(prompt, 6)] * 3
    assert ledger.hits == [4 * BLOCK] * 2
    prefilled = [new for _, _, (_, new) in decoder.steps if new > 1]
    assert prefilled == [BLOCK] * 4 + [2] * 3


async def test_a_cancelled_prompt_leaves_its_whole_blocks(
    engine: GenerationEngine, decoder: MarkingDecoder, ledger: Ledger
) -> None:
    prompt = text(9 * BLOCK)
    decoder.gate.clear()
    gone = engine.generate(prompt, GREEDY)
    await until(lambda: engine.running == 1, "it runs")
    await gone.aclose()
    decoder.gate.set()
    await until(lambda: len(ledger.ended) == 1, "it has ended")
    assert await say(engine, prompt) == (decoder.cold(prompt, 6), BLOCK)


async def test_beginnings_are_copied_a_little_at_a_time_while_others_decode(
    decoder: MarkingDecoder, ledger: Ledger
) -> None:
    decoder = MarkingDecoder(SLOTS, 1024)
    engine = GenerationEngine(
        Slots(decoder, SLOTS, block=BLOCK), Scheduler(SLOTS, BLOCK), letter_tokenizer(), ledger,
        max_waiting=64, name="toy",
    )  # fmt: skip
    prompt, running = text(400), Sampling(1000, temperature=0.0)
    assert await say(engine, prompt) == (decoder.cold(prompt, 6), 0)
    # It takes the prompt's row, whose beginning is kept elsewhere step by step ...
    stream = engine.generate([1], running)
    for _ in range(400 // MOVED_TOKENS + 2):
        await anext(stream)
    assert engine.running == 1
    # ... and is taken again from there in the same way.
    assert await say(engine, prompt) == (decoder.cold(prompt, 6), 396)
    assert engine.running == 1, "all of it was beside a stream"
    assert 390 < sum(decoder.copied) // 2 <= 400
    assert max(decoder.copied) <= MOVED_TOKENS
    await stream.aclose()
    engine.close()


async def test_what_a_row_began_with_is_kept_though_it_is_taken_anew_meanwhile(
    engine: GenerationEngine, decoder: MarkingDecoder
) -> None:
    slots = Slots(decoder, SLOTS, block=BLOCK)
    prompt, other = text(8 * BLOCK), text(8 * BLOCK, 1)

    def read(tokens: list[int]) -> None:
        for start in range(0, len(tokens), BLOCK):
            slots.prefill(0, tokens[start : start + BLOCK], wants_logits=False)

    slots.begin([0], prompt)
    read(prompt)
    slots.clear(0)
    assert slots.begin([0], other) == 0
    # What is about to be overwritten is copied first; the rest is still there.
    read(other[: 2 * BLOCK])
    slots.clear(0)
    slots.settle(BLOCK)
    slots.begin([0], [*other[:BLOCK], 7, 7])
    slots.begin([1], [*prompt, 5])
    assert slots.recall(1, [*prompt, 5], 3 * BLOCK) == 3 * BLOCK
    assert slots.recall(1, [*prompt, 5], 64) == 8 * BLOCK
    assert decoder.cache[1, : 8 * BLOCK].tolist() == prompt


async def test_scored_prompts_are_cut_elsewhere_and_share_nothing(
    engine: GenerationEngine, decoder: MarkingDecoder, ledger: Ledger
) -> None:
    prompt = text(30)
    scored = Sampling(6, temperature=0.0, top_logprobs=1, prompt_logprobs=True)
    await say(engine, prompt, scored)
    assert await say(engine, prompt) == (decoder.cold(prompt, 6), 0)
    assert (await say(engine, prompt, scored))[1] == 0
    assert ledger.hits == []


async def test_beams_begin_with_what_is_there_and_leave_it(
    engine: GenerationEngine, decoder: MarkingDecoder
) -> None:
    prompt, beams = text(3 * BLOCK + 2), Sampling(6, temperature=0.0, beams=3)
    found, cached = await say(engine, prompt, beams)
    assert cached == 0
    assert await say(engine, prompt, beams) == (found, 3 * BLOCK)
    assert await say(engine, prompt) == (decoder.cold(prompt, 6), 3 * BLOCK)
    assert await say(engine, prompt, beams) == (found, 3 * BLOCK)


async def test_what_is_not_finite_is_forgotten_wherever_it_was_copied(
    engine: GenerationEngine, decoder: MarkingDecoder, ledger: Ledger
) -> None:
    poisoned = [*text(BLOCK), POISON_ID, *text(4 * BLOCK, 1)]
    for _ in range(2):
        with pytest.raises(EngineFailure, match="not finite"):
            await say(engine, poisoned)
    assert ledger.hits == []
    # One leaves before any logits told of it; another has begun with what it wrote.
    decoder.hold_after = len(decoder.steps) + 3
    gone = [engine.generate(poisoned, GREEDY) for _ in range(2)]
    await until(lambda: not decoder.gate.is_set(), "most of it is in the cache")
    await gone[0].aclose()
    decoder.gate.set()
    with pytest.raises(EngineFailure, match="not finite"):
        await tokens_of(gone[1])
    assert not decoder.poisoned, "all rows that had it were wiped"
    prompt = [*poisoned[:BLOCK], 3, 3]
    assert await say(engine, prompt) == (decoder.cold(prompt, 6), 0)


@pytest.mark.parametrize("seed", range(3))
async def test_whoever_comes_and_goes_all_say_what_they_say_alone(
    engine: GenerationEngine, decoder: MarkingDecoder, ledger: Ledger, seed: int
) -> None:
    draw = random.Random(seed)
    beginnings = [text(length, length) for length in (3, 9, 17, 26)]

    async def come() -> None:
        await asyncio.sleep(draw.random() * 0.1)
        prompt = [*draw.choice(beginnings), *text(draw.randrange(1, 12), draw.randrange(6))]
        is_poisoned = draw.random() < 0.1
        stream = engine.generate([*prompt, POISON_ID] if is_poisoned else prompt, GREEDY)
        if draw.random() < 0.25:
            await asyncio.sleep(draw.random() * 0.01)
            await stream.aclose()
        elif is_poisoned:
            with pytest.raises(EngineFailure, match="not finite"):
                await tokens_of(stream)
        else:
            assert await tokens_of(stream) == decoder.cold(prompt, 6)

    await asyncio.gather(*(come() for _ in range(60)))
    await until(lambda: engine.running == 0, "nothing runs")
    assert ledger.hits
    assert all(hit % BLOCK == 0 for hit in ledger.hits)


blocks = st.lists(st.integers(0, 1), min_size=1, max_size=12)


@given(prompts=st.lists(blocks, min_size=1, max_size=12))
def test_the_longest_whole_beginning_is_found_and_never_the_whole_prompt(
    prompts: list[list[int]],
) -> None:
    prefixes = Prefixes(len(prompts), 2)
    for row, prompt in enumerate(prompts[1:]):
        for start in range(0, len(prompt), 2):
            prefixes.wrote(row, start, prompt[start : start + 2])
    wanted = prompts[0]
    source, tokens = prefixes.find(wanted, len(prompts) - 1)
    assert tokens % 2 == 0
    assert tokens < len(wanted)

    def shared(prompt: list[int]) -> int:
        return next(
            count for count in range(len(wanted), -1, -1)
            if count % 2 == 0 and count < len(wanted) and count <= len(prompt)
            and prompt[:count] == wanted[:count]
        )  # fmt: skip

    assert tokens == max(map(shared, prompts[1:]), default=0)
    assert tokens == 0 or shared(prompts[1:][source]) == tokens


def test_what_is_overwritten_is_kept_where_it_costs_least() -> None:
    prefixes = Prefixes(5, 2)

    def fill(row: int, *tokens: int) -> None:
        prefixes.take(row, row, 0)
        for start in range(0, len(tokens), 2):
            prefixes.wrote(row, start, tokens[start : start + 2])

    fill(0, 1, 1)
    assert prefixes.place_aside(0, {1, 2, 3}) == 3, "the last that keeps nothing"
    fill(3, 1, 1, 2, 2)
    assert prefixes.place_aside(0, {1, 2, 3}) is None, "another begins with it"
    assert prefixes.place_aside(3, {0, 1, 2}) == 0, "which has less of the same"
    for row in (1, 2, 4, 0):
        fill(row, row, 7)
    assert prefixes.place_aside(0, {1, 2}) == 1, "the one that was wanted longest ago"
    assert prefixes.place_aside(3, {1, 2}) is None, "both were wanted more lately"
    assert prefixes.alike(3) == []
    assert prefixes.find([1, 1, 2, 2, 9], 0) == (3, 4)


def test_without_a_size_nothing_is_shared() -> None:
    slots = Slots(ToyDecoder(2), 2)
    slots.begin([0], [1, 2, 3, 4, 5])
    slots.prefill(0, [1, 2, 3, 4], wants_logits=False)
    slots.clear(0)
    assert slots.begin([0], [1, 2, 3, 4, 5]) == 0
