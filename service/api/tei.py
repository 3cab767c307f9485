"""The dialect of text-embeddings-inference: its routes, headers and errors.

Its routes name no model: each is answered by the service's default for the task.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from service.api import bodies
from service.api.answers import tei as answers
from service.api.described import COMPUTES, READS_TEXT, DescribedRoute, Handler, post
from service.api.exchange import Dialect, Exchange, answered, exchange_of
from service.api.ranking import Comparing, Names
from service.api.responses import BYTES_PER_NUMBER, json_response, require_finite, rows_json
from service.api.tei_headers import compute_headers, note_compute
from service.api.tei_tokens import TeiTokens, prompt_of
from service.api.tei_types import (
    DecodeBody,
    EmbedAllBody,
    EmbedBody,
    PredictBody,
    SimilarityBody,
    TeiRerankBody,
    TokenizeBody,
)
from service.engines.pooling import ranked, unit
from service.errors import InvalidRequest
from service.items import TextInput, byte_count
from service.messages import (
    EmbeddingModel,
    Floats,
    Inputs,
    ServedModel,
    Task,
    TokenIds,
    Truncation,
)
from service.offload import Offload
from service.registry import Registry
from service.tokenizing import Tokenizing

MOST_NUMBERS = 2**22
"""Of an answer of `/embed_all`, 50 MB of JSON."""


@dataclass(frozen=True, slots=True)
class TextEmbeddingsInference:
    """Handlers of these routes over the models of a registry."""

    registry: Registry
    tokenizing: Tokenizing
    offload: Offload
    limits: bodies.BodyLimits

    def routes(self) -> list[DescribedRoute]:
        """The routes that this dialect answers; errors are told in its own shape."""
        any_body = EmbedBody | TeiRerankBody | PredictBody
        insects, time_flies = "Fruit flies like a banana.", "Time flies."
        one = {"inputs": insects}
        ranked_texts = {"query": "What do insects eat?", "texts": [insects, time_flies]}
        compared = {"inputs": {"source_sentence": time_flies, "sentences": [insects]}}
        tokens = TeiTokens(self.registry, self.tokenizing, self.offload, self.limits)
        return [
            self._route("/", self.dispatch, any_body, answers.Dispatched, one),
            self._route("/embed", self.embed, EmbedBody, answers.Vectors, one),
            self._route("/embed_all", self.embed_all, EmbedAllBody, answers.VectorsOfTokens, one),
            self._route("/predict", self.predict, PredictBody, answers.Predictions, one),
            self._route("/rerank", self.rerank, TeiRerankBody, answers.Ranks, ranked_texts),
            self._route("/similarity", self.similarity, SimilarityBody, answers.Cosines, compared),
            self._route(
                "/tokenize",
                tokens.tokenize,
                TokenizeBody,
                answers.TokensOfTexts,
                one,
                computes=False,
            ),
            self._route(
                "/decode",
                tokens.decode,
                DecodeBody,
                answers.Texts,
                {"ids": [[101, 102]]},
                computes=False,
            ),
        ]

    def _route(
        self,
        path: str,
        handler: Handler,
        body: Any,
        answer: Any,
        example: Mapping[str, Any],
        *,
        computes: bool = True,
    ) -> DescribedRoute:
        return post(
            path,
            self.in_this_dialect(handler),
            group="text-embeddings-inference",
            body=body,
            answer=answer,
            raises=COMPUTES if computes else READS_TEXT,
            dialect=Dialect.TEI,
            counts=computes,
            example=example,
        )

    def in_this_dialect(self, handler: Handler) -> Handler:
        """`handler`, whose errors have this dialect's shape and whose answers its headers."""

        @wraps(handler)
        async def handle(request: Request) -> Response:
            exchange = exchange_of(request.scope)
            exchange.dialect = Dialect.TEI
            began, provider = time.perf_counter(), self.registry.first().card.provider
            response = await handler(request)
            response.headers["x-compute-type"] = provider
            response.headers.update(compute_headers(exchange, time.perf_counter() - began))
            return response

        return handle

    async def dispatch(self, request: Request) -> Response:
        """`POST /`: what the default model is for."""
        self.registry.require_ready()
        cards = self.registry.cards()
        if any(card.task is Task.EMBED for card in cards):
            return await self.embed(request)
        if any(card.ranks for card in cards):
            return await self.rerank(request)
        return await self.predict(request)

    async def embed(self, request: Request) -> Response:
        """`POST /embed`: a vector for each input, even for a single one."""
        body = await bodies.read(request, EmbedBody, self.limits)
        model, exchange = self._embedder(request), exchange_of(request.scope)
        width = model.card.embedding_dim or 0
        if body.dimensions is not None and body.dimensions > width:
            raise InvalidRequest(
                f"dimensions: {body.dimensions} is not accepted; the vectors have {width}",
                field="dimensions",
            )

        async def run() -> Response:
            inputs = await self._inputs(model, body, exchange)
            work = model.embed(inputs.token_ids, terms=exchange.terms())
            vectors = (await exchange.run(work, inputs.names))[:, : body.dimensions]
            if body.normalize:
                vectors = unit(vectors)
            return await self._answer(vectors, inputs, body.inputs, exchange)

        return await answered(request, run())

    async def embed_all(self, request: Request) -> Response:
        """`POST /embed_all`: a vector for each token of each input."""
        body = await bodies.read(request, EmbedAllBody, self.limits)
        model, exchange = self._embedder(request), exchange_of(request.scope)

        async def run() -> Response:
            inputs = await self._inputs(model, body, exchange)
            numbers = inputs.tokens * (model.card.embedding_dim or 1)
            if numbers > MOST_NUMBERS:
                raise InvalidRequest(
                    f"inputs: {inputs.tokens} tokens have {numbers} numbers; at most "
                    f"{MOST_NUMBERS} are given in one answer",
                    field="inputs",
                )
            work = model.embed_tokens(inputs.token_ids, terms=exchange.terms())
            found = await exchange.run(work, inputs.names)
            return await self._answer(found, inputs, body.inputs, exchange)

        return await answered(request, run())

    async def predict(self, request: Request) -> Response:
        """`POST /predict`: the scores of all labels, the highest first."""
        body = await bodies.read(request, PredictBody, self.limits)
        model, exchange = self.registry.classification(), exchange_of(request.scope)
        exchange.model = model.card.name
        items, is_nested = items_of(body.inputs)
        self.tokenizing.require_count(len(items), field="inputs")
        fields = [f"inputs[{place}]" if is_nested else "inputs" for place in range(len(items))]

        async def run() -> Response:
            with exchange.timed("tokenize"):
                inputs = await self._texts_and_pairs(model, items, fields, body.truncation)
            work = model.classify(inputs, raw=body.wants_raw, terms=exchange.terms())
            scores = await exchange.run(work, inputs.names)
            note_compute(exchange, inputs, characters_of(items))

            def write() -> Response:
                require_finite(scores, model.card.name, "score")
                labels = model.card.labels
                found = [
                    [
                        {"score": float(row[place]), "label": labels[place]}
                        for place in ranked(row)[: body.most]
                    ]
                    for row in scores
                ]
                return json_response(found if is_nested or body.wants_lists else found[0])

            return await self.offload.run(scores.size * BYTES_PER_NUMBER, write)

        return await answered(request, run())

    async def rerank(self, request: Request) -> Response:
        """`POST /rerank`: texts by how relevant they are to a query, the most relevant first."""
        body = await bodies.read(request, TeiRerankBody, self.limits)
        exchange = exchange_of(request.scope)
        self.tokenizing.require_count(len(body.texts), field="texts")
        names = Names(lambda _: "query", lambda place: f"texts[{place}]")
        work = Comparing(self.registry, self.tokenizing).compare(
            None,
            [(body.query, text) for text in body.texts],
            exchange,
            names,
            truncation=body.truncation,
            raw=body.raw_scores,
        )
        found = await answered(request, work)
        exchange.compute = {
            "characters": len(body.query) + sum(map(len, body.texts)),
            "tokens": found.tokens,
        }

        def write() -> Response:
            return json_response(
                [
                    {"index": place, "score": float(found.scores[place])}
                    | ({"text": body.texts[place]} if body.return_text else {})
                    for place in ranked(found.scores)
                ]
            )

        return await self.offload.run(sum(map(byte_count, body.texts)), write)

    async def similarity(self, request: Request) -> Response:
        """`POST /similarity`: the cosine of a sentence and each of others."""
        body = await bodies.read(request, SimilarityBody, self.limits)
        model, exchange = self._embedder(request), exchange_of(request.scope)
        self.tokenizing.require_count(len(body.inputs.sentences), field="inputs.sentences")
        texts = [body.inputs.source_sentence, *body.inputs.sentences]
        fields = ["inputs.source_sentence"]
        fields += [f"inputs.sentences[{place}]" for place in range(len(texts) - 1)]
        wanted = body.parameters
        prompt = prompt_of(model, wanted.prompt_name if wanted else None)
        truncation = wanted.truncation if wanted else Truncation.ERROR

        async def run() -> Response:
            with exchange.timed("tokenize"):
                inputs = await self.tokenizing.texts(
                    model, texts, fields=fields, truncation=truncation, prompt=prompt
                )
            work = model.embed(inputs.token_ids, terms=exchange.terms())
            vectors = unit(await exchange.run(work, inputs.names))
            require_finite(vectors, model.card.name, "vector")
            note_compute(exchange, inputs, sum(map(len, texts)))
            return json_response((vectors[1:] @ vectors[0]).tolist())

        return await answered(request, run())

    def _embedder(self, request: Request) -> EmbeddingModel:
        model = self.registry.embedding()
        exchange_of(request.scope).model = model.card.name
        return model

    async def _texts_and_pairs(
        self,
        model: ServedModel,
        items: Sequence[Sequence[str]],
        fields: Sequence[str],
        truncation: Truncation,
    ) -> Inputs:
        """Items of one text or of two, in their order."""
        texts = [place for place, item in enumerate(items) if len(item) == 1]
        pairs = [place for place, item in enumerate(items) if len(item) == 2]
        found: dict[int, tuple[TokenIds, int, int]] = {}
        if texts:
            alone = await self.tokenizing.texts(
                model,
                [items[place][0] for place in texts],
                fields=[fields[place] for place in texts],
                truncation=truncation,
            )
            ends = map(len, alone.token_ids)  # no second text
            found |= zip(texts, zip(alone.token_ids, alone.dropped, ends, strict=True), strict=True)
        if pairs:
            both = await self.tokenizing.pairs(
                model,
                [(items[place][0], items[place][1]) for place in pairs],
                fields=[(f"{fields[place]}[0]", f"{fields[place]}[1]") for place in pairs],
                truncation=truncation,
            )
            seconds = both.second_at or []
            found |= zip(
                pairs, zip(both.token_ids, both.dropped, seconds, strict=True), strict=True
            )
        rows = [found[place] for place in range(len(items))]
        return Inputs(
            [token_ids for token_ids, _, _ in rows],
            [dropped for _, dropped, _ in rows],
            [second_at for _, _, second_at in rows],
            fields,
        )

    async def _inputs(
        self, model: EmbeddingModel, body: EmbedBody | EmbedAllBody, exchange: Exchange
    ) -> Inputs:
        prompt = prompt_of(model, body.prompt_name)
        with exchange.timed("tokenize"):
            return await self.tokenizing.inputs(
                model, body.inputs, field="inputs", truncation=body.truncation, prompt=prompt
            )

    async def _answer(
        self,
        found: Floats | list[Floats],
        inputs: Inputs,
        given: TextInput,
        exchange: Exchange,
    ) -> Response:
        """Rows [N, D], or [T, D] of each input, as JSON."""
        texts = [given] if isinstance(given, str) else given
        note_compute(exchange, inputs, sum(len(text) for text in texts if isinstance(text, str)))
        size = sum(row.size for row in found) * BYTES_PER_NUMBER

        def write() -> Response:
            require_finite(found, exchange.model, "vector")
            return Response(rows_json(found), media_type="application/json")

        return await self.offload.run(size, write)


def items_of(inputs: str | list[str] | list[list[str]]) -> tuple[list[list[str]], bool]:
    """Texts and pairs to predict on, and whether they came as a list of them."""
    if isinstance(inputs, str):
        return [[inputs]], False
    texts = [item for item in inputs if isinstance(item, str)]
    if texts:
        return [texts], False
    return [item for item in inputs if isinstance(item, list)], True


def characters_of(items: list[list[str]]) -> int:
    """Of all texts together."""
    return sum(len(text) for item in items for text in item)
