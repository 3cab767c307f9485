"""Reranking as Cohere's and Jina's clients ask for it, and scores of pairs as vLLM gives them.

A cross-encoder, which reads both texts at once, scores where one is served; else an embedding
model, by the cosine of the two vectors. The answer says which (`scored_by`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import numpy as np
from pydantic import Discriminator, Field, Tag
from starlette.requests import Request
from starlette.responses import Response

from service.api import bodies
from service.api.answers.ranking import RankedList, ScoreList
from service.api.described import COMPUTES, DescribedRoute, post
from service.api.exchange import Exchange, answered, exchange_of
from service.api.openai_types import STOP_AT_FIRST, TRUNCATION, Cutting, ModelName, TextOrTexts
from service.api.responses import BYTES_PER_NUMBER, json_response, require_finite, told, usage
from service.engines.pooling import ranked, unit
from service.errors import InvalidRequest
from service.items import byte_count
from service.messages import ClassificationModel, EmbeddingModel, Floats, Truncation
from service.offload import Offload
from service.registry import Registry
from service.tokenizing import Tokenizing


class ScoredBy(StrEnum):
    """How two texts are compared."""

    CROSS_ENCODER = "cross-encoder"
    COSINE = "cosine"


def _document_kind(value: object) -> str | None:
    if isinstance(value, str):
        return "<text>"
    return "<document>" if isinstance(value, dict) else None


class Document(bodies.RequestBody):
    """A document as an object, which some clients send; only its text is read."""

    text: str


Documents = Annotated[
    list[
        Annotated[
            Annotated[str, Tag("<text>")] | Annotated[Document, Tag("<document>")],
            Discriminator(
                _document_kind,
                custom_error_type="input_kind",
                custom_error_message="accepted are a text, or an object with a text",
            ),
        ]
    ],
    STOP_AT_FIRST,
    Field(min_length=1),
]


class RerankBody(bodies.RequestBody):
    """`POST /v1/rerank`, `/v2/rerank`. Without a model, the default ranker answers."""

    model: ModelName | None = None
    query: str = Field(min_length=1)
    documents: Documents
    top_n: int | None = Field(None, ge=1, description="How many results are given; none: all.")
    return_documents: bool | None = Field(None, description="Repeat the texts in the results.")
    max_tokens_per_doc: int | None = Field(None, ge=1, description="Accepted, without effect.")
    raw_scores: bool = Field(False, description="A cross-encoder's own scores, unscaled.")
    truncation: Cutting = Field(
        Truncation.RIGHT,
        description="Which end of a document that is too long is dropped, as Cohere's clients "
        "expect; error refuses it.",
    )
    user: str | None = Field(None, description="Accepted, without effect.")


class ScoreBody(bodies.RequestBody):
    """`POST /score`. One text of `text_1` is compared with each of `text_2`, else one by one."""

    model: ModelName | None = None
    text_1: TextOrTexts
    text_2: TextOrTexts
    raw_scores: bool = Field(False, description="A cross-encoder's own scores, unscaled.")
    truncation: Cutting = TRUNCATION
    user: str | None = Field(None, description="Accepted, without effect.")


@dataclass(frozen=True, slots=True)
class Compared:
    """A score for each pair [N], the model's name, how it came about and at what cost."""

    scores: Floats
    model: str
    scored_by: ScoredBy
    tokens: int
    dropped: list[int]


