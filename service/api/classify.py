"""Classification: by a classifier, in the shape of vLLM's `/classify`, or over given labels."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import orjson
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import Response

from export.artifact import Scoring
from service.api import bodies
from service.api.answers.ranking import ClassificationList
from service.api.described import COMPUTES, DescribedRoute, post
from service.api.exchange import Exchange, answered, exchange_of
from service.api.openai_types import (
    STOP_AT_FIRST,
    TRUNCATION,
    Cutting,
    ModelName,
    Priority,
    Texts,
)
from service.api.responses import BYTES_PER_NUMBER, require_finite, told, usage
from service.api.tagging import Tagging, Wanted
from service.engines.pooling import ranked, softmax, unit
from service.entities import Aggregation
from service.errors import InvalidRequest
from service.items import is_texts
from service.messages import Floats, Inputs, Task
from service.offload import Offload
from service.registry import Registry
from service.tokenizing import Tokenizing

ZERO_SHOT_SCALE = 20.0
"""Cosines are multiplied by this before the softmax, as they are when sentence embeddings are
trained to tell a text's match from others (Reimers and Gurevych's MultipleNegativesRankingLoss)."""


MOST_CHARACTERS = 1024
MOST_SCORES = 2**18
"""Inputs times labels of a request: its answer has so many numbers."""


def _require_different(labels: list[str]) -> list[str]:
    twice = next((label for label, count in Counter(labels).items() if count > 1), None)
    if twice is not None:
        raise PydanticCustomError(
            "duplicate_label", "{label} is there twice; labels differ", {"label": repr(twice[:60])}
        )
    return labels


Label = Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS)]


class ClassifyBody(bodies.RequestBody):
    """`POST /v1/classify`. Without a model, the default classifier answers.

    With `labels` of its own it is an embedding model that answers (zero-shot): each label, put into
    `hypothesis_template`, is compared with the text.
    """

    model: ModelName | None = None
    input: Texts = Field(description="Texts, or token ids that are used as they are.")
    labels: (
        Annotated[
            list[Label], STOP_AT_FIRST, Field(min_length=2), AfterValidator(_require_different)
        ]
        | None
    ) = Field(None, description="Classify over these, by an embedding model.")
    hypothesis_template: str | None = Field(
        None,
        max_length=MOST_CHARACTERS,
        description="What is embedded for a label, which stands where {} is; the label alone.",
    )
    top_k: int | None = Field(None, ge=1, description="Also list this many of the likeliest.")
    threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Also list the labels that are at least so likely; 0.5 where several may hold "
        "at once.",
    )
    raw_scores: bool = Field(False, description="The head's own scores, not probabilities.")
    aggregation_strategy: Aggregation | None = Field(
        None,
        description="How a model that labels tokens merges them to entities: none, simple (unless "
        "given), or by words: first, max, average.",
    )
    ignore_labels: Annotated[list[str], STOP_AT_FIRST] | None = Field(
        None, max_length=1024, description="Of entities that are left out; O unless given."
    )
    token_scores: bool | None = Field(None, description="Also list every token, with its scores.")
    truncation: Cutting = TRUNCATION
    priority: Priority = None
    user: str | None = Field(None, description="Accepted, without effect.")


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores [N, C] of each input for each of `labels`, of which several may hold at once if
    `multi_label`."""

    model: str
    labels: Sequence[str]
    scores: Floats
    inputs: Inputs
    tokens: int
    multi_label: bool = False


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
            is_for_tokens = body.labels is None and (
                self.registry.classifier(body.model).card.task is Task.CLASSIFY_TOKENS
            )
            refuse(body, NOT_OF_TOKENS if is_for_tokens else OF_TOKENS)
            if is_for_tokens:
                return await self._entities(body, exchange)
            score = self._by_classifier if body.labels is None else self._by_embeddings
            found = await score(body, exchange)
            size = found.scores.size * BYTES_PER_NUMBER
            content = await self.offload.run(size, self._answer, found, body, exchange)
            return Response(content, media_type="application/json")

        return await answered(request, run())

    async def _entities(self, body: ClassifyBody, exchange: Exchange) -> Response:
        model = self.registry.token_classification(body.model)
        exchange.model = model.card.name
        texts = [body.input] if isinstance(body.input, str) else body.input
        if not is_texts(texts):
            raise InvalidRequest(
                f"input: model {model.card.name!r} tells where in a text its labels are; send "
                "texts, not token ids",
                field="input",
            )
        self.tokenizing.require_count(len(texts), field="input")
        is_single = isinstance(body.input, str)
        fields = ["input"] if is_single else [f"input[{place}]" for place in range(len(texts))]
        wanted = Wanted(
            strategy=body.aggregation_strategy or Aggregation.SIMPLE,
            ignored=("O",) if body.ignore_labels is None else body.ignore_labels,
            threshold=body.threshold or 0.0,
            token_scores=bool(body.token_scores),
            raw=body.raw_scores,
        )
        tagging = Tagging(self.tokenizing, self.offload, self.now)
        terms = exchange.terms(body.priority)
        return await tagging.answer(model, texts, fields, body.truncation, wanted, exchange, terms)

    async def _by_classifier(self, body: ClassifyBody, exchange: Exchange) -> Scored:
        model = self.registry.classification(body.model)
        exchange.model = model.card.name
        card = model.card
        if body.threshold is not None and card.scoring == Scoring.IDENTITY:
            raise InvalidRequest(
                f"threshold is a probability, and model {card.name!r} gives numbers of any range; "
                "leave it out",
                field="threshold",
            )
        with exchange.timed("tokenize"):
            inputs = await self.tokenizing.inputs(
                model, body.input, field="input", truncation=body.truncation
            )
        terms = exchange.terms(body.priority)
        work = model.classify(inputs, raw=body.raw_scores, terms=terms)
        scores = await exchange.run(work, inputs.names)
        multi_label = card.scoring == Scoring.SIGMOID and len(card.labels) > 1
        return Scored(card.name, card.labels, scores, inputs, inputs.tokens, multi_label)

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
                result(index, row, found, dropped, body)
                for index, (row, dropped) in enumerate(rows)
            ],
            "usage": usage(found.tokens),
        }
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


