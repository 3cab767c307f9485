"""Generations that have to be JSON of a schema: which tokens may come next.

The grammar is llguidance's: it walks the vocabulary beside a parser of the schema. A `Schema` is
made once for a request, off the event loop; each generation starts a `Constraint` of its own.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from model_core.tokenization import Tokenizer
from service.errors import InvalidRequest, SchemaTooComplex
from service.messages import Floats

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions  # named in its types alone

WORD = 32
"""Tokens whose permissions stand in one number of a mask."""
WRITTEN: "JsonCompileOptions" = {
    "whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "
}  # fmt: skip
"""How JSON is written. Where any whitespace may stand, small models write it for ever."""
HEAD = '%llguidance {"no_forcing": true}\n'
"""How every grammar begins. Else llguidance works out at each token all the text that can't be
otherwise from there on: 300 ms a token for a constant of 400 kB, and no end to it where a schema
requires itself. Without, a token's mask took 0.1 ms for either."""
MOST_SCHEMA_BYTES = 2**16
"""Of a schema, written as JSON without characters beyond ASCII."""
MOST_GRAMMAR_BYTES = 2**18
"""Of a grammar: the schemas of all functions of a request."""
LIMITS = LLParserLimits(step_max_items=2000, verbose_errors=False)
"""What a token may cost. llguidance's own 50,000 items take 200 ms; 490 optional properties took
less than 2,000, in 4 ms, and no row may have more."""
EXCERPT = re.compile(r"\n *\d+ \| |\n<")
"""Where llguidance goes on to quote the grammar, which no client has written."""
PLACE = re.compile(r"^at \d+\(\d+\): |failed to compile JSON schema: |failed to parse \"%json\": ")


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
    field: str

    def start(self) -> "Constraint":
        """The constraint of one generation, at its beginning."""
        return Constraint(self.matcher.deep_copy(), self.vocab_size, self.field)


@dataclass(slots=True)
class Constraint:
    """Where one generation stands in its schema."""

    matcher: LLMatcher
    vocab_size: int
    field: str

    def allow(self, scores: Floats) -> Floats:
        """`scores` [V] with -inf for every token that can't come next.

        Raises `SchemaTooComplex` where the grammar gave up (it is bounded in time and memory).
        """
        mask = self._mask()
        return np.where(allowed(mask, len(scores)), scores, np.float32(-np.inf))

    def follow(self, token: int) -> None:
        """`token` was chosen."""
        self.matcher.consume_token(token)
        self._require_no_error()

    def _mask(self) -> NDArray[np.int32]:
        mask = np.empty(-(-self.vocab_size // WORD), np.int32)
        self.matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        self._require_no_error()
        return mask

    def _require_no_error(self) -> None:
        if self.matcher.is_error():
            raise SchemaTooComplex(
                f"{self.field} can't be followed any further: {said_of(self.matcher)}; send a "
                "simpler schema",
                field=self.field,
            )


def said_of(matcher: LLMatcher) -> str:
    """What llguidance says is wrong, in one line."""
    said, *_ = EXCERPT.split(matcher.get_error())
    return " ".join(PLACE.sub("", said).split())[:300]


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
        written = json.dumps(as_written(schema))
        if len(written) > MOST_SCHEMA_BYTES:
            raise InvalidRequest(
                f"{field} has {len(written)} bytes; at most {MOST_SCHEMA_BYTES} are accepted",
                field=field,
            )
        return self._compile(f"{HEAD}start: %json {written}\n", field)

    def compile_grammar(self, grammar: str, *, field: str) -> Schema:
        """A grammar in llguidance's variant of Lark that begins with `HEAD`, likewise.

        JSON schemas in it say themselves how they are written (`as_written`).
        """
        if len(grammar) > MOST_GRAMMAR_BYTES:
            raise InvalidRequest(
                f"{field} are a grammar of {len(grammar)} bytes; at most {MOST_GRAMMAR_BYTES} are "
                "accepted",
                field=field,
            )
        return self._compile(grammar, field)

    def _compile(self, grammar: str, field: str) -> Schema:
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=LIMITS)
        if matcher.is_error():
            raise InvalidRequest(f"{field} is not accepted: {said_of(matcher)}", field=field)
        found = Schema(matcher, self._model_tokenizer.vocab_size, field)
        found.start().allow(np.zeros(0, np.float32))  # what is too much at once is told at once
        return found


def as_written(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema within a grammar, that says how its JSON is written."""
    return {**schema, "x-guidance": WRITTEN}
