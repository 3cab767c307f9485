"""The engine over a toy encoder-decoder: sources, beams, and what they do to one another."""

import asyncio
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from export.artifact import GenerationDefaults
from service.engines.beams import Beams
from service.engines.generation import GenerationEngine
from service.engines.scheduler import Scheduler
from service.engines.search import Rules
from service.engines.slots import NoSources, Slots
from service.errors import EngineFailure
from service.messages import FinishReason, Sampling
from tests.support.decoders import END_ID, POISON_ID, ToyDecoder, letter, letter_tokenizer
from tests.support.engines import Ledger, tokens_of, until

SLOTS, BUDGET = 6, 12
START = (30,)
GREEDY = Sampling(8, temperature=0.0)
BEAMS = Sampling(8, temperature=0.0, beams=4)


@pytest.fixture
def decoder() -> ToyDecoder:
    made = ToyDecoder(SLOTS)
    made.end_logit = 1.0
    return made


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def engine(decoder: ToyDecoder, ledger: Ledger) -> Iterator[GenerationEngine]:
    made = GenerationEngine(
        Slots(decoder, SLOTS, decoder), Scheduler(SLOTS, 4, BUDGET), letter_tokenizer(), ledger,
        max_waiting=64, name="toy",
        own=GenerationDefaults(decoder_start=START, max_source_tokens=20),
    )  # fmt: skip
    yield made
    decoder.gate.set()
    made.close()


@pytest.fixture
def plain(decoder: ToyDecoder, ledger: Ledger) -> Iterator[GenerationEngine]:
    """A decoder alone, which has beams too."""
    made = GenerationEngine(
        Slots(decoder, SLOTS), Scheduler(SLOTS, 4), letter_tokenizer(), ledger,
        max_waiting=64, name="plain",
    )  # fmt: skip
    yield made
    made.close()


def by_hand(
    decoder: ToyDecoder, source: list[int], wanted: Sampling, start: Sequence[int] = START
) -> list[int]:
    """A search over whole texts, without an engine, rows or copies."""
    beams, rows, said = Beams(Rules(wanted, [END_ID])), [list(start)], list[int]()
    while True:
        step = beams.advance(np.stack([decoder.logits(row, source) for row in rows]))
        said += step.final
        if step.reason is not None:
            return said
        pairs = zip(step.parents, step.tokens, strict=True)
        rows = [[*rows[parent], token] for parent, token in pairs]


async def test_a_target_answers_its_source(engine: GenerationEngine, decoder: ToyDecoder) -> None:
    texts = [[5], [5, 6], [6, 5], list(range(1, 20))]
    found = await asyncio.gather(*(tokens_of(engine.generate(text, GREEDY)) for text in texts))
    assert found == [by_hand(decoder, text, GREEDY) for text in texts]
    assert len({tuple(tokens) for tokens in found}) == len(texts)


async def test_beams_are_the_search_by_hand(engine: GenerationEngine, decoder: ToyDecoder) -> None:
    texts = [[n, n + 1] for n in range(8)]
    found = await asyncio.gather(*(tokens_of(engine.generate(text, BEAMS)) for text in texts))
    assert found == [by_hand(decoder, text, BEAMS) for text in texts]
    assert any(tokens != by_hand(decoder, text, GREEDY)
               for text, tokens in zip(texts, found, strict=True))  # fmt: skip


@pytest.mark.parametrize("length", [1, 3, 9])
async def test_a_decoder_alone_has_beams_over_its_prompt(
    plain: GenerationEngine, decoder: ToyDecoder, length: int
) -> None:
    prompt = list(range(1, 1 + length))
    found = await tokens_of(plain.generate(prompt, BEAMS))
    assert found == by_hand(decoder, [], BEAMS, prompt)


async def test_a_request_says_the_same_alone_and_in_company(
    engine: GenerationEngine, decoder: ToyDecoder
) -> None:
    sampled = Sampling(8, temperature=1.0, seed=7)
    alone = [await tokens_of(engine.generate([5, 6, 7], how)) for how in (BEAMS, sampled)]

    async def company(number: int) -> None:
        await asyncio.sleep(0.001 * number)
        wanted = Sampling(3 + number, seed=number, temperature=number % 2, beams=1 + number % 4)
        stream = engine.generate([number + 1] * (1 + number), wanted)
        if number % 3 == 1:
            await asyncio.sleep(0.002)
            await stream.aclose()
        await tokens_of(stream)

    for _ in range(3):
        together = await asyncio.gather(
            tokens_of(engine.generate([5, 6, 7], BEAMS)),
            tokens_of(engine.generate([5, 6, 7], sampled)),
            *(company(number) for number in range(12)),
            tokens_of(engine.generate([5, 6, 7], BEAMS)),
            tokens_of(engine.generate([5, 6, 7], sampled)),
        )
        assert [together[0], together[1]] == [together[-2], together[-1]] == alone


