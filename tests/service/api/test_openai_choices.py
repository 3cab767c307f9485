"""Where tokens stand in the text of a choice, in real vocabularies."""

from typing import Any

import pytest

from model_core.tokenization import Tokenizer
from service.api.openai_choices import CompletionChoice
from service.messages import FinishReason, GenerationChunk, TokenLogprob
from tests.support.callers import PLAIN_TEMPLATE, read_tokenizer, write_vocabulary
from tests.support.vocabularies import Layout, pieces

PROMPTS = ["hello world", " hello", "Ärger 🙂 über", "a", "  time  flies "]


@pytest.fixture(scope="module")
def sentence_pieces(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Llama's kind: a mark for the space, also where a text begins; bytes for what is unknown."""
    make = pieces(
        "tokenizer.model", model_type="bpe", byte_fallback=True, vocab_size=420,
        normalization_rule_name="identity", remove_extra_whitespaces=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("pieces") / "llama"
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "legacy": True}
    return Tokenizer.from_files(Layout("LlamaTokenizer", make, config, "llama").write(folder))


@pytest.fixture(scope="module")
def bytes_(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("bytes")
    write_vocabulary(folder, PLAIN_TEMPLATE)
    return read_tokenizer(folder)


def choice_of(tokenizer: Tokenizer, prompt: str | list[int], generated: list[int]) -> Any:
    """A choice that echoes `prompt` and goes on with `generated`."""
    token_ids = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
    text = prompt if isinstance(prompt, str) else tokenizer.decode(prompt)
    stream = tokenizer.stream(after=token_ids)
    said = "".join(map(stream.push, generated)) + stream.flush()
    choice = CompletionChoice(
        0, tokenizer, wants_logprobs=True, prompt=token_ids, prefix=text, echoed=token_ids
    )
    scored = tuple(TokenLogprob(token_id, -1.0) for token_id in token_ids[1:])
    logprobs = tuple(TokenLogprob(token_id, -1.0) for token_id in generated)
    chunk = GenerationChunk(said, tuple(generated), logprobs, FinishReason.STOP, scored)
    return choice.whole(chunk)


@pytest.mark.parametrize("kind", ["sentence_pieces", "bytes_"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_offsets_point_into_the_echoed_text(
    request: pytest.FixtureRequest, kind: str, prompt: str
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(kind)
    generated = tokenizer.encode("x fox jumps", special_tokens=False)
    for given in (prompt, tokenizer.encode(prompt)):
        choice = choice_of(tokenizer, given, generated)
        text, block = choice["text"], choice["logprobs"]
        assert len(block["text_offset"]) == len(block["tokens"])
        for token, offset in zip(block["tokens"], block["text_offset"], strict=True):
            if not token.startswith(("<s>", "bytes:")):
                # The space that a vocabulary puts before a text isn't there.
                assert text[offset:].startswith((token, token.removeprefix(" "))), (token, offset)
        assert block["text_offset"][-len(generated)] == len(prompt)


def test_special_tokens_count_where_they_are_written_and_where_not(bytes_: Tokenizer) -> None:
    prompt = "<|user|>hello<|end|>"
    written = choice_of(bytes_, prompt, [])
    assert written["logprobs"]["text_offset"][-1] == len("<|user|>hello")
    silent = choice_of(bytes_, bytes_.encode(prompt), [])
    assert silent["text"] == "hello"
    assert silent["logprobs"]["text_offset"][:2] == [0, 0]
    assert silent["logprobs"]["text_offset"][-1] == len("hello")
