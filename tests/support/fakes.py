"""Stand-ins at the seam between the dialects and the engines."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, cast

import numpy as np

from export.artifact import PLAIN, GenerationDefaults
from model_core.tokenization import ChatTemplateError, Pair, Span, Tokenizer
from service.errors import InvalidRequest, Overloaded
from service.messages import (
    ANY_TERMS,
    Computed,
    FinishReason,
    Floats,
    Followed,
    Following,
    Generation,
    GenerationChunk,
    Inputs,
    ModelCard,
    Sampling,
    Task,
    Terms,
    Times,
    TokenIds,
    TokenLogprob,
)

BEGIN_ID = 256
END_ID = 257
VOCAB_SIZE = 258
QUEUE_S, RUN_S = 0.002, 0.003
WAITED_S, READ_S, WROTE_S = 0.001, 0.002, 0.004


class FakeTokenizer:
    """A byte is a token; `BEGIN_ID` is put before a text."""

    vocab_size = VOCAB_SIZE
    eos_ids = frozenset({END_ID})

    def __init__(self, *, chat_template: str | None = "fake") -> None:
        self.chat_template = chat_template

    def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        return [BEGIN_ID] * special_tokens + list(text.encode())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def encode_pair(self, first: str, second: str, *, max_tokens: int | None = None) -> Pair:
        ids, other = self.encode(first), list(second.encode())
        room = len(other) if max_tokens is None else max(0, max_tokens - len(ids))
        return Pair([*ids, *other[:room]], len(ids), len(other) - len(other[:room]))

    def cut(self, token_ids: Sequence[int], tokens: int, *, left: bool = False) -> list[int]:
        ids = list(token_ids)
        if len(ids) <= tokens:
            return ids
        return [ids[0], *ids[len(ids) - tokens + 1 :]] if left else ids[:tokens]

    def spans(self, text: str, *, special_tokens: bool = True) -> list[Span]:
        begin = [Span(BEGIN_ID, "<s>", True, None, None)] * special_tokens
        return begin + [Span(b, chr(b), False, i, i + 1) for i, b in enumerate(text.encode())]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        del skip_special_tokens
        return bytes(token_id for token_id in ids if token_id < 256).decode(errors="replace")

    def token_text(self, token_id: int) -> str:
        return self.decode([token_id])

    def is_special(self, token_id: int) -> bool:
        return token_id >= BEGIN_ID

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id]) if token_id < 256 else b""

    def render_chat(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        add_generation_prompt: bool = True,
        tools: object = None,
    ) -> str:
        del tools
        if messages[-1]["role"] == "assistant":
            raise ChatTemplateError("the last message must not be the assistant's")
        turns = "".join(f"{item['role']}:{item['content']}\n" for item in messages)
        return turns + ("assistant:" if add_generation_prompt else "")


def fake_tokenizer(*, chat_template: str | None = "fake") -> Tokenizer:
    return cast(Tokenizer, FakeTokenizer(chat_template=chat_template))


def card(name: str, task: Task, max_tokens: int, *labels: str, dim: int | None = None) -> ModelCard:
    return ModelCard(
        name=name,
        task=task,
        max_tokens=max_tokens,
        precision="fp32",
        created=1_700_000_000,
        source="a test",
        licence="none",
        provider="CPUExecutionProvider",
        provider_reason="no other",
        embedding_dim=dim,
        labels=labels,
    )


class FakeQueue:
    """Takes everything, unless it is full; keeps the terms on which requests waited."""

    def __init__(self) -> None:
        self.is_full = False
        self.terms: list[Terms] = []

    def require_room(self, items: int) -> None:
        if self.is_full:
            raise Overloaded("the queue is full", retry_after_s=7)


class FakeEmbeddingModel(FakeQueue):
    """Normalised vectors that depend on the tokens alone. `fill` replaces every number."""

    def __init__(
        self,
        name: str = "embedder",
        *,
        max_tokens: int = 64,
        dim: int = 8,
        fill: float | None = None,
    ) -> None:
        super().__init__()
        self.card = replace(card(name, Task.EMBED, max_tokens, dim=dim), pooling="mean")
        self.tokenizer = fake_tokenizer()
        self._dim = dim
        self._fill = fill

    def vector(self, ids: TokenIds) -> Floats:
        if self._fill is not None:
            return np.full(self._dim, self._fill, np.float32)
        raw = np.random.default_rng(ids).standard_normal(self._dim).astype(np.float32)
        return (raw / np.linalg.norm(raw)).astype(np.float32)

    async def embed(
        self, texts: Sequence[TokenIds], *, terms: Terms = ANY_TERMS
    ) -> Computed[Floats]:
        self.terms.append(terms)
        await asyncio.sleep(0)
        return Computed(
            np.stack([self.vector(ids) for ids in texts]),
            QUEUE_S,
            RUN_S,
            len(texts),
            sum(map(len, texts)),
        )

    async def embed_tokens(
        self, texts: Sequence[TokenIds], *, terms: Terms = ANY_TERMS
    ) -> Computed[list[Floats]]:
        await asyncio.sleep(0)
        found = [np.stack([self.vector([token]) for token in ids]) for ids in texts]
        return Computed(found, QUEUE_S, RUN_S, len(texts), sum(map(len, texts)))


class FakeClassificationModel(FakeQueue):
    """The label's number is the first letter's, modulo the number of labels."""

    def __init__(self, name: str = "classifier", *, max_tokens: int = 64) -> None:
        super().__init__()
        self.card = card(name, Task.CLASSIFY, max_tokens, "noun", "verb", "adverb")
        self.tokenizer = fake_tokenizer()

    async def classify(
        self, inputs: Inputs, *, raw: bool = False, terms: Terms = ANY_TERMS
    ) -> Computed[Floats]:
        self.terms.append(terms)
        await asyncio.sleep(0)
        texts = inputs.token_ids
        scores = np.full((len(texts), 3), 0.125, np.float32)
        for row, ids in enumerate(texts):
            scores[row, ids[min(1, len(ids) - 1)] % 3] = 0.75
        return Computed(scores * (8 if raw else 1), QUEUE_S, RUN_S, len(texts), inputs.tokens)


class FakeRanker(FakeQueue):
    """A pair scores the share of the second text's letters that are in the first."""

    def __init__(self, name: str = "ranker", *, max_tokens: int = 64) -> None:
        super().__init__()
        self.card = replace(card(name, Task.CLASSIFY, max_tokens, "score"), ranks=True)
        self.tokenizer = fake_tokenizer()

    async def classify(
        self, inputs: Inputs, *, raw: bool = False, terms: Terms = ANY_TERMS
    ) -> Computed[Floats]:
        await asyncio.sleep(0)
        assert inputs.second_at is not None
        rows: list[list[float]] = []
        for ids, second_at in zip(inputs.token_ids, inputs.second_at, strict=True):
            first, second = ids[1:second_at], ids[second_at:]
            rows.append([sum(letter in first for letter in second) / len(second)])
        return Computed(np.array(rows, np.float32) * (4 if raw else 1), QUEUE_S, RUN_S)