async def test_newcomers_are_encoded_together_within_the_budget(
    engine: GenerationEngine, decoder: ToyDecoder
) -> None:
    decoder.gate.clear()
    first = engine.generate([1], GREEDY)
    await until(lambda: engine.running == 1, "the engine holds its first step")
    rest = [engine.generate([n] * n, GREEDY) for n in (5, 7, 2, 18, 1)]
    decoder.gate.set()
    await asyncio.gather(*(tokens_of(stream) for stream in (first, *rest)))
    assert decoder.encoded == [[1], [5, 7], [2], [18], [1]]


async def test_targets_decode_at_once_after_their_source(
    engine: GenerationEngine, decoder: ToyDecoder
) -> None:
    decoder.gate.clear()
    streams = [engine.generate([n], GREEDY) for n in range(1, 4)]
    decoder.gate.set()
    await asyncio.gather(*(tokens_of(stream) for stream in streams))
    assert len(decoder.steps) <= GREEDY.max_tokens + 1, "the start takes no run of its own"


async def test_a_beam_that_goes_on_in_its_row_copies_nothing_and_others_only_what_differs(
    engine: GenerationEngine, decoder: ToyDecoder
) -> None:
    await tokens_of(engine.generate([3, 4], BEAMS))
    whole = sum(range(1, BEAMS.max_tokens)) * (BEAMS.beams - 1)
    assert 0 < sum(decoder.copied) < whole / 3
    decoder.copied.clear()
    await tokens_of(engine.generate([3, 4], GREEDY))
    assert decoder.copied == []


async def test_a_wide_search_gets_its_turn_and_those_behind_it_wait(
    engine: GenerationEngine, decoder: ToyDecoder, ledger: Ledger
) -> None:
    decoder.end_logit = -np.inf
    wide = Sampling(5, temperature=0.0, beams=SLOTS)
    order: list[str] = []

    async def run(name: str, wanted: Sampling) -> None:
        await tokens_of(engine.generate([2], wanted))
        order.append(name)

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(run(f"early {number}", Sampling(4 + number, seed=1)))
        group.create_task(run("wide", wide))
        for number in range(20):
            group.create_task(run("late", Sampling(2, seed=number)))
    assert order[:4] == ["early 0", "early 1", "early 2", "wide"]
    assert engine.running == engine.waiting == engine.cache_use == 0


async def test_cancelling_a_search_frees_all_its_slots(
    engine: GenerationEngine, decoder: ToyDecoder, ledger: Ledger
) -> None:
    decoder.end_logit = -np.inf
    decoder.gate.clear()
    long = engine.generate([1, 2], Sampling(60, temperature=0.0, beams=SLOTS))
    next_one = engine.generate([3], BEAMS)
    await until(lambda: engine.running == 1, "the search runs")
    await long.aclose()
    decoder.gate.set()
    assert await tokens_of(next_one) == by_hand(decoder, [3], BEAMS)
    await until(lambda: len(ledger.ended) == 2, "both have ended")
    assert [reason for reason, *_ in ledger.ended] == ["abort", "length"]
    assert engine.running == 0


async def test_beams_are_streamed_as_far_as_they_agree(
    engine: GenerationEngine, decoder: ToyDecoder
) -> None:
    source, wanted = [8, 8], Sampling(40, temperature=0.0, beams=2, ignore_eos=True)
    chunks = []
    async for chunk in engine.generate(source, wanted):
        chunks.append(chunk)
        await asyncio.sleep(0)
    tokens = [token for chunk in chunks for token in chunk.token_ids]
    assert tokens == by_hand(decoder, source, wanted)
    assert "".join(chunk.text for chunk in chunks) == "".join(map(letter, tokens))
    assert chunks[-1].finish_reason is FinishReason.LENGTH


