"""The application over fake models, and clients of it that need no server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from openai import AsyncOpenAI
from starlette.applications import Starlette
from starlette.types import ASGIApp

from service.app import create_app
from service.messages import ClassificationModel, EmbeddingModel, GenerationModel
from service.metrics import Metrics
from service.registry import Registry
from service.settings import ServiceSettings
from tests.support.fakes import (
    FakeClassificationModel,
    FakeEmbeddingModel,
    FakeGenerationModel,
    FakeRanker,
)

BASE_URL = "http://service.test"
NOW_S = 1_750_000_000.0


def served(
    *,
    embedder: EmbeddingModel | None = None,
    classifier: ClassificationModel | None = None,
    ranker: FakeRanker | None = None,
    generator: GenerationModel | None = None,
    ready: bool = True,
    metrics: Metrics | None = None,
    **settings: Any,
) -> Starlette:
    """The application over one fake model of each task, unless others are given."""
    registry = Registry()
    registry.add_embedding(embedder or FakeEmbeddingModel())
    registry.add_classification(classifier or FakeClassificationModel())
    if ranker is not None:
        registry.add_classification(ranker)
    registry.add_generation(generator or FakeGenerationModel())
    registry.ready = ready
    return create_app(
        registry, ServiceSettings(**settings), metrics or Metrics(), now=lambda: NOW_S
    )


@asynccontextmanager
async def client_of(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    """A client that calls `app` in place, within the lifetime of its resources."""
    async with app.router.lifespan_context(app), in_place(app) as client:
        yield client


@asynccontextmanager
async def openai_of(app: Starlette) -> AsyncIterator[AsyncOpenAI]:
    """OpenAI's client over `app`, in place; it doesn't try again."""
    async with client_of(app) as client:
        # Its newest versions are typed for httpx2 alone, and take httpx as before.
        transport: Any = client
        yield AsyncOpenAI(
            api_key="unused", base_url=f"{BASE_URL}/v1", http_client=transport, max_retries=0
        )


async def document_of(app: Starlette) -> dict[str, Any]:
    """What `app` says of itself in `/openapi.json`."""
    async with in_place(app) as client:
        return (await client.get("/openapi.json")).raise_for_status().json()


def in_place(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url=BASE_URL
    )
