"""The three views of attention in a browser, on an encoder, a decoder and an encoder-decoder."""

import re
from typing import Any

import numpy as np
import pytest
from playwright.async_api import Locator, expect

from tests.service.inspection.page.conftest import TEXT, Visit

# A model of each kind, a text for it, and an attention of it.
CASES: dict[str, dict[str, Any]] = {
    "encoder": {"model": "minilm", "text": TEXT, "layer": 1, "heads": 5},
    "decoder": {"model": "writer", "text": "Time flies", "layer": 1, "heads": 3},
    "cross": {
        "model": "translator", "text": "abc de", "second": "fgh", "site": "cross", "heads": 2,
    },
    "bias": {"model": "translator", "text": "abc de", "second": "fgh", "site": "decoder"},
}  # fmt: skip


async def attention_of(visit: Visit, case: dict[str, Any], *include: str) -> dict[str, Any]:
    """What the service says of the attention of a case: its description and its arrays."""
    texts = {name: case[name] for name in ("model", "text", "second") if name in case}
    layer, head = case.get("layer", 0), case.get("heads", 0)
    answer = await visit.ask(**texts, layers=[layer], heads=[head], include=["pattern", *include])
    stack = {"encoder": "encoder", "decoder": "decoder", "cross": "decoder"}
    kinds = {stack[case["site"]]} if "site" in case else {"encoder", "decoder"}
    found = next(
        one for one in answer["attentions"]
        if one["stack"] in kinds and (one["kind"] == "cross") == (case.get("site") == "cross")
    )  # fmt: skip
    tensors = {
        name.rpartition(".")[2]: np.array(array[0])
        for name, array in answer["tensors"].items()
        if name.rpartition(".")[0] == found["name"]
    }
    tokens = [one["tokens"] for one in answer["sequences"]]
    sides = {"query_tokens": tokens[found["queries"]], "key_tokens": tokens[found["keys"]]}
    return found | tensors | sides


async def numbers(cells: Locator) -> list[float]:
    return [float(text.replace("−", "-").rstrip("%")) for text in await cells.all_text_contents()]


@pytest.mark.parametrize("kind", CASES)
async def test_a_token_that_is_pointed_at_shows_its_weights(visit: Visit, kind: str) -> None:
    case = CASES[kind]
    page = await visit.look(**case, view="head")
    asked = await attention_of(visit, case)
    keys = page.locator(".column.keys .token")
    await expect(keys).to_have_count(len(asked["key_tokens"]))
    queries = page.locator(".column.queries .token")
    await expect(queries).to_have_count(len(asked["query_tokens"]))

    await queries.nth(1).hover()
    await expect(keys.first.locator(".value")).not_to_be_empty()
    shown = await numbers(keys.locator(".value"))
    assert shown == pytest.approx(list(asked["pattern"][1] * 100), abs=0.11)
    lines = page.locator(".links path")
    await expect(lines).to_have_count(int((asked["pattern"][1] >= 0.02).sum()))

    await keys.nth(0).hover()
    shown = await numbers(queries.locator(".value"))
    assert shown == pytest.approx(list(asked["pattern"][:, 0] * 100), abs=0.11)

    await page.mouse.move(0, 0)
    await expect(lines).to_have_count(int((asked["pattern"] >= 0.02).sum()))


async def test_weights_of_tokens_that_are_held_are_added_up(visit: Visit) -> None:
    case = CASES["encoder"]
    page = await visit.look(**case, view="head")
    asked = await attention_of(visit, case)
    queries = page.locator(".column.queries .token")
    await queries.nth(2).click()
    await queries.nth(4).click()
    await page.mouse.move(0, 0)
    await expect(page.locator(".column.queries .token[aria-pressed=true]")).to_have_count(2)
    assert "queries=2.4" in page.url
    shown = await numbers(page.locator(".sums tbody td"))
    expected = sorted(asked["pattern"][[2, 4]].sum(0), reverse=True)
    assert shown == pytest.approx(expected, abs=0.002)
    lines = int((asked["pattern"][[2, 4]] >= 0.02).sum())
    await expect(page.locator(".links path")).to_have_count(lines)

    await queries.nth(2).click()
    await page.mouse.move(0, 0)
    await expect(page.locator(".column.queries .token[aria-pressed=true]")).to_have_count(1)
    await page.get_by_role("button", name="Let all tokens go").click()
    await expect(page.locator(".column.queries .token[aria-pressed=true]")).to_have_count(0)


async def test_several_heads_have_colours_of_their_own(visit: Visit) -> None:
    page = await visit.look("minilm", view="head", layer=1, heads=3)
    await page.get_by_role("button", name="Head 7").click(modifiers=["Shift"])
    await page.get_by_role("button", name="several").click()
    await page.get_by_role("button", name="Head 9").click()
    assert "heads=3.7.9" in page.url
    colours = await page.locator(".links path").evaluate_all(
        "lines => [...new Set(lines.map(line => line.getAttribute('stroke')))]"
    )
    assert len(colours) == 3
    await page.locator(".column.queries .token").nth(1).hover()
    await expect(page.locator(".sums thead th")).to_have_text(
        ["token", "Head 3", "Head 7", "Head 9"]
    )


