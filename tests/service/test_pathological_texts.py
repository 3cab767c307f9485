"""Texts that tokenizers are slow on, against the real ones: the event loop goes on."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from export.artifact import Artifact
from model_core.tokenization import Tokenizer
from service.errors import TooManyTokens
from service.messages import ModelCard, Task
from service.offload import Offload
from service.tokenizing import Tokenizing
from tests.support.fakes import card

BYTES_PER_TOKEN = 32
TEXTS = [
    "_" * 50_000,
    "a" * 50_000,
    "1" * 50_000,
    " " * 50_000,
    "=-" * 25_000,
    "\N{COMBINING ACUTE ACCENT}" * 25_000,
    "\N{ZERO WIDTH JOINER}" * 16_000,
    "\N{GRINNING FACE}" * 12_000,
    "<|im_start|>" * 4_000,
]


@dataclass
class Model:
    """As much of a served model as tokenizing looks at."""

    card: ModelCard
    tokenizer: Tokenizer

    def require_room(self, items: int) -> None:
        """There is always room."""


@pytest.fixture
def tokenizing() -> Iterator[Tokenizing]:
    offload = Offload()
    yield Tokenizing(offload, max_bytes_per_token=BYTES_PER_TOKEN, max_inputs=4)
    offload.close()


class Noted:
    """A tokenizer that notes which threads encode."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.threads: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode(self, *args: Any, **options: Any) -> Any:
        self.threads.add(threading.get_ident())
        return self._tokenizer.encode(*args, **options)


async def test_a_generator_s_tokenizer_never_holds_the_loop(
    tokenizing: Tokenizing, smollm2_artifact: Artifact
) -> None:
    tokenizer: Any = Noted(Tokenizer.load(smollm2_artifact.folder))
    model = Model(card("smollm2", Task.GENERATE, 2048), tokenizer)
    for text in TEXTS:
        # 50,000 bytes are below the cap here, so that each is read, on a thread.
        with suppress(TooManyTokens):
            await tokenizing.inputs(model, text, field="prompt")
        assert tokenizer.threads, repr(text[:10])
        assert threading.get_ident() not in tokenizer.threads
        tokenizer.threads.clear()


async def test_an_encoder_s_tokenizer_reads_none_of_them(
    tokenizing: Tokenizing, minilm_artifact: Artifact
) -> None:
    tokenizer = Tokenizer.load(minilm_artifact.folder)
    model = Model(card("minilm", Task.EMBED, 256), tokenizer)
    for text in TEXTS:
        with pytest.raises(TooManyTokens, match=f"more than {256 * BYTES_PER_TOKEN} bytes"):
            await tokenizing.inputs(model, text, field="input")