@dataclass(slots=True)
class FakeGeneration:
    """Gives `chunks`, a pause before each; then fails, if it is told to."""

    prompt: TokenIds
    sampling: Sampling
    chunks: Sequence[GenerationChunk]
    pause_s: float = 0.0
    failure: Exception | None = None
    given: int = 0
    is_closed: bool = False
    times: Times = field(
        default_factory=lambda: Times(0.0, WAITED_S, WAITED_S + READ_S, WAITED_S + READ_S + WROTE_S)
    )
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> GenerationChunk:
        await asyncio.sleep(self.pause_s)
        if self.given == len(self.chunks):
            if self.failure is not None:
                raise self.failure
            raise StopAsyncIteration
        self.given += 1
        return self.chunks[self.given - 1]

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.is_closed = True
        self.closed.set()


def chunks_of(
    *texts: str, reason: FinishReason = FinishReason.STOP, logprobs: bool = False
) -> list[GenerationChunk]:
    """A chunk for each text, whose bytes are its tokens; the last has the reason of the end."""
    last = len(texts) - 1
    return [
        GenerationChunk(
            text,
            token_ids=tuple(text.encode()),
            logprobs=tuple(
                TokenLogprob(byte, -0.5, ((byte, -0.5), (ord("?"), -1.5))) for byte in text.encode()
            )
            if logprobs
            else (),
            finish_reason=reason if position == last else None,
        )
        for position, text in enumerate(texts)
    ]


@dataclass(frozen=True)
class FakeSchema:
    """Keeps what it was made of; any text follows it."""

    definition: dict[str, Any]

    def start(self) -> Following:
        return self

    def allow(self, scores: Floats) -> Floats:
        return scores

    def follow(self, token: int) -> None: ...


class FakeGenerationModel(FakeQueue):
    """Says `script` to every prompt, and keeps the generations that it started."""

    def __init__(
        self,
        name: str = "generator",
        *,
        max_tokens: int = 128,
        script: Sequence[str] = ("Hello", ", ", "world"),
        pause_s: float = 0.0,
        failure: Exception | None = None,
        room: int = 1000,
        cached_tokens: int = 0,
        chat_template: str | None = "fake",
        generation: GenerationDefaults = PLAIN,
    ) -> None:
        super().__init__()
        plain = card(name, Task.GENERATE, max_tokens)
        self.card = replace(plain, generation=generation, max_beams=8)
        self.tokenizer = fake_tokenizer(chat_template=chat_template)
        self.script = script
        self.pause_s = pause_s
        self.failure = failure
        self.room = room
        self.cached_tokens = cached_tokens
        self.started: list[FakeGeneration] = []

    def schema(self, schema: Mapping[str, Any], *, field: str) -> Followed:
        if "impossible" in schema:
            raise InvalidRequest(f"{field}: impossible", field=field)
        return FakeSchema(dict(schema))

    def generate(
        self, prompt: TokenIds, sampling: Sampling, *, terms: Terms = ANY_TERMS
    ) -> Generation:
        self.terms.append(terms)
        if len(self.started) == self.room:
            raise Overloaded("the queue is full", retry_after_s=7)
        chunks = chunks_of(*self.script, logprobs=sampling.top_logprobs is not None)
        if sampling.prompt_logprobs:
            scored = tuple(TokenLogprob(token, -2.0, ((token, -2.0),)) for token in prompt[1:])
            chunks[0] = replace(chunks[0], prompt_logprobs=scored)
        if self.cached_tokens:
            chunks[0] = replace(chunks[0], cached_tokens=self.cached_tokens)
        generation = FakeGeneration(prompt, sampling, chunks, self.pause_s, self.failure)
        self.started.append(generation)
        return generation
