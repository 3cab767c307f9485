"""The types that flow between dialects and engines; they know neither HTTP nor ONNX."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from export.artifact import PLAIN, GenerationDefaults
from model_core.tokenization import Tokenizer

TokenIds: TypeAlias = list[int]
Floats: TypeAlias = NDArray[np.float32]
Values = TypeVar("Values")


class Task(StrEnum):
    """What a served model does; the value is what `/v1/models` and `/info` show."""

    EMBED = "embed"
    CLASSIFY = "classify"
    GENERATE = "generate"


class Truncation(StrEnum):
    """What becomes of a text that is longer than the model takes: which end is dropped, if any."""

    ERROR = "error"
    RIGHT = "right"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Inputs:
    """The items of a request as token ids, and how many tokens of each were dropped.

    `second_at` says of each item that is a pair of texts where the tokens of the second begin,
    `names` what the request calls it, for errors.
    """

    token_ids: list[TokenIds]
    dropped: list[int]
    second_at: list[int] | None = None
    names: Sequence[str] = ()

    @classmethod
    def whole(cls, texts: Sequence[TokenIds], names: Sequence[str] = ()) -> "Inputs":
        """Texts of which nothing was dropped."""
        return cls(list(texts), [0] * len(texts), names=names)

    @property
    def tokens(self) -> int:
        """Of all items together, without those that were dropped."""
        return sum(map(len, self.token_ids))


@dataclass(frozen=True, slots=True)
class Computed(Generic[Values]):
    """What a model gave for a request, how long that waited for it, and how long it ran.

    In seconds: `queue_s` until its first batch began, `run_s` from then until its last ended.
    `texts` were read, of so many `tokens` together.
    """

    values: Values
    queue_s: float
    run_s: float
    texts: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Terms:
    """How a request waits for a model: before those of a higher `priority`, as vLLM counts it.

    With `within_s` it is worth nothing if it hasn't begun in so many seconds.
    """

    priority: int = 0
    within_s: float | None = None


ANY_TERMS = Terms()


class FinishReason(StrEnum):
    """Why a generation ended: the model's end token or a stop string, or the token limit."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. Values are validated at the edge and trusted here.

    `temperature` 0 is greedy; with more than one of `beams` it is a beam search, whose finished
    texts compare by the sum of their log probabilities over length ** `length_penalty`, and which
    ends with `early_stopping` as soon as `beams` have finished. `top_k` 0 and `top_p` 1 and `min_p`
    0 switch the filter off. `seed` None draws a seed from the operating system. `top_logprobs` None
    computes no log probabilities; n gives the chosen token's and those of the n likeliest, with
    `prompt_logprobs` also of the prompt's tokens. A text that follows a `schema` ends where that
    ends.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    top_logprobs: int | None = None
    prompt_logprobs: bool = False
    beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool = False
    schema: "Followed | None" = None


class Following(Protocol):
    """One generation's place in a schema: which tokens may come next."""

    def allow(self, scores: Floats) -> Floats:
        """`scores` [V] with -inf for every token that can't come next."""
        ...

    def follow(self, token: int) -> None:
        """`token` was chosen."""
        ...


class Followed(Protocol):
    """A schema that the texts of generations have to follow."""

    def start(self) -> Following:
        """The beginning of one generation."""
        ...


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log probability (natural) of a chosen token, and of the likeliest: (id, logprob).

    None for a token that nothing stands before.
    """

    token_id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationChunk:
    """What a generation adds: text that is final (no half characters, no part of a stop string).

    `token_ids` are the tokens sampled since the chunk before; their text may come later than they
    do. The last chunk has a `finish_reason`; its text may be empty. `prompt_logprobs`, where they
    were asked for, come with the first: those of the prompt's tokens from the second on. So do
    `cached_tokens`, of the prompt, that an earlier one had left.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    cached_tokens: int = 0


def join(chunks: Sequence[GenerationChunk]) -> GenerationChunk:
    """Consecutive chunks of a generation as one."""
    return GenerationChunk(
        text="".join(chunk.text for chunk in chunks),
        token_ids=tuple(token for chunk in chunks for token in chunk.token_ids),
        logprobs=tuple(logprob for chunk in chunks for logprob in chunk.logprobs),
        finish_reason=chunks[-1].finish_reason if chunks else None,
        prompt_logprobs=tuple(found for chunk in chunks for found in chunk.prompt_logprobs),
        cached_tokens=sum(chunk.cached_tokens for chunk in chunks),
    )


