"""OpenAI's dialect: its routes, and its models and embeddings. Generation has its own file."""

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from starlette.requests import Request
from starlette.responses import Response

from service.api import bodies
from service.api.answers.openai import (
    ChatCompletion,
    ChatCompletionEvent,
    Completion,
    CompletionEvent,
    EmbeddingList,
    ModelList,
    ModelObject,
)
from service.api.described import COMPUTES, LOOKS_UP, DescribedRoute, get, post
from service.api.exchange import answered, exchange_of
from service.api.openai_generation import OpenAIGeneration
from service.api.openai_types import ChatBody, CompletionsBody, EmbeddingsBody
from service.api.responses import BYTES_PER_NUMBER, json_response, require_finite, told, usage
from service.engines.pooling import unit
from service.errors import InvalidRequest, NotReady
from service.messages import Floats, Inputs, ModelCard, Task
from service.offload import Offload
from service.registry import Registry
from service.tokenizing import Tokenizing


@dataclass(frozen=True, slots=True)
class OpenAI:
    """Handlers of OpenAI's routes over the models of a registry."""

    registry: Registry
    tokenizing: Tokenizing
    offload: Offload
    limits: bodies.BodyLimits
    generation: OpenAIGeneration

    def routes(self) -> list[DescribedRoute]:
        """The routes that this dialect answers."""
        group = "OpenAI"
        return [
            get("/v1/models", self.models, group=group, answer=ModelList, raises=(NotReady,)),
            get(
                "/v1/models/{name:path}",
                self.model,
                group=group,
                answer=ModelObject,
                raises=LOOKS_UP,
            ),
            post(
                "/v1/embeddings",
                self.embeddings,
                group=group,
                body=EmbeddingsBody,
                answer=EmbeddingList,
                raises=COMPUTES,
                task=Task.EMBED,
                example={"input": ["time flies", "like an arrow"]},
            ),
            post(
                "/v1/completions",
                self.generation.completions,
                group=group,
                body=CompletionsBody,
                answer=Completion,
                events=CompletionEvent,
                raises=COMPUTES,
                task=Task.GENERATE,
                example={"prompt": "Time flies", "max_tokens": 16},
            ),
            post(
                "/v1/chat/completions",
                self.generation.chat,
                group=group,
                body=ChatBody,
                answer=ChatCompletion,
                events=ChatCompletionEvent,
                raises=COMPUTES,
                task=Task.GENERATE,
                example={
                    "messages": [{"role": "user", "content": "What does time do?"}],
                    "max_tokens": 16,
                },
            ),
        ]

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`: every served model."""
        del request
        self.registry.require_ready()
        data = [model_object(card) for card in self.registry.cards()]
        return json_response({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/{name}`: one served model."""
        return json_response(model_object(self.registry.card(request.path_params["name"])))

    async def embeddings(self, request: Request) -> Response:
        """`POST /v1/embeddings`: a vector for each input."""
        body = await bodies.read(request, EmbeddingsBody, self.limits)
        model, exchange = self.registry.embedding(body.model), exchange_of(request.scope)
        exchange.model = model.card.name
        width = model.card.embedding_dim
        if body.dimensions is not None and width is not None and body.dimensions > width:
            raise InvalidRequest(
                f"dimensions: {body.dimensions} is not accepted; model {body.model!r} has {width}",
                field="dimensions",
            )

        async def run() -> Response:
            with exchange.timed("tokenize"):
                inputs = await self.tokenizing.inputs(
                    model, body.input, field="input", truncation=body.truncation
                )
            terms = exchange.terms(body.priority)
            vectors = await exchange.run(model.embed(inputs.token_ids, terms=terms), inputs.names)
            size = len(vectors) * (body.dimensions or vectors.shape[1]) * BYTES_PER_NUMBER
            content = await self.offload.run(
                size, embeddings_json, vectors, body=body, inputs=inputs
            )
            return Response(content, media_type="application/json")

        return await answered(request, run())


def embeddings_json(vectors: Floats, *, body: EmbeddingsBody, inputs: Inputs) -> bytes:
    """The answer's JSON for `vectors` [N, D]. Raises `EngineFailure` unless all are finite."""
    if body.dimensions is not None:
        vectors = unit(vectors[:, : body.dimensions])
    require_finite(vectors, body.model, "vector")
    vectors = np.ascontiguousarray(vectors, dtype="<f4")
    # orjson keeps the interpreter's lock while it writes: a row at a time lets the event loop in.
    rows = (
        b'{"object":"embedding","index":%d,"embedding":%b%b}'
        % (index, _vector_json(vector, body.encoding_format), _dropped_json(dropped))
        for index, (vector, dropped) in enumerate(zip(vectors, inputs.dropped, strict=True))
    )
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (
        b",".join(rows),
        orjson.dumps(body.model),
        orjson.dumps(usage(inputs.tokens)),
    )


def _dropped_json(dropped: int) -> bytes:
    """What is said of a text that was cut; nothing of one that wasn't, as clients expect."""
    return b"," + orjson.dumps(told(dropped))[1:-1] if dropped else b""


def _vector_json(vector: Floats, encoding_format: str) -> bytes:
    if encoding_format == "base64":
        return b'"%b"' % base64.b64encode(vector.tobytes())
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)


def model_object(card: ModelCard) -> dict[str, Any]:
    """OpenAI's model object, with what this service adds to it."""
    return {
        "id": card.name,
        "object": "model",
        "created": card.created,
        "owned_by": "anatomy",
        "task": card.task,
        "max_model_len": card.max_tokens,
    }
