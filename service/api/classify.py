"""Classification: by a classifier, in the shape of vLLM's `/classify`, or over given labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import orjson
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from service.api import bodies
from service.api.answers.ranking import ClassificationList
from service.api.described import COMPUTES, DescribedRoute, post
from service.api.exchange import Exchange, answered, exchange_of
from service.api.openai_types import STOP_AT_FIRST, TRUNCATION, ModelName, Priority, Texts
from service.api.responses import BYTES_PER_NUMBER, require_finite, told, usage
from service.engines.pooling import ranked, softmax, unit
from service.errors import InvalidRequest
from service.messages import Floats, Inputs, Task, Truncation
from service.offload import Offload
from service.registry import Registry
from service.tokenizing import Tokenizing

ZERO_SHOT_SCALE = 20.0
"""Cosines are multiplied by this before the softmax, as they are when sentence embeddings are
trained to tell a text's match from others (Reimers and Gurevych's MultipleNegativesRankingLoss)."""


MOST_CHARACTERS = 1024
MOST_SCORES = 2**18
"""Inputs times labels of a request: its answer has so many numbers."""
Label = Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS)]


class ClassifyBody(bodies.RequestBody):
    """`POST /v1/classify`. Without a model, the default classifier answers.

    With `labels` of its own it is an embedding model that answers (zero-shot): each label, put into
    `hypothesis_template`, is compared with the text.
    """

    model: ModelName | None = None
    input: Texts = Field(description="Texts, or token ids that are used as they are.")
    labels: Annotated[list[Label], STOP_AT_FIRST] | None = Field(
        None, min_length=2, description="Classify over these, by an embedding model."
    )
    hypothesis_template: str | None = Field(
        None,
        max_length=MOST_CHARACTERS,
        description="What is embedded for a label, which stands where {} is; the label alone.",
    )
    top_k: int | None = Field(None, ge=1, description="Also list this many of the likeliest.")
    threshold: float | None = Field(
        None, ge=0, le=1, description="Also list the labels that are at least so likely."
    )
    raw_scores: bool = Field(False, description="The head's own scores, not probabilities.")
    truncation: Truncation = TRUNCATION
    priority: Priority = None
    user: str | None = Field(None, description="Accepted, without effect.")


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores [N, C] of each input for each of `labels`."""

    model: str
    labels: Sequence[str]
    scores: Floats
    inputs: Inputs
    tokens: int


@dataclass(frozen=True, slots=True)
class Classify:
    """Handler of the classification routes. `now` gives the time of day, in seconds."""

    registry: Registry
    tokenizing: Tokenizing
    offload: Offload
    limits: bodies.BodyLimits
    now: Callable[[], float]

    def routes(self) -> list[DescribedRoute]:
        """The routes that this dialect answers."""
        return [
            post(
                path,
                self.classify,
                group="Classification and ranking",
                body=ClassifyBody,
                answer=ClassificationList,
                raises=COMPUTES,
                task=Task.CLASSIFY,
                example={"input": "a domesticated animal that barks"},
            )
            for path in ("/v1/classify", "/classify")
        ]

    async def classify(self, request: Request) -> Response:
        """The likeliest label of each input, with the probabilities of all."""
        body = await bodies.read(request, ClassifyBody, self.limits)
        exchange = exchange_of(request.scope)
        if body.raw_scores and body.threshold is not None:
            raise InvalidRequest(
                "threshold is a probability; leave out raw_scores, or threshold", field="threshold"
            )

        if body.hypothesis_template is not None and body.labels is None:
            raise InvalidRequest(
                "hypothesis_template is for labels of the request's own; send labels too, or "
                "leave it out",
                field="hypothesis_template",
            )

        async def run() -> Response:
            score = self._by_classifier if body.labels is None else self._by_embeddings
            found = await score(body, exchange)
            size = found.scores.size * BYTES_PER_NUMBER
            content = await self.offload.run(size, self._answer, found, body, exchange)
            return Response(content, media_type="application/json")

        return await answered(request, run())

    async def _by_classifier(self, body: ClassifyBody, exchange: Exchange) -> Scored:
        model = self.registry.classification(body.model)
        exchange.model = model.card.name
        with exchange.timed("tokenize"):
            inputs = await self.tokenizing.inputs(
                model, body.input, field="input", truncation=body.truncation
            )
        terms = exchange.terms(body.priority)
        work = model.classify(inputs, raw=body.raw_scores, terms=terms)
        scores = await exchange.run(work, inputs.names)
        return Scored(model.card.name, model.card.labels, scores, inputs, inputs.tokens)

    async def _by_embeddings(self, body: ClassifyBody, exchange: Exchange) -> Scored:
        model, labels = self.registry.embedding(body.model), body.labels or []
        exchange.model = model.card.name
        template = "{}" if body.hypothesis_template is None else body.hypothesis_template
        if template.count("{}") != 1:
            raise InvalidRequest(
                f"hypothesis_template: {template[:60]!r} is not accepted; it has {{}} once, where "
                "the label goes",
                field="hypothesis_template",
            )
        self.tokenizing.require_count(len(labels), field="labels")
        hypotheses = [template.replace("{}", label) for label in labels]
        with exchange.timed("tokenize"):
            inputs = await self.tokenizing.inputs(
                model, body.input, field="input", truncation=body.truncation
            )
            count = len(inputs.token_ids)
            if count * len(labels) > MOST_SCORES:
                raise InvalidRequest(
                    f"{count} inputs with {len(labels)} labels are {count * len(labels)} scores; "
                    f"at most {MOST_SCORES} are given in one answer",
                    field="labels",
                )
            others = await self.tokenizing.inputs(model, hypotheses, field="labels")
        texts, terms = [*inputs.token_ids, *others.token_ids], exchange.terms(body.priority)
        work = model.embed(texts, terms=terms)
        found = await exchange.run(work, [*inputs.names, *others.names])
        vectors = unit(found)
        cosines = vectors[:count] @ vectors[count:].T
        scores = cosines if body.raw_scores else softmax(ZERO_SHOT_SCALE * cosines)
        return Scored(model.card.name, labels, scores, inputs, inputs.tokens + others.tokens)

    def _answer(self, found: Scored, body: ClassifyBody, exchange: Exchange) -> bytes:
        require_finite(found.scores, found.model, "score")
        rows = zip(np.ascontiguousarray(found.scores), found.inputs.dropped, strict=True)
        answer = {
            "id": f"classify-{exchange.request_id}",
            "object": "list",
            "created": int(self.now()),
            "model": found.model,
            "data": [
                result(index, row, found.labels, dropped, body)
                for index, (row, dropped) in enumerate(rows)
            ],
            "usage": usage(found.tokens),
        }
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def result(
    index: int, row: Floats, labels: Sequence[str], dropped: int, body: ClassifyBody
) -> dict[str, Any]:
    """What is said of one input, whose scores are `row` [C]."""
    said: dict[str, Any] = {
        "index": index,
        "label": labels[int(row.argmax())],
        "scores" if body.raw_scores else "probs": row,
        "num_classes": len(labels),
    }
    if body.top_k is not None or body.threshold is not None:
        order = ranked(row)[: body.top_k]
        least = -np.inf if body.threshold is None else body.threshold
        said["labels"] = [
            {"label": labels[place], "score": float(row[place])}
            for place in order
            if row[place] >= least
        ]
    return said | told(dropped)