@dataclass(frozen=True, slots=True)
class Names:
    """What the fields of a request are called, for errors: of the first texts and the second."""

    first: Callable[[int], str]
    second: Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Comparing:
    """Scores pairs of texts, by whichever kind of model is served."""

    registry: Registry
    tokenizing: Tokenizing

    async def compare(
        self,
        name: str | None,
        pairs: Sequence[tuple[str, str]],
        exchange: Exchange,
        names: Names,
        *,
        truncation: Truncation = Truncation.ERROR,
        raw: bool = False,
    ) -> Compared:
        """A score for each of `pairs`. Raises `UnknownModel`, `InvalidRequest`."""
        ranker = self.registry.ranker(name)
        exchange.model = ranker.card.name
        if ranker.card.ranks:
            model = self.registry.classification(ranker.card.name)
            found = await self._read_together(model, pairs, exchange, names, truncation, raw)
        else:
            embedder = self.registry.embedding(ranker.card.name)
            found = await self._read_apart(embedder, pairs, exchange, names, truncation)
        require_finite(found.scores, found.model, "score")
        return found

    async def _read_together(
        self,
        model: ClassificationModel,
        pairs: Sequence[tuple[str, str]],
        exchange: Exchange,
        names: Names,
        truncation: Truncation,
        raw: bool,
    ) -> Compared:
        fields = [(names.first(place), names.second(place)) for place in range(len(pairs))]
        with exchange.timed("tokenize"):
            inputs = await self.tokenizing.pairs(model, pairs, fields=fields, truncation=truncation)
        work = model.classify(inputs, raw=raw, terms=exchange.terms())
        scores = await exchange.run(work, inputs.names)
        return Compared(
            scores[:, 0], model.card.name, ScoredBy.CROSS_ENCODER, inputs.tokens, inputs.dropped
        )

    async def _read_apart(
        self,
        model: EmbeddingModel,
        pairs: Sequence[tuple[str, str]],
        exchange: Exchange,
        names: Names,
        truncation: Truncation,
    ) -> Compared:
        # A text that stands in many pairs is read once.
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        fields = {
            text: name(place)
            for place in reversed(range(len(pairs)))
            for text, name in zip(pairs[place], (names.first, names.second), strict=True)
        }
        with exchange.timed("tokenize"):
            inputs = await self.tokenizing.texts(
                model, texts, fields=[fields[text] for text in texts], truncation=truncation
            )
        work = model.embed(inputs.token_ids, terms=exchange.terms())
        vectors = unit(await exchange.run(work, inputs.names))
        place_of = {text: place for place, text in enumerate(texts)}
        firsts = [place_of[first] for first, _ in pairs]
        seconds = [place_of[second] for _, second in pairs]
        scores = np.einsum("nd,nd->n", vectors[firsts], vectors[seconds])
        dropped = [inputs.dropped[place] for place in seconds]
        return Compared(scores, model.card.name, ScoredBy.COSINE, inputs.tokens, dropped)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Handlers of the ranking routes. `now` gives the time of day, in seconds."""

    registry: Registry
    tokenizing: Tokenizing
    offload: Offload
    limits: bodies.BodyLimits
    now: Callable[[], float]

    def routes(self) -> list[DescribedRoute]:
        """The routes that this dialect answers."""
        group = "Classification and ranking"
        ranking = [
            post(
                path,
                self.rerank,
                group=group,
                body=RerankBody,
                answer=RankedList,
                raises=COMPUTES,
                example={
                    "query": "What do insects eat?",
                    "documents": ["Fruit flies like a banana.", "Time flies."],
                },
            )
            for path in ("/v1/rerank", "/v2/rerank")
        ]
        scoring = [
            post(
                path,
                self.score,
                group=group,
                body=ScoreBody,
                answer=ScoreList,
                raises=COMPUTES,
                example={"text_1": "Time flies.", "text_2": ["Hours pass.", "A banana."]},
            )
            for path in ("/v1/score", "/score")
        ]
        return ranking + scoring

    async def rerank(self, request: Request) -> Response:
        """Documents by how relevant they are to a query, the most relevant first."""
        body = await bodies.read(request, RerankBody, self.limits)
        exchange = exchange_of(request.scope)
        self.tokenizing.require_count(len(body.documents), field="documents")
        texts = [item if isinstance(item, str) else item.text for item in body.documents]
        names = Names(lambda _: "query", lambda place: f"documents[{place}]")
        comparing = Comparing(self.registry, self.tokenizing)
        work = comparing.compare(
            body.model,
            [(body.query, text) for text in texts],
            exchange,
            names,
            truncation=body.truncation,
            raw=body.raw_scores,
        )
        found = await answered(request, work)
        size = sum(map(byte_count, texts)) if body.return_documents else 0
        size += len(texts) * BYTES_PER_NUMBER
        return await self.offload.run(
            size, rerank_response, found, texts, body, exchange, version_of(request)
        )

    async def score(self, request: Request) -> Response:
        """How well each pair of texts goes together."""
        body = await bodies.read(request, ScoreBody, self.limits)
        exchange = exchange_of(request.scope)
        for name, given in (("text_1", body.text_1), ("text_2", body.text_2)):
            self.tokenizing.require_count(len(given) if isinstance(given, list) else 1, field=name)
        pairs = pairs_of(body)
        names = Names(
            name_of("text_1", isinstance(body.text_1, list) and len(body.text_1) > 1),
            name_of("text_2", isinstance(body.text_2, list)),
        )
        comparing = Comparing(self.registry, self.tokenizing)
        work = comparing.compare(
            body.model, pairs, exchange, names, truncation=body.truncation, raw=body.raw_scores
        )
        found = await answered(request, work)
        return json_response(
            {
                "id": f"score-{exchange.request_id}",
                "object": "list",
                "created": int(self.now()),
                "model": found.model,
                "scored_by": found.scored_by,
                "data": [
                    {"index": index, "object": "score", "score": score}
                    for index, score in enumerate(found.scores.tolist())
                ],
                "usage": usage(found.tokens),
            }
        )


def name_of(field: str, is_list: bool) -> Callable[[int], str]:
    """What the text at a place of `field` is called."""
    return (lambda place: f"{field}[{place}]") if is_list else (lambda _: field)


def pairs_of(body: ScoreBody) -> list[tuple[str, str]]:
    """Which texts are compared. Raises `InvalidRequest` when their numbers don't fit."""
    first, second = (
        [texts] if isinstance(texts, str) else texts for texts in (body.text_1, body.text_2)
    )
    if len(first) not in (1, len(second)):
        raise InvalidRequest(
            f"text_1 has {len(first)} texts and text_2 {len(second)}; accepted are one text_1, or "
            "as many of both",
            field="text_1",
        )
    if len(first) == 1:
        first = first * len(second)
    return list(zip(first, second, strict=True))


def version_of(request: Request) -> str:
    """1 of `/v1/rerank`."""
    return request.url.path.split("/")[1].removeprefix("v")


def rerank_response(
    found: Compared, texts: Sequence[str], body: RerankBody, exchange: Exchange, version: str
) -> Response:
    """The best of `texts`, the most relevant first."""
    results: list[dict[str, Any]] = []
    for place in ranked(found.scores)[: body.top_n]:
        said: dict[str, Any] = {
            "index": place, "relevance_score": float(found.scores[place])
        }  # fmt: skip
        if body.return_documents:
            said["document"] = {"text": texts[place]}
        results.append(said | told(found.dropped[place]))
    return json_response(
        {
            "id": f"rerank-{exchange.request_id}",
            "object": "list",
            "model": found.model,
            "scored_by": found.scored_by,
            "results": results,
            "usage": usage(found.tokens),
            "meta": {
                "api_version": {"version": version},
                "billed_units": {"search_units": 1},
            },
        }
    )
