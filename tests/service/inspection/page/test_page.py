"""The page itself: its address, its looks, what it can be saved as, and what it says in trouble."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest
from playwright.async_api import Page, expect

from service.api.keys import digest_of, new_key
from service.plain import UnderPrefix, build_app
from service.settings import ServiceSettings
from tests.service.inspection.page.conftest import (
    LOADING_TIMEOUT_S,
    TEXT,
    Visit,
    Visiting,
    link,
    wait_until_ready,
)
from tests.support.servers import running

ROOT = Path(__file__).parents[4]
AXE = ROOT / "service" / "inspection" / "page" / "node_modules" / "axe-core" / "axe.min.js"
VIEWS = ("model", "head", "neuron")
SVG = "{http://www.w3.org/2000/svg}"


def chosen_of(page: Page) -> str:
    return page.url.partition("#")[2]


async def test_a_permalink_leads_back_to_what_was_seen(visiting: Visiting) -> None:
    text = 'time "flies" & <like> 100% + #an\u3042row'
    first = await visiting()
    page = await first.look("minilm", text=text, view="head", layer=2, heads="1.4")
    await page.locator(".column.queries .token").nth(3).click()
    await page.locator("#least").fill("0.1")
    await page.mouse.move(0, 0)
    await expect(page).to_have_url(re.compile("least=0.1"))
    shown = await page.locator("#view").inner_html()

    second = await visiting()
    await second.page.goto(page.url)
    await second.settled()
    await expect(second.page.locator("#text")).to_have_value(text)
    assert await second.page.locator("#view").inner_html() == shown
    assert chosen_of(second.page) == chosen_of(page)


async def test_back_and_forward_go_through_what_was_seen(visit: Visit) -> None:
    page = await visit.look("minilm", view="head", layer=0, heads=0)
    await page.get_by_role("button", name="Layer: next").click()
    await page.get_by_role("button", name="Head 5").click()
    await page.get_by_role("tab", name="Neurons").click()
    await visit.settled()
    await page.go_back()
    await page.go_back()
    await visit.settled()
    assert chosen_of(page) == "model=minilm&layer=1"
    pressed = page.locator(".chip[aria-pressed=true]")
    await expect(pressed).to_have_text("0")
    await page.go_forward()
    await expect(pressed).to_have_text("5")


async def test_another_text_and_model_are_looked_into(visit: Visit) -> None:
    page = await visit.look("minilm", view="head", layer=5, heads=11)
    await page.locator("#text").fill("fruit flies")
    await page.locator("#text").press("Enter")
    await expect(page.locator(".column.keys .token .label")).to_have_text(
        ["[CLS]", "fruit", "flies", "[SEP]"]
    )
    # This one has fewer layers and heads: the last of them is shown.
    await page.locator("#model").select_option("classifier")
    await visit.settled()
    await expect(page.locator("#layer")).to_have_value("1")
    await expect(page.locator(".chip[aria-pressed=true]")).to_have_count(1)


async def test_what_is_no_state_is_as_at_first(visit: Visit) -> None:
    page = await visit.look("minilm", view="nonsense", layer="-1", heads="x", theme="pink", least=7)
    await expect(page.get_by_role("tab", name="Head", exact=True)).to_have_attribute(
        "aria-selected", "true"
    )
    await expect(page.locator("#layer")).to_have_value("0")


async def test_an_address_has_whole_layers_and_no_more_heads_than_colours(visit: Visit) -> None:
    heads = ".".join(map(str, range(12)))
    page = await visit.look("minilm", view="head", layer=1.5, heads=heads)
    await expect(page.locator("#layer")).to_have_value("0")
    await expect(page.locator(".chip[aria-pressed=true]")).to_have_count(8)
    await expect(page.locator(".column.queries .token")).to_have_count(7)


async def test_what_xml_has_no_way_to_write_is_saved_too(visit: Visit, tmp_path: Path) -> None:
    page = await visit.look("writer", text="a\x01\x1b\uffffb", view="compare")
    drawing = ElementTree.parse(await saved(page, "svg", tmp_path))
    texts = [one.text for one in drawing.iter(f"{SVG}text")]
    assert "writer · a\ufffd\ufffd\ufffdb" in texts
    assert (await saved(page, "png", tmp_path)).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("view", VIEWS)
async def test_a_view_is_saved_as_drawing_picture_and_numbers(
    visit: Visit, visiting: Visiting, tmp_path: Path, view: str
) -> None:
    page = await visit.look("minilm", view=view, layer=1, heads=3)
    files = {kind: await saved(page, kind, tmp_path) for kind in ("svg", "png", "json")}

    drawing = ElementTree.parse(files["svg"]).getroot()
    assert drawing.tag == f"{SVG}svg"
    texts = [element.text for element in drawing.iter(f"{SVG}text")]
    tokens = set(TEXT.split())
    assert view == "model" or tokens <= set(texts)
    assert next(drawing.iter(f"{SVG}{'path' if view == 'head' else 'image'}")) is not None
    reader = (await visiting()).page
    await reader.goto(files["svg"].as_uri())
    assert await reader.evaluate("document.documentElement.tagName") == "svg"
    await reader.goto(files["png"].as_uri())
    size = await reader.evaluate("[document.images[0].naturalWidth, document.images[0].height]")
    assert size[0] == 2 * int(drawing.attrib["width"])

    told = json.loads(files["json"].read_text())
    assert told["state"]["text"] == TEXT
    shown = told["shown"]
    assert (len(shown) == 72) if view == "model" else (shown["keys"][1] == "time")


async def saved(page: Page, kind: str, folder: Path) -> Path:
    """Save through the menu what is shown."""
    menu = page.locator(".menu")
    if await menu.get_attribute("open") is None:
        await menu.locator("summary").click()
    async with page.expect_download() as download:
        await page.locator(f"#save-{kind}").click()
    file = await download.value
    path = folder / file.suggested_filename
    await file.save_as(path)
    return path


async def test_the_page_in_one_file_needs_no_service(
    visit: Visit, visiting: Visiting, tmp_path: Path
) -> None:
    text = 'time </script> <flies> "like" \\ an\u3042row'
    page = await visit.look("minilm", text=text, view="neuron", layer=1, heads=3, query=2)
    numbers = await page.locator(".neuron-table").inner_text()
    file = await saved(page, "html", tmp_path)

    reader = await visiting(offline=True)
    await reader.page.goto(file.as_uri())
    await reader.settled()
    assert await reader.page.locator(".neuron-table").inner_text() == numbers
    for tab in ("All heads", "Head", "Neurons"):
        await reader.page.get_by_role("tab", name=tab, exact=True).click()
        await reader.settled()
    # Every layer and head lies in it, and it can be saved again.
    await reader.page.locator("#layer").select_option("5")
    await reader.page.get_by_role("button", name="Head 11").click()
    await reader.settled()
    await expect(reader.page.locator(".trouble")).to_be_hidden()
    await expect(reader.page.locator(".neuron-table tbody tr").first).to_be_visible()
    again = await saved(reader.page, "html", tmp_path)
    third = await visiting(offline=True)
    await third.page.goto(again.as_uri())
    await third.settled()
    await expect(third.page.locator(".chip[aria-pressed=true]")).to_have_text("11")
    assert [one for one in reader.requests if not one.startswith(("file:", "data:", "blob:"))] == []


@pytest.fixture(scope="session")
def axe() -> str:
    """What checks a page for those who can't see it, or can't see it well."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed; `make check-page` brings it")
    return AXE.read_text()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_nothing_serious(visit: Visit, axe: str, view: str, theme: str) -> None:
    page = await visit.look("writer", text="Time flies", view=view, theme=theme)
    await page.evaluate(axe)
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    serious = [
        (one["id"], [node["html"][:120] for node in one["nodes"][:3]])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []


async def test_everything_is_reached_by_keyboard(visit: Visit) -> None:
    page = await visit.look("minilm", view="head", layer=0, heads=8)
    await page.keyboard.press("Tab")
    await expect(page.get_by_text("Skip to the view")).to_be_focused()
    await page.locator("#tab-head").focus()
    await page.keyboard.press("ArrowLeft")
    await visit.settled()
    await expect(page.locator("#tab-model")).to_be_focused()
    await page.locator(".map").first.focus()
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await visit.settled()
    assert chosen_of(page) == "model=minilm&layer=1&heads=1"
    await page.locator(".column.queries .token").first.focus()
    await page.keyboard.press("ArrowDown")
    await expect(page.locator(".column.keys .token .value").first).not_to_be_empty()
    await page.keyboard.press("Space")
    await expect(page).to_have_url(re.compile("queries=1"))


async def test_it_speaks_japanese(visit: Visit, visiting: Visiting) -> None:
    page = await visit.look("minilm", language="ja")
    await expect(page.locator("html")).to_have_attribute("lang", "ja")
    await expect(page.get_by_role("tab", name="ニューロン")).to_be_visible()
    await expect(page.locator(".caution")).to_contain_text("重みは答えの説明ではありません")
    await page.locator("#language").select_option("en")
    await expect(page.locator(".caution")).to_contain_text("a weight is no explanation")
    other = await visiting(locale="ja-JP")
    await other.look("minilm")
    await expect(other.page.locator("html")).to_have_attribute("lang", "ja")


@pytest.mark.parametrize("view", VIEWS)
async def test_a_small_screen_scrolls_in_one_direction(visiting: Visiting, view: str) -> None:
    small = await visiting(viewport={"width": 360, "height": 740})
    page = await small.look("minilm", view=view)
    width = await page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360


async def test_dark_is_what_the_browser_prefers_or_the_reader_chooses(visiting: Visiting) -> None:
    visit = await visiting(color_scheme="dark")
    page = await visit.look("minilm")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    assert await page.evaluate(background) == "rgb(22, 23, 26)"
    await page.locator("#theme").select_option("light")
    assert await page.evaluate(background) == "rgb(252, 251, 248)"


async def test_nothing_may_come_from_elsewhere(service: str) -> None:
    async with httpx.AsyncClient() as client:
        for path in ("/inspect", "/inspect/page.js", "/inspect/page.css"):
            answer = await client.get(service + path)
            assert answer.status_code == 200
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'self'; img-src 'self' blob: data:;")
            assert "unsafe" not in policy
            assert "//" not in policy


KEY = new_key()


@pytest.fixture(scope="module")
def locked(settings: ServiceSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that wants a key, under a prefix, where nothing may be looked into."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"reader {digest_of(KEY)}\n")
    closed = settings.model_copy(
        update={"api_keys_file": keys, "inspect": False, "models": settings.models[:1]}
    )
    app = UnderPrefix(build_app(closed), "/group")
    with running(app, start_timeout_s=LOADING_TIMEOUT_S) as url:
        wait_until_ready(f"{url}/group")
        yield f"{url}/group"


async def test_a_key_is_asked_for_and_kept_out_of_the_link(visiting: Visiting, locked: str) -> None:
    visit = await visiting(locked)
    page = visit.page
    await page.goto(link(locked, "minilm"))
    await expect(page.locator(".trouble")).to_contain_text("wants an API key")
    await page.get_by_label("API key").fill("sk-wrong")
    await page.get_by_role("button", name="Use this key").click()
    await expect(page.locator(".trouble")).to_contain_text("wants an API key")
    await page.get_by_label("API key").fill(KEY)
    await page.get_by_role("button", name="Use this key").click()
    # With it the page learns that there is nothing to see, and says what to do.
    await expect(page.locator(".trouble")).to_contain_text("Inspection is switched off")
    await expect(page.locator(".trouble")).to_contain_text("anatomy serve --inspect")
    assert KEY not in page.url
    assert await page.evaluate("sessionStorage.length") == 1
    assert await page.evaluate("localStorage.length") == 0
    # A browser tells of each refusal in its console.
    refused = [one for one in visit.complaints if "401" in one or "409" in one]
    assert refused == visit.complaints
    visit.complaints.clear()


async def test_what_the_service_refuses_is_said(visit: Visit) -> None:
    await visit.page.goto(link(visit.service, "no-such-model"))
    trouble = visit.page.locator(".trouble")
    await expect(trouble).to_contain_text("no-such-model")
    await expect(trouble).to_contain_text("minilm")
    assert all("404" in one for one in visit.complaints)
    visit.complaints.clear()
