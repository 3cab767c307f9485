"""A real service over models of each kind, and Debian's Chromium, one of each for all tests here.

Every test of this folder runs on one event loop: the browser's connection belongs to it.
"""

import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, Request, async_playwright, expect

from export.artifact import Artifact
from export.catalogue import find_inspection, inspection_folder
from export.inspection.pipeline import export_inspection
from service.plain import build_app
from service.settings import ServiceSettings
from tests.support.reports import silent
from tests.support.servers import running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
TIMEOUT_MS = 30_000
"""For machines that do much else: nothing here measures time."""
LOADING_TIMEOUT_S = 120.0
"""Models are loaded while the server starts."""
TEXT = "time flies like an arrow"

expect.set_options(timeout=TIMEOUT_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="session")
def settings(
    folders: tuple[Path, list[Path]], minilm_artifact: Artifact, model_cache: Path
) -> ServiceSettings:
    """Of a service with minilm and a tiny model of each kind, all of which may be looked into."""
    cache, models = folders
    graph = find_inspection(minilm_artifact, model_cache)
    if graph is None:
        graph = export_inspection(minilm_artifact, model_cache, silent)
    here = inspection_folder(minilm_artifact, cache)
    if not here.exists():
        here.symlink_to(graph)
    return ServiceSettings(
        models=(str(minilm_artifact.folder), *map(str, models)), cache_folder=cache, threads=1,
        slots=2, inspect=True, max_context=64,
    )  # fmt: skip


@pytest.fixture(scope="session")
def service(settings: ServiceSettings) -> Iterator[str]:
    """The address of a service that is ready."""
    with running(build_app(settings), start_timeout_s=LOADING_TIMEOUT_S) as url:
        wait_until_ready(url)
        yield url


def wait_until_ready(url: str) -> None:
    """Models load while the server runs."""
    with httpx.Client(timeout=60) as client:
        for _ in range(600):
            if client.get(f"{url}/ready").status_code == 200:
                return
            time.sleep(0.1)
    raise RuntimeError("the service did not become ready")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed; `make setup-tools` brings it")
    async with async_playwright() as playwright:
        # As root, which it is in containers, Chromium has no sandbox of its own.
        found = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        await found.close()


@dataclass(slots=True)
class Visit:
    """A page in a browser, and what went wrong in it: nothing must."""

    page: Page
    context: BrowserContext
    service: str
    complaints: list[str] = field(default_factory=list[str])
    requests: list[str] = field(default_factory=list[str])

    async def look(self, model: str, **state: Any) -> Page:
        """Open the permalink of a state, and wait until what it shows has come."""
        await self.page.goto(link(self.service, model, **state))
        await self.settled()
        return self.page

    async def settled(self) -> None:
        """Until nothing on the page waits."""
        await expect(self.page.locator(".stage > *").first).to_be_visible()
        # What is looked into waits for those who are served, and for whatever else runs here.
        busy = self.page.locator("[aria-busy=true]")
        await expect(busy).to_have_count(0, timeout=LOADING_TIMEOUT_S * 1000)

    async def ask(self, **body: Any) -> dict[str, Any]:
        """The same of the service itself, in JSON."""
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{self.service}/v1/inspect", json=body, timeout=60)
            return answer.raise_for_status().json()


def link(service: str, model: str, **state: Any) -> str:
    """A permalink."""
    return f"{service}/inspect#{urlencode({'model': model, **state})}"


Visiting = Callable[..., Awaitable[Visit]]


@pytest_asyncio.fixture(loop_scope="session")
async def visiting(browser: Browser, service: str) -> AsyncIterator[Visiting]:
    """Opens pages, and fails the test for whatever they complain of or ask others for."""
    visits: list[Visit] = []

    async def visit(at: str = service, **options: Any) -> Visit:
        context = await browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", **options}
        )
        context.set_default_timeout(TIMEOUT_MS)
        page = await context.new_page()
        found = Visit(page, context, at)
        page.on("pageerror", lambda error: found.complaints.append(str(error)))
        page.on("console", lambda said: found.complaints.append(said.text)
                if said.type in ("error", "warning") else None)  # fmt: skip
        page.on("request", lambda request: requested(found, request))
        visits.append(found)
        return found

    yield visit
    for one in visits:
        await one.context.close()
    assert [one.complaints for one in visits if one.complaints] == []


def requested(visit: Visit, request: Request) -> None:
    """Notes a request; one that leaves the loopback is a complaint."""
    address = urlsplit(request.url)
    visit.requests.append(request.url)
    if address.scheme not in ("data", "blob", "file") and address.hostname != "127.0.0.1":
        visit.complaints.append(f"asked {request.url}")


@pytest_asyncio.fixture(loop_scope="session")
async def visit(visiting: Visiting) -> Visit:
    return await visiting()
