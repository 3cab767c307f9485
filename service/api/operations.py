"""What operators ask: alive, ready, what is served and how, the metrics."""

import asyncio
from dataclasses import dataclass, fields
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from service.api.answers.operations import Alive, Index, Info, Ready
from service.api.described import DescribedRoute, get
from service.api.responses import json_response
from service.api.tei_info import tei_info
from service.errors import NotReady
from service.messages import ModelCard
from service.metrics import Metrics
from service.registry import Registry
from service.settings import ServiceSettings

# What a client needs to know before it is refused.
SHOWN_LIMITS = ("max_body_bytes", "max_inputs", "max_choices", "max_bytes_per_token")


@dataclass(frozen=True, slots=True)
class Operations:
    """Handlers of the routes that name no model."""

    registry: Registry
    settings: ServiceSettings
    metrics: Metrics

    def routes(self) -> list[DescribedRoute]:
        """The routes that operators ask."""
        group = "Operations"
        return [
            get("/", self.index, group=group, answer=Index),
            get("/health", self.health, group=group, answer=Alive),
            get("/ready", self.ready, group=group, answer=Ready, raises=(NotReady,)),
            get("/info", self.info, group=group, answer=Info),
            get("/metrics", self.prometheus, group=group, answer=str, media_type="text/plain"),
        ]

    async def index(self, request: Request) -> Response:
        """`GET /`: what this is."""
        del request
        models = {card.name: card.task for card in self.registry.cards()}
        return json_response({"name": "anatomy", "ready": self.registry.ready, "models": models})

    async def health(self, request: Request) -> Response:
        """`GET /health`: the process answers; says nothing of its models."""
        del request
        return json_response({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        """`GET /ready`: 200 when every model answers, 503 before and while stopping.

        What is being loaded beside them is named.
        """
        del request
        self.registry.require_ready()
        loading = sorted(self.registry.loading)
        return json_response({"status": "ready", **({"loading": loading} if loading else {})})

    async def info(self, request: Request) -> Response:
        """`GET /info`: the served models, where they run and why there, and the limits."""
        del request
        limits = {name: getattr(self.settings, name) for name in SHOWN_LIMITS}
        cards = self.registry.cards()
        told: dict[str, Any] = {
            "ready": self.registry.ready,
            "models": [_info(card) for card in cards],
            "limits": limits,
        }
        if cards:
            told.update(tei_info(cards[0], self.settings))
        return json_response(told)

    async def prometheus(self, request: Request) -> Response:
        """`GET /metrics`: every metric, in Prometheus' text format."""
        del request
        page = await asyncio.to_thread(self.metrics.exposition)
        return Response(page, headers={"content-type": self.metrics.content_type})


def _info(card: ModelCard) -> dict[str, Any]:
    told = {field.name: getattr(card, field.name) for field in fields(card)}
    told["generation"] = card.generation.model_dump(exclude_defaults=True)
    return {name: value for name, value in told.items() if value not in (None, "", (), {})}
