"""Generations that have to be JSON of a schema: which tokens may come next.

The grammar is llguidance's: it walks the vocabulary beside a parser of the schema. A `Schema` is
made once for a request, off the event loop; each generation starts a `Constraint` of its own.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from model_core.tokenization import Tokenizer
from service.errors import EngineFailure, InvalidRequest
from service.messages import Floats

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions  # named in its types alone

WORD = 32
"""Tokens whose permissions stand in one number of a mask."""
WRITTEN: "JsonCompileOptions" = {
    "whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "
}  # fmt: skip
"""How JSON is written. Where any whitespace may stand, small models write it for ever."""


class Vocabulary:
    """A tokenizer as llguidance wants it: the bytes of every token, and which are special."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        count = tokenizer.vocab_size
        self.eos_token_id = min(tokenizer.eos_ids)
        self.bos_token_id = tokenizer.bos_id
        self.tokens = [tokenizer.token_bytes(token_id) for token_id in range(count)]
        self.special_token_ids = [
            token_id for token_id in range(count) if tokenizer.is_special(token_id)
        ]

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, special_tokens=False, parse_special=False)


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema that generations of one model can be held to."""

    matcher: LLMatcher
    vocab_size: int

    def start(self) -> "Constraint":
        """The constraint of one generation, at its beginning."""
        return Constraint(self.matcher.deep_copy(), self.vocab_size)


@dataclass(slots=True)
class Constraint:
    """Where one generation stands in its schema."""

    matcher: LLMatcher
    vocab_size: int

    def allow(self, scores: Floats) -> Floats:
        """`scores` [V] with -inf for every token that can't come next.

        Raises `EngineFailure` where the grammar gave up (it is bounded in time and memory).
        """
        mask = np.empty(-(-self.vocab_size // WORD), np.int32)
        self.matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        self._require_no_error()
        return np.where(allowed(mask, len(scores)), scores, np.float32(-np.inf))

    def follow(self, token: int) -> None:
        """`token` was chosen."""
        self.matcher.consume_token(token)
        self._require_no_error()

    def _require_no_error(self) -> None:
        if self.matcher.is_error():
            said = self.matcher.get_error().splitlines()[0][:200]
            raise EngineFailure(f"the schema can't be followed any further: {said}")


def allowed(mask: NDArray[np.int32], count: int) -> NDArray[np.bool_]:
    """The first `count` bits of a mask, the lowest of each number first; none beyond its end."""
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little").astype(np.bool_)
    found = np.zeros(count, np.bool_)
    found[: len(bits)] = bits[:count]
    return found


class Schemas:
    """Makes schemas for the vocabulary of one model. Safe to use from several threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._model_tokenizer = tokenizer

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        vocabulary = TokenizerWrapper(Vocabulary(self._model_tokenizer))
        eos_ids: Sequence[int] = sorted(self._model_tokenizer.eos_ids)
        return LLTokenizer(vocabulary, self._model_tokenizer.vocab_size, list(eos_ids))

    def compile(self, schema: Mapping[str, Any], *, field: str) -> Schema:
        """A JSON schema, ready to be followed. It takes milliseconds to a second.

        Raises `InvalidRequest` for `field` where it isn't one, or asks for what isn't supported.
        """
        return self._compile(
            lambda: LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=WRITTEN), field
        )

    def compile_grammar(self, grammar: str, *, field: str) -> Schema:
        """A grammar in llguidance's variant of Lark, likewise.

        JSON schemas in it say themselves how they are written (`as_written`).
        """
        return self._compile(lambda: LLMatcher.grammar_from_lark(grammar), field)

    def _compile(self, grammar: Callable[[], str], field: str) -> Schema:
        tokenizer = self._tokenizer  # whatever is wrong with it is not the request's fault
        try:
            matcher = LLMatcher(tokenizer, grammar(), log_level=0)
        except ValueError as error:
            raise InvalidRequest(f"{field}: {error}", field=field) from error
        if matcher.is_error():
            said = matcher.get_error().splitlines()[0][:300]
            raise InvalidRequest(f"{field} is not accepted: {said}", field=field)
        return Schema(matcher, self._model_tokenizer.vocab_size)
