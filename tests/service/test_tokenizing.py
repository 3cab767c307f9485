import threading
from collections.abc import AsyncIterator
from typing import cast

import pytest

from model_core.tokenization import TokenizationError, Tokenizer
from service.errors import InvalidRequest, TooManyTokens
from service.items import TextInput
from service.offload import Offload
from service.tokenizing import Tokenizing
from tests.support.fakes import BEGIN_ID, FakeEmbeddingModel, FakeTokenizer


class WatchedTokenizer(FakeTokenizer):
    """Keeps the names of the threads that it encodes on; refuses a text of `!`."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[str] = []

    def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        self.threads.append(threading.current_thread().name)
        if text == "!":
            raise TokenizationError("no token for '!'")
        return super().encode(text, special_tokens=special_tokens)


@pytest.fixture
async def tokenizing() -> AsyncIterator[Tokenizing]:
    offload = Offload(inline_bytes=100)
    yield Tokenizing(offload, max_bytes_per_token=4, max_inputs=3)
    offload.close()


def watched_model() -> tuple[FakeEmbeddingModel, WatchedTokenizer]:
    model, tokenizer = FakeEmbeddingModel(max_tokens=200), WatchedTokenizer()
    model.tokenizer = cast(Tokenizer, tokenizer)
    return model, tokenizer


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ab", [[BEGIN_ID, 97, 98]]),
        (["a", "b"], [[BEGIN_ID, 97], [BEGIN_ID, 98]]),
        ([97, 98], [[97, 98]]),
        ([[97], [98]], [[97], [98]]),
    ],
)
async def test_each_kind_of_input_becomes_token_ids(
    tokenizing: Tokenizing, value: TextInput, expected: list[list[int]]
) -> None:
    found = await tokenizing.inputs(FakeEmbeddingModel(), value, field="input")
    assert found.token_ids == expected
    assert found.dropped == [0] * len(expected)


async def test_a_large_text_is_encoded_off_the_event_loop(tokenizing: Tokenizing) -> None:
    model, tokenizer = watched_model()
    await tokenizing.inputs(model, "x" * 50, field="input")
    await tokenizing.inputs(model, "x" * 150, field="input")
    await tokenizing.inputs(model, ["x" * 60, "x" * 60], field="input")
    here = threading.current_thread().name
    assert [name == here for name in tokenizer.threads] == [True, False, False, False]


async def test_a_text_of_too_many_bytes_is_not_even_read(tokenizing: Tokenizing) -> None:
    model, tokenizer = watched_model()
    with pytest.raises(TooManyTokens, match="801 bytes") as caught:
        await tokenizing.inputs(model, ["a", "x" * 801], field="input")
    assert caught.value.field == "input[1]"
    assert tokenizer.threads == []


async def test_bytes_are_counted_and_not_characters(tokenizing: Tokenizing) -> None:
    with pytest.raises(TooManyTokens, match="900 bytes"):
        await tokenizing.inputs(FakeEmbeddingModel(max_tokens=200), "€" * 300, field="input")


async def test_too_many_items_are_refused(tokenizing: Tokenizing) -> None:
    with pytest.raises(InvalidRequest, match="4 items; at most 3"):
        await tokenizing.inputs(FakeEmbeddingModel(), ["a"] * 4, field="input")


async def test_a_list_of_token_ids_is_one_item_however_long(tokenizing: Tokenizing) -> None:
    ids = [1] * 20
    found = await tokenizing.inputs(FakeEmbeddingModel(), ids, field="input")
    assert found.token_ids == [ids]


async def test_a_text_that_the_tokenizer_refuses_is_named(tokenizing: Tokenizing) -> None:
    model, _ = watched_model()
    with pytest.raises(InvalidRequest, match="no token for") as caught:
        await tokenizing.inputs(model, "!", field="input")
    assert caught.value.field == "input"
