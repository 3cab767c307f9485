"""`/openapi.json`, and `/docs`: a page that reads it. Nothing of the page comes from elsewhere."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from service.api.described import DescribedRoute, get
from service.api.openapi import OpenApi
from service.api.responses import json_response
from service.offload import Offload
from service.registry import Registry

PAGE = files("service") / "web" / "docs.html"
PAGE_HEADERS = {
    # The page runs what stands in it, and asks this service alone.
    "content-security-policy": "default-src 'none'; connect-src 'self'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}


class Documentation:
    """Handlers of the two routes, over `others`, all other routes of the application."""

    def __init__(
        self,
        registry: Registry,
        offload: Offload,
        others: Sequence[DescribedRoute],
        *,
        with_keys: bool,
    ) -> None:
        self._registry = registry
        self._offload = offload
        self._openapi = OpenApi([*others, *self.routes()], with_keys)

    def routes(self) -> list[DescribedRoute]:
        """The routes that tell of all others, and of themselves."""
        group = "Operations"
        return [
            get("/openapi.json", self.openapi, group=group, answer=dict[str, Any]),
            get("/docs", self.page, group=group, answer=str, media_type="text/html"),
        ]

    async def openapi(self, request: Request) -> Response:
        """`GET /openapi.json`: every route, in OpenAPI 3.1."""
        server = request.scope.get("app_root_path") or request.scope.get("root_path") or "/"
        # The first one takes a tenth of a second: the types are read.
        write = self._offload.apart(self._openapi.document, self._registry.cards(), server=server)
        return json_response(await write)

    async def page(self, request: Request) -> Response:
        """`GET /docs`: the same, to read and to try out."""
        del request
        return Response(PAGE.read_bytes(), media_type="text/html", headers=PAGE_HEADERS)