async def test_a_stop_string_cuts_what_a_search_says(
    engine: GenerationEngine, decoder: ToyDecoder
) -> None:
    decoder.end_logit = -np.inf
    said = "".join(map(letter, by_hand(decoder, [4], BEAMS)))
    stop = said[3:5]
    wanted = Sampling(8, temperature=0.0, beams=4, stop=(stop,))
    chunks = [chunk async for chunk in engine.generate([4], wanted)]
    assert "".join(chunk.text for chunk in chunks) == said[: said.index(stop)]
    assert chunks[-1].finish_reason is FinishReason.STOP


async def test_the_source_counts_as_the_prompt(
    engine: GenerationEngine, decoder: ToyDecoder, ledger: Ledger
) -> None:
    found = await tokens_of(engine.generate([1, 2, 3], BEAMS))
    await until(lambda: len(ledger.ended) == 1, "it has ended")
    assert ledger.ended[0][1:] == (3, len(found))


async def test_a_source_or_a_target_that_is_not_finite_fails_alone(
    engine: GenerationEngine, decoder: ToyDecoder
) -> None:
    decoder.gate.clear()
    good = [engine.generate([2, n], BEAMS if n else GREEDY) for n in range(2)]
    bad = engine.generate([1, POISON_ID], GREEDY)
    decoder.gate.set()
    with pytest.raises(EngineFailure, match="not finite"):
        await tokens_of(bad)
    assert await tokens_of(good[0]) == by_hand(decoder, [2, 0], GREEDY)
    assert await tokens_of(good[1]) == by_hand(decoder, [2, 1], BEAMS)
    forced = Sampling(8, temperature=0.0, beams=4, logit_bias=((POISON_ID, 100.0),))
    decoder.poison_logit = 0.0
    with pytest.raises(EngineFailure, match="not finite"):
        await tokens_of(engine.generate([5], forced))
    decoder.poison_logit = -np.inf
    for wanted in (GREEDY, BEAMS):
        assert await tokens_of(engine.generate([6], wanted)) == by_hand(decoder, [6], wanted)


async def test_a_failing_encoder_fails_what_runs_and_the_engine_goes_on(
    engine: GenerationEngine, decoder: ToyDecoder
) -> None:
    decoder.fail = RuntimeError("out of something")
    with pytest.raises(EngineFailure, match="the model failed: out of something"):
        await tokens_of(engine.generate([1], BEAMS))
    decoder.fail = None
    assert await tokens_of(engine.generate([1], BEAMS)) == by_hand(decoder, [1], BEAMS)


async def test_forced_and_suppressed_tokens_hold_however_tokens_are_chosen(
    decoder: ToyDecoder,
) -> None:
    decoder.end_logit = -np.inf
    own = GenerationDefaults(
        decoder_start=START, forced_first=9, forced_last=END_ID, suppressed=tuple(range(10, 38)),
        max_source_tokens=20,
    )  # fmt: skip
    made = GenerationEngine(
        Slots(decoder, SLOTS, decoder), Scheduler(SLOTS, 4), letter_tokenizer(), Ledger(),
        max_waiting=64, name="toy", own=own,
    )  # fmt: skip
    ways = [GREEDY, BEAMS, *(Sampling(8, temperature=1.5, seed=seed) for seed in range(3))]
    found = await asyncio.gather(*(tokens_of(made.generate([7], wanted)) for wanted in ways))
    for tokens in found:
        assert (tokens[0], tokens[-1], len(tokens)) == (9, END_ID, 8)
        assert not set(tokens) & set(own.suppressed)
    await asyncio.to_thread(made.close)


def test_rows_stay_where_they_are_and_forks_take_those_that_nothing_goes_on_from() -> None:
    decoder = ToyDecoder(5)
    slots, own = Slots(decoder, 5), (1, 2, 4)
    slots.prefill(1, [7, 8], wants_logits=False)
    assert slots.follow([1], [0, 0, 0], own) == [1, 2, 4]
    assert decoder.copied == [2, 2]
    slots.decode([1, 2, 4], [5, 6, 7], 5)
    assert slots.follow([1, 2, 4], [2, 0, 2], own) == [4, 1, 2]
    assert decoder.copied[2:] == [1], "the first two tokens were the same"
    assert decoder.cache[[4, 1, 2], :3].tolist() == [[7, 8, 7], [7, 8, 5], [7, 8, 7]]
    assert slots.follow([4, 1, 2], [1], own) == [1]
    assert len(decoder.copied) == 3


def test_a_decoder_alone_has_no_sources() -> None:
    with pytest.raises(TypeError, match="no encoder for 1 sources"):
        Slots(ToyDecoder(1), 1).encode([[0]], [[1]])
    NoSources().forget([0])