LIKELY = 0.5

OF_TOKENS: Mapping[str, str] = dict.fromkeys(
    ("aggregation_strategy", "ignore_labels", "token_scores"),
    "is for models that label the tokens of a text; this one labels texts",
)
NOT_OF_TOKENS: Mapping[str, str] = {
    "top_k": "is for models that label texts; this one labels tokens, and gives each its likeliest"
}


def refuse(body: ClassifyBody, fields: Mapping[str, str]) -> None:
    """Raises for the first of `fields` that was sent, with the reason."""
    for name, why in fields.items():
        if getattr(body, name) is not None:
            raise InvalidRequest(f"{name} {why}; leave it out", field=name)


def result(
    index: int, row: Floats, found: Scored, dropped: int, body: ClassifyBody
) -> dict[str, Any]:
    """What is said of one input, whose scores are `row` [C].

    Where several labels may hold at once, those that more likely do than not are listed unless the
    request says which.
    """
    labels, threshold = found.labels, body.threshold
    if found.multi_label and threshold is None and body.top_k is None and not body.raw_scores:
        threshold = LIKELY
    said: dict[str, Any] = {
        "index": index,
        "label": labels[int(row.argmax())],
        "scores" if body.raw_scores else "probs": row,
        "num_classes": len(labels),
    }
    if body.top_k is not None or threshold is not None:
        order = ranked(row)[: body.top_k]
        least = -np.inf if threshold is None else threshold
        said["labels"] = [
            {"label": labels[place], "score": float(row[place])}
            for place in order
            if row[place] >= least
        ]
    return said | told(dropped)
