"""Classification in the shape of vLLM's `/classify`."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import orjson
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.api import bodies
from service.api.exchange import exchange_of, unless_disconnected
from service.api.openai_types import ModelName, Texts
from service.api.responses import BYTES_PER_NUMBER
from service.errors import EngineFailure
from service.offload import Offload
from service.registry import Registry
from service.tokenizing import Tokenizing


class ClassifyBody(bodies.RequestBody):
    """`POST /v1/classify`. Without a model, the default classifier answers."""

    model: ModelName | None = None
    input: Texts = Field(description="Texts, or token ids that are used as they are.")
    user: str | None = Field(None, description="Accepted, without effect.")


@dataclass(frozen=True, slots=True)
class Classify:
    """Handler of the classification routes. `now` gives the time of day, in seconds."""

    registry: Registry
    tokenizing: Tokenizing
    offload: Offload
    limits: bodies.BodyLimits
    now: Callable[[], float]

    def routes(self) -> list[Route]:
        """The routes that this dialect answers."""
        return [
            Route(path, self.classify, methods=["POST"]) for path in ("/v1/classify", "/classify")
        ]

    async def classify(self, request: Request) -> Response:
        """The likeliest label of each input, with the probabilities of all."""
        body = await bodies.read(request, ClassifyBody, self.limits)
        model = self.registry.classification(body.model)
        card, exchange = model.card, exchange_of(request.scope)
        exchange.model = card.name

        async def run() -> Response:
            inputs = await self.tokenizing.inputs(model, body.input, field="input")
            scores = await model.classify(inputs)
            tokens = sum(map(len, inputs))

            def write() -> bytes:
                if not np.isfinite(scores).all():
                    raise EngineFailure(f"model {card.name!r} gave a score that is not finite")
                data = [
                    {
                        "index": index,
                        "label": card.labels[int(row.argmax())],
                        "probs": row,
                        "num_classes": len(card.labels),
                    }
                    for index, row in enumerate(np.ascontiguousarray(scores))
                ]
                answer = {
                    "id": f"classify-{exchange.request_id}",
                    "object": "list",
                    "created": int(self.now()),
                    "model": card.name,
                    "data": data,
                    "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
                }
                return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)

            content = await self.offload.run(scores.size * BYTES_PER_NUMBER, write)
            return Response(content, media_type="application/json")

        return await unless_disconnected(request.receive, run())