@dataclass(slots=True)
class Times:
    """When a generation came, got its slot, gave its first token and ended: seconds of one clock.

    None for what has not happened. The engine's thread writes each before it tells of it.
    """

    submitted: float
    admitted: float | None = None
    first_token: float | None = None
    ended: float | None = None

    def before_first_token(self) -> dict[str, float]:
        """Seconds of waiting for a slot and of reading the prompt, once there is a token."""
        if self.admitted is None or self.first_token is None:
            return {}
        return {
            "queue": self.admitted - self.submitted,
            "prefill": self.first_token - self.admitted,
        }

    def after_first_token(self) -> dict[str, float]:
        """Seconds from the first token to the end, once that is there."""
        if self.first_token is None or self.ended is None:
            return {}
        return {"decode": self.ended - self.first_token}


class Generation(Protocol):
    """A running generation. `aclose` cancels it and frees its slot; it is safe to call twice."""

    @property
    def times(self) -> Times: ...
    def __aiter__(self) -> AsyncIterator[GenerationChunk]: ...
    async def __anext__(self) -> GenerationChunk: ...
    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a served model tells of itself: the rows of `/v1/models` and `/info`.

    `max_tokens` is what one text takes, a prompt with its continuation, or what answers a source
    with its start. `max_beams` can run at once. `prompt` goes before every text that is embedded,
    unless a request names another of `prompts`; `pooling` is how its
    tokens become a vector. A model that `ranks` scores pairs of texts.
    """

    name: str
    task: Task
    max_tokens: int
    precision: str
    created: int
    source: str
    licence: str
    provider: str
    provider_reason: str
    embedding_dim: int | None = None
    pooling: str = ""
    prompt: str = ""
    prompts: dict[str, str] = field(default_factory=dict[str, str])
    labels: tuple[str, ...] = ()
    ranks: bool = False
    generation: GenerationDefaults = PLAIN
    max_beams: int = 1
    parity: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def max_input_tokens(self) -> int:
        """The longest text or prompt that is read."""
        own = self.generation
        return own.max_source_tokens if own.has_source else self.max_tokens

    def room(self, prompt_tokens: int) -> int:
        """How many tokens can be generated for a prompt; less than 1 where none can."""
        own = self.generation
        return self.max_tokens - (len(own.decoder_start) if own.has_source else prompt_tokens)


class ServedModel(Protocol):
    """What every served model offers to every dialect."""

    @property
    def card(self) -> ModelCard: ...
    @property
    def tokenizer(self) -> Tokenizer: ...

    def require_room(self, items: int) -> None:
        """Raises `Overloaded` if the queue can't take so many items, however short they are."""
        ...


class EmbeddingModel(ServedModel, Protocol):
    """Texts, as token ids with their special tokens, to pooled vectors."""

    async def embed(
        self, texts: Sequence[TokenIds], *, terms: Terms = ANY_TERMS
    ) -> Computed[Floats]:
        """Vectors [N, D] in the order of `texts`; each 1 to `card.max_input_tokens` tokens long."""
        ...

    async def embed_tokens(
        self, texts: Sequence[TokenIds], *, terms: Terms = ANY_TERMS
    ) -> Computed[list[Floats]]:
        """A vector of every token, [T, D] for each of `texts`."""
        ...


class ClassificationModel(ServedModel, Protocol):
    """Texts, as token ids with their special tokens, to class scores."""

    async def classify(
        self, inputs: Inputs, *, raw: bool = False, terms: Terms = ANY_TERMS
    ) -> Computed[Floats]:
        """Probabilities [N, C] over `card.labels` in the order of the items, or `raw` scores."""
        ...


class GenerationModel(ServedModel, Protocol):
    """A prompt, as token ids, to a stream of text."""

    def schema(self, schema: Mapping[str, Any], *, field: str) -> Followed:
        """A JSON schema for `Sampling`. May take a second, and be called on any thread.

        Raises `InvalidRequest` for `field`.
        """
        ...

    def generate(
        self, prompt: TokenIds, sampling: Sampling, *, terms: Terms = ANY_TERMS
    ) -> Generation:
        """Start at once; `sampling.max_tokens` is at most `card.room(len(prompt))`.

        Raises `Overloaded` when the queue is full, or the wait too long.
        """
        ...
