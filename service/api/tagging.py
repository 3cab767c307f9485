"""Classification of tokens: the entities of each text, and on request the scores of its tokens."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from starlette.responses import Response

from model_core.tokenization import Span
from service.api.exchange import Exchange
from service.api.responses import BYTES_PER_NUMBER, require_finite, told, usage
from service.entities import Aggregation, entities_of
from service.errors import InvalidRequest
from service.messages import Floats, Terms, TokenClassificationModel, Truncation
from service.offload import Offload
from service.tokenizing import Tokenizing

MOST_TOKEN_SCORES = 2**20
"""Tokens times labels of an answer that has the scores of every token, 12 MB of JSON."""
BYTES_PER_TOKEN = 256
"""About what merging a token and writing its entity take, counted as bytes of JSON."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is told of each text.

    Entities below `threshold` are left out, as those of `ignored` labels are; `raw` are the scores
    of tokens that the model's head gives, not their probabilities.
    """

    strategy: Aggregation
    ignored: Collection[str]
    threshold: float
    token_scores: bool
    raw: bool


@dataclass(frozen=True, slots=True)
class Tagging:
    """Finds entities. `now` gives the time of day, in seconds."""

    tokenizing: Tokenizing
    offload: Offload
    now: Callable[[], float]

    async def answer(
        self,
        model: TokenClassificationModel,
        texts: Sequence[str],
        fields: Sequence[str],
        truncation: Truncation,
        wanted: Wanted,
        exchange: Exchange,
        terms: Terms,
    ) -> Response:
        """The entities of `texts`, which `fields` name. Raises `InvalidRequest`."""
        with exchange.timed("tokenize"):
            read = await self.tokenizing.spans(model, texts, fields=fields, truncation=truncation)
        tokens, labels = read.inputs.tokens, model.card.labels
        if wanted.token_scores and tokens * len(labels) > MOST_TOKEN_SCORES:
            raise InvalidRequest(
                f"token_scores: {tokens} tokens with {len(labels)} labels are "
                f"{tokens * len(labels)} scores; at most {MOST_TOKEN_SCORES} are given in one "
                "answer",
                field="token_scores",
            )
        work = model.classify_tokens(read.inputs, terms=terms)
        scores = await exchange.run(work, read.inputs.names)

        def write() -> bytes:
            probabilities = [model.probabilities(rows) for rows in scores]
            require_finite(probabilities, model.card.name, "score")
            shown = scores if wanted.raw else probabilities
            rows = zip(texts, read.spans, probabilities, shown, read.inputs.dropped, strict=True)
            data = [
                {
                    "index": index,
                    **item(text, spans, sure, told_of, labels, wanted),
                    **told(dropped),
                }
                for index, (text, spans, sure, told_of, dropped) in enumerate(rows)
            ]
            answer: dict[str, Any] = {
                "id": f"classify-{exchange.request_id}",
                "object": "list",
                "created": int(self.now()),
                "model": model.card.name,
                "data": data,
                "usage": usage(tokens),
            }
            if wanted.token_scores:
                answer["labels"] = labels
            return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)

        size = tokens * (BYTES_PER_TOKEN + len(labels) * BYTES_PER_NUMBER)
        return Response(await self.offload.run(size, write), media_type="application/json")


def item(
    text: str,
    spans: Sequence[Span],
    probabilities: Floats,
    shown: Floats,
    labels: Sequence[str],
    wanted: Wanted,
) -> dict[str, Any]:
    """What is told of one text: places are characters of it, Unicode code points from 0 on.

    Tokens come with the scores that are `shown`.
    """
    entities = entities_of(spans, probabilities, labels, wanted.strategy, wanted.ignored)
    said: dict[str, Any] = {
        "entities": [
            {
                "label": entity.label,
                "score": entity.score,
                "text": text[entity.start : entity.stop],
                "start": entity.start,
                "end": entity.stop,
            }
            for entity in entities
            if entity.score >= wanted.threshold
        ]
    }
    if wanted.token_scores:
        said["tokens"] = [
            {
                "text": text[span.start : span.stop],
                "start": span.start,
                "end": span.stop,
                "scores" if wanted.raw else "probs": np.ascontiguousarray(row),
            }
            for span, row in zip(spans, shown, strict=True)
            if span.start is not None
        ]
    return said
