"""Company changes nothing, on real weights: batches of every width, every place in them."""

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from export.artifact import Artifact
from export.session import CachedSession, Provider, Session, usable_cores
from model_core.tokenization import Tokenizer
from service.engines.generation import GenerationEngine
from service.engines.pooling import pack
from service.engines.scheduler import LONE_TOKENS, Scheduler
from service.engines.slots import Slots
from service.messages import Sampling
from tests.support.texts import prose

WIDEST = 32
CAPACITY, CHUNK = 96, 16


def cut_texts(tokenizer: Tokenizer, count: int, longest: int, seed: int) -> list[list[int]]:
    """Texts of mixed lengths, up to `longest` tokens."""
    draw = random.Random(seed)
    found = [tokenizer.encode(text) for text in draw.sample(prose(), count)]
    return [text[: draw.randint(2, longest)] for text in found]


@pytest.mark.parametrize("fixture", ["minilm_artifact", "minilm_int8_artifact"])
def test_an_embedding_is_the_same_alone_and_in_every_batch(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    artifact: Artifact = request.getfixturevalue(fixture)
    session = Session(artifact.graph, Provider.CPU, usable_cores())
    token_types = "token_type_ids" in artifact.manifest.inputs

    def embed(texts: list[list[int]]) -> NDArray[np.float32]:
        return session.run(pack(texts, token_types=token_types), ["sentence_embedding"])[0]

    tokenizer = Tokenizer.load(artifact.folder)
    texts = cut_texts(tokenizer, WIDEST, 200, seed=0)
    alone = [embed([text])[0] for text in texts]
    worst, unequal = 0.0, 0
    for width in range(1, WIDEST + 1):
        # Turned, so that each text stands at many places beside many others.
        order = [(start * 7 + width) % WIDEST for start in range(width)]
        rows = embed([texts[index] for index in order])
        for row, index in zip(rows, order, strict=True):
            unequal += not np.array_equal(row, alone[index])
            worst = max(worst, float(np.abs(row - alone[index]).max()))
    for place in range(WIDEST):
        order = [*range(1, place + 1), 0, *range(place + 1, WIDEST)]
        row = embed([texts[index] for index in order])[place]
        unequal += not np.array_equal(row, alone[0])
        worst = max(worst, float(np.abs(row - alone[0]).max()))
    # Bit for bit: products, norms and the pooled sum all add in an order of their own row's.
    assert unequal == 0, f"{unequal} rows differ, by at most {worst:.2e}"


@pytest.mark.parametrize("fixture", ["minilm_artifact", "minilm_int8_artifact"])
def test_an_embedding_is_the_same_on_one_core_and_on_all(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    """A text that comes alone runs on all cores, in company on one."""
    artifact: Artifact = request.getfixturevalue(fixture)
    texts = cut_texts(Tokenizer.load(artifact.folder), 12, 250, seed=1)
    feeds = [pack([text], token_types=True) for text in texts]

    def embed(threads: int) -> list[NDArray[np.float32]]:
        session = Session(artifact.graph, Provider.CPU, threads)
        return [session.run(feed, ["sentence_embedding"])[0] for feed in feeds]

    one, all_cores = embed(1), embed(max(2, usable_cores()))
    for alone, shared in zip(one, all_cores, strict=True):
        assert np.array_equal(alone, shared)


@pytest.fixture(params=["smollm2_artifact", "smollm2_fp32_artifact"])
def generator(request: pytest.FixtureRequest) -> Iterator[tuple[GenerationEngine, Tokenizer]]:
    artifact: Artifact = request.getfixturevalue(request.param)
    layout = artifact.manifest.cache
    assert layout is not None
    session = Session(artifact.graph, Provider.CPU, usable_cores())
    slots = Slots(CachedSession(session, layout, WIDEST, CAPACITY), WIDEST, block=CHUNK)
    tokenizer = Tokenizer.load(artifact.folder)
    engine = GenerationEngine(
        slots,
        Scheduler(WIDEST, CHUNK, lone_chunks=4),
        tokenizer,
        Unheard(),
        max_waiting=64,
        name="independence",
    )
    yield engine, tokenizer
    engine.close()


@pytest.mark.parametrize("fixture", ["smollm2_artifact", "smollm2_fp32_artifact"])
def test_how_many_chunks_run_at_once_changes_no_bit_of_what_they_write(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    artifact: Artifact = request.getfixturevalue(fixture)
    layout = artifact.manifest.cache
    assert layout is not None
    prompt = Tokenizer.load(artifact.folder).encode(" ".join(map(str, range(400))))[:592]
    cached = CachedSession(Session(artifact.graph, Provider.CPU, usable_cores()), layout, 1, 1024)
    slots = Slots(cached, 1)

    def written(size: int) -> list[NDArray[Any]]:
        slots.clear(0)
        last: NDArray[np.float32] | None = None
        for start in range(0, len(prompt), size):
            last = slots.prefill(0, prompt[start : start + size], wants_logits=True)
        assert last is not None
        return [last, *cached.read(0, slice(0, len(prompt)))]

    expected = written(16)
    for size in (48, 64, LONE_TOKENS):
        for found, wanted in zip(written(size), expected, strict=True):
            assert np.array_equal(found, wanted)


class Unheard:
    """Takes what the engine tells, and forgets it."""

    def first_token(self, seconds: float) -> None: ...
    def inter_token(self, seconds: float) -> None: ...
    def prefix_hit(self, tokens: int) -> None: ...
    def finished(self, reason: str, prompt_tokens: int, generated_tokens: int) -> None: ...


async def test_a_seeded_request_says_the_same_alone_and_in_company(
    generator: tuple[GenerationEngine, Tokenizer],
) -> None:
    engine, tokenizer = generator
    wanted = Sampling(24, temperature=1.0, top_p=0.95, seed=11, ignore_eos=True)
    # Longer than a chunk, so that borders between chunks take part.
    prompt = tokenizer.encode("The little boat left the harbour at dawn and the old captain sang "
                              "a song about the sea, which he had learned from")  # fmt: skip
    assert len(prompt) > CHUNK

    async def say(wanted: Sampling, prompt: list[int], delay_s: float = 0.0) -> list[int]:
        await asyncio.sleep(delay_s)
        stream = engine.generate(prompt, wanted)
        return [token async for chunk in stream for token in chunk.token_ids]

    async def leave(seed: int, prompt: list[int], after: int) -> None:
        stream = engine.generate(prompt, Sampling(40, seed=seed, ignore_eos=True))
        for _ in range(after):
            await anext(stream)
        await stream.aclose()

    alone = await say(wanted, prompt)
    assert len(alone) == 24
    others = cut_texts(tokenizer, WIDEST - 2, 40, seed=1)
    company = [
        say(Sampling(2 + n, seed=n, ignore_eos=True), other, 0.03 * n) if n % 3 else
        leave(n, other, after=n // 3)
        for n, other in enumerate(others)
    ]  # fmt: skip
    # First of all and in the lowest slot; later, in whatever slot is free.
    first, late, *_ = await asyncio.gather(say(wanted, prompt), say(wanted, prompt, 0.3), *company)
    assert first == alone
    assert late == alone


@pytest.mark.parametrize("fixture", ["smollm2_artifact", "smollm2_fp32_artifact"])
def test_logits_are_the_same_at_every_width_and_in_every_slot(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    artifact: Artifact = request.getfixturevalue(fixture)
    layout = artifact.manifest.cache
    assert layout is not None
    session = Session(artifact.graph, Provider.CPU, usable_cores())
    slots = Slots(CachedSession(session, layout, WIDEST, CAPACITY), WIDEST)
    tokenizer = Tokenizer.load(artifact.folder)
    prompt = tokenizer.encode("The quick brown fox jumps over")
    others = cut_texts(tokenizer, WIDEST, 12, seed=2)
    follow = prompt[-1]

    def prefill(row: int, token_ids: list[int]) -> None:
        slots.clear(row)
        slots.prefill(row, token_ids, wants_logits=False)

    prefill(0, prompt)
    alone = slots.decode([0], [follow], 1)[0]
    worst, unequal = 0.0, 0
    for row in range(1, WIDEST):
        prefill(row, others[row])
    for width in range(1, WIDEST + 1):
        place = width - 1 if width % 2 else width // 2
        prefill(place, prompt)
        rows = list(range(width))
        found = slots.decode(rows, [follow] * width, width)[place]
        unequal += not np.array_equal(found, alone)
        worst = max(worst, float(np.abs(found - alone).max()))
        prefill(place, others[place])
    print(f"{fixture}: logits differ at {unequal} widths, by {worst:.2e} at most")
    assert unequal == 0


@pytest.mark.parametrize("fixture", ["smollm2_artifact", "smollm2_fp32_artifact"])
def test_a_prompt_that_begins_like_one_before_has_the_logits_it_has_alone(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    artifact: Artifact = request.getfixturevalue(fixture)
    layout = artifact.manifest.cache
    assert layout is not None
    session = Session(artifact.graph, Provider.CPU, usable_cores())
    slots = Slots(CachedSession(session, layout, 4, CAPACITY), 4, block=CHUNK)
    beginning, *tails = cut_texts(Tokenizer.load(artifact.folder), 4, 60, seed=3)
    beginning = (beginning * CAPACITY)[: 3 * CHUNK + 5]

    def run(row: int, tail: list[int]) -> tuple[int, list[NDArray[np.float32]]]:
        """How much was there, and the logits after the prompt and after each of three tokens."""
        prompt = [*beginning, *tail[:9]]
        slots.begin([row], prompt)
        cached = slots.recall(row, prompt, CAPACITY)
        found: list[NDArray[np.float32]] = []
        for start in range(cached, len(prompt), CHUNK):
            logits = slots.prefill(row, prompt[start : start + CHUNK], wants_logits=True)
            assert logits is not None
            found = [logits]
        found += [slots.decode([row], [token], row + 1)[0] for token in (7, 8, 9)]
        return cached, found

    cold, expected = run(0, tails[0])
    assert cold == 0
    slots.clear(0)
    # In place; by a copy from a row that runs; from one that was bound, unused, while others ran.
    for row in (0, 1, 2):
        cached, found = run(row, tails[0])
        assert cached == 3 * CHUNK
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
        assert run(3, tails[1])[0] == 3 * CHUNK
        slots.clear(3)
        if row == 1:
            slots.clear(0, 1)
            slots.decode([2], [5], 3)
            slots.clear(2)