async def test_weak_links_are_hidden_from_where_the_slider_stands(visit: Visit) -> None:
    page = await visit.look("minilm", view="head", layer=0, heads=8)
    asked = await attention_of(visit, {"model": "minilm", "text": TEXT, "heads": 8})
    await page.locator("#least").fill("0.3")
    await expect(page.locator(".links path")).to_have_count(int((asked["pattern"] >= 0.3).sum()))
    await expect(page).to_have_url(re.compile("least=0.3"))


async def test_special_tokens_are_hidden_and_pieces_are_merged(visit: Visit) -> None:
    text = "anatomically unbelievable"
    page = await visit.look("minilm", view="head", text=text)
    whole = await page.locator(".column.keys .token").count()
    await page.get_by_label("Hide special tokens").check()
    await expect(page.locator(".column.keys .token")).to_have_count(whole - 2)
    await page.get_by_label("Merge word pieces").check()
    labels = page.locator(".column.keys .token .label")
    await expect(labels).to_have_text(["anatomically", "unbelievable"])

    asked = await attention_of(visit, {"model": "minilm", "text": text})
    of = [token["start"] for token in asked["key_tokens"]]
    first = [place for place, start in enumerate(of) if start is not None and start < 12]
    expected = asked["pattern"][np.ix_(first, first)].sum(1).mean()
    await page.locator(".column.queries .token").nth(0).hover()
    shown = await numbers(page.locator(".column.keys .token .value"))
    assert shown[0] == pytest.approx(expected * 100, abs=0.11)


@pytest.mark.parametrize("kind", CASES)
async def test_every_head_has_a_map_that_opens(visit: Visit, kind: str) -> None:
    case: dict[str, Any] = CASES[kind] | {"heads": 0, "layer": 0}
    page = await visit.look(**case, view="model")
    answer = await visit.ask(model=case["model"], text=case["text"])
    size = answer["stacks"]["encoder" if kind == "encoder" else "decoder"]
    maps = page.locator(".map")
    await expect(maps).to_have_count(size["layers"] * size["heads"])
    painted = await page.locator(".map canvas").evaluate_all(
        "maps => maps.map(map => new Set(map.getContext('2d')"
        ".getImageData(0, 0, map.width, map.height).data).size)"
    )
    # More than the two or three bytes that a map of one colour has.
    assert all(colours > 4 for colours in painted)

    last = maps.last
    await last.hover()
    layer, head = size["layers"] - 1, size["heads"] - 1
    await expect(page.locator(".preview h2")).to_have_text(f"Layer {layer}, head {head}")
    await last.click()
    await visit.settled()
    await expect(page.get_by_role("tab", name="Head", exact=True)).to_have_attribute(
        "aria-selected", "true"
    )
    assert f"layer={layer}" in page.url
    assert f"heads={head}" in page.url


async def test_heads_that_share_keys_are_marked(visit: Visit) -> None:
    page = await visit.look("writer", text="Time flies", view="model")
    size = (await visit.ask(model="writer", text="Time"))["stacks"]["decoder"]
    assert size["kv_heads"] < size["heads"]
    await expect(page.locator(".maps .shared")).to_have_count(size["kv_heads"])


@pytest.mark.parametrize("kind", CASES)
async def test_the_steps_lead_from_queries_and_keys_to_the_weights(visit: Visit, kind: str) -> None:
    case = CASES[kind]
    page = await visit.look(**case, view="neuron", query=1)
    include = ("q", "k", "scores", *(["bias"] if kind == "bias" else []))
    asked = await attention_of(visit, case, *include)
    rows = page.locator(".neuron-table tbody tr")
    await expect(rows).to_have_count(len(asked["key_tokens"]))
    dots = asked["k"] @ asked["q"][1]
    shown = await numbers(rows.locator("td.number:nth-child(-n+4):not(.weight)").first)
    first = await rows.first.locator("td.number").all_text_contents()
    assert shown[0] == pytest.approx(dots[0], abs=0.02)
    scores = dots * asked["scale"] + (asked["bias"][1] if kind == "bias" else 0)
    if not asked["causal"]:
        assert float(first[-2].replace("−", "-")) == pytest.approx(scores[0], abs=0.02)
    weights = await numbers(page.locator(".neuron-table td.weight"))
    assert weights == pytest.approx(list(asked["pattern"][1]), abs=0.002)
    masked = 0 if not asked["causal"] else len(asked["key_tokens"]) - 2
    await expect(page.locator(".neuron-table tr.is-masked")).to_have_count(masked)
    await expect(page.locator(".neuron-view > .note")).to_contain_text("of the model's own")


async def test_steps_come_one_after_another(visit: Visit) -> None:
    page = await visit.look("minilm", layer=0, heads=8, view="neuron", query=2, step=1)
    strips = page.locator(".neuron-table .strip canvas:visible")
    await expect(strips).to_have_count(2)
    await page.get_by_role("button", name="The weighted sum").click()
    await expect(strips).to_have_count(6)
    await expect(page.locator("math").first).to_be_visible()
    await page.get_by_role("radio", name="arrow").click()
    await expect(page).to_have_url(re.compile("query=5"))
    await page.get_by_role("button", name="like", exact=True).click()
    await expect(page.locator("tr.followed th")).to_have_text("like")
