"""The engine over encoder-decoders: against transformers' own generation, token for token."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import torch

from export.artifact import GenerationDefaults
from model_core.tokenization import Tokenizer
from service.engines.generation import GenerationEngine
from service.engines.scheduler import Scheduler
from service.engines.slots import Slots
from service.messages import Sampling
from tests.support.decoders import LetterTokenizer
from tests.support.engines import Ledger, tokens_of
from tests.support.seq2seq import (
    BEGIN_ID,
    END_ID,
    PAD_ID,
    VOCAB,
    TorchSlots,
    tiny_bart,
    tiny_marian,
    tiny_t5,
)

SLOTS = 7
MODELS = {"bart": tiny_bart, "marian": tiny_marian, "t5": tiny_t5}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Products this small take longer to share out than to make."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@asynccontextmanager
async def engine_of(model: Any, own: GenerationDefaults) -> AsyncIterator[GenerationEngine]:
    decoder = TorchSlots(model, SLOTS)
    made = GenerationEngine(
        Slots(decoder, SLOTS, decoder), Scheduler(SLOTS, 4), cast(Tokenizer, LetterTokenizer()),
        Ledger(), max_waiting=64, name="tiny", own=own,
    )  # fmt: skip
    yield made
    await asyncio.to_thread(made.close)


def own_of(model: Any, **values: Any) -> GenerationDefaults:
    start = model.config.decoder_start_token_id
    return GenerationDefaults(decoder_start=(start,), max_source_tokens=32, **values)


def sources(count: int, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 12, (count,), generator=generator).tolist()
    return [
        [*torch.randint(3, VOCAB, (length,), generator=generator).tolist(), END_ID]
        for length in lengths
    ]


def expected(model: Any, source: list[int], wanted: Sampling, **options: Any) -> list[int]:
    """What transformers generates, up to and with the end token."""
    with torch.inference_mode():
        generated = model.generate(
            torch.tensor([source]), max_new_tokens=wanted.max_tokens, do_sample=False,
            num_beams=wanted.beams, length_penalty=wanted.length_penalty,
            early_stopping=wanted.early_stopping, **options,
        )  # fmt: skip
    tokens: list[int] = generated[0, 1:].tolist()
    return tokens[: tokens.index(END_ID) + 1] if END_ID in tokens else tokens


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("beams", "length_penalty", "early_stopping"), [
    (1, 1.0, False), (2, 1.0, False), (3, 0.0, False), (4, 2.0, False), (4, 1.0, True),
    (5, -0.5, True),
])  # fmt: skip
async def test_a_search_says_what_transformers_says(
    name: str, beams: int, length_penalty: float, early_stopping: bool
) -> None:
    model = MODELS[name]()
    wanted = Sampling(
        12, temperature=0.0, beams=beams, length_penalty=length_penalty,
        early_stopping=early_stopping,
    )  # fmt: skip
    texts = sources(4, seed=beams)
    async with engine_of(model, own_of(model)) as engine:
        found = await asyncio.gather(*(tokens_of(engine.generate(text, wanted)) for text in texts))
    assert found == [expected(model, text, wanted) for text in texts]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("beams", [1, 4])
async def test_forced_and_suppressed_tokens_are_those_of_transformers(
    name: str, beams: int
) -> None:
    model = MODELS[name]()
    own = own_of(model, forced_first=BEGIN_ID, forced_last=END_ID, suppressed=(PAD_ID, 7, 8, 9))
    wanted = Sampling(6, temperature=0.0, beams=beams)
    texts = sources(4, seed=9)
    async with engine_of(model, own) as engine:
        found = await asyncio.gather(*(tokens_of(engine.generate(text, wanted)) for text in texts))
    bad = [[token] for token in own.suppressed]
    assert found == [
        expected(model, text, wanted, forced_bos_token_id=BEGIN_ID, forced_eos_token_id=END_ID,
                 bad_words_ids=bad)
        for text in texts
    ]  # fmt: skip
    assert all(tokens[0] == BEGIN_ID and tokens[-1] == END_ID for tokens in found)


@pytest.mark.parametrize("beams", [1, 3])
async def test_a_least_length_and_a_repetition_penalty_are_those_of_transformers(
    beams: int,
) -> None:
    model = tiny_bart()
    wanted = Sampling(10, temperature=0.0, beams=beams, min_tokens=4, repetition_penalty=1.3)
    texts = sources(4, seed=5)
    async with engine_of(model, own_of(model)) as engine:
        found = await asyncio.gather(*(tokens_of(engine.generate(text, wanted)) for text in texts))
    assert found == [
        expected(model, text, wanted, min_new_tokens=4, repetition_penalty=1.3) for text in texts
    ]
