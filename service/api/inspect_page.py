"""`GET /inspect`: the page that shows in a browser what `/v1/inspect` answers.

Built by `make page` of `service/inspection/page/`. It asks its neighbours alone, by relative paths,
so that it works under any prefix.
"""

from starlette.requests import Request
from starlette.responses import Response

from service.api.described import DescribedRoute, get
from service.inspection.single_file import STATIC

HEADERS = {
    # All comes from here. Drawings are made into pictures by way of blob: and data: addresses.
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    # A service of another version has another page.
    "cache-control": "no-cache",
}
FILES = {
    "/inspect": ("page.html", "text/html"),
    "/inspect/page.js": ("page.js", "text/javascript"),
    "/inspect/page.css": ("page.css", "text/css"),
}
"""What is served at which path, and its media type. None of it says anything of this service."""


def inspect_page_routes() -> list[DescribedRoute]:
    """The page and what it is made of."""
    return [file_route(path, name, kind) for path, (name, kind) in FILES.items()]


def file_route(path: str, name: str, media_type: str) -> DescribedRoute:
    """A route that answers with one file."""

    async def page(request: Request) -> Response:
        """A part of the page that shows what goes on inside a model."""
        del request
        return Response((STATIC / name).read_bytes(), media_type=media_type, headers=HEADERS)

    return get(path, page, group="Inspection", answer=str, media_type=media_type)
