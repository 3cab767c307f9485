"""What comes next, meaning, and the comparison, in a browser, on models of each kind."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from playwright.async_api import expect

from service.engines.sampling import likeliest, probabilities
from service.messages import Sampling
from tests.service.inspection.page.conftest import Visit, Visiting
from tests.service.inspection.page.test_page import AXE, SVG, saved
from tests.service.inspection.page.test_views import numbers

PROMPT = "Time flies"
# Each view on each kind of model that has it.
CASES: dict[str, dict[str, Any]] = {
    "next, decoder": {"model": "writer", "text": PROMPT, "view": "next", "topK": 7},
    "next, encoder-decoder": {
        "model": "translator", "text": "abc de", "second": "fg", "view": "next", "written": "5.6",
    },
    "vectors, encoder": {
        "model": "minilm", "text": "fruit flies", "second": "insects", "view": "vectors",
    },
    "vectors, classifier": {"model": "classifier", "text": "abcd", "view": "vectors"},
    "compare, encoder": {
        "model": "minilm", "text": "time flies", "view": "compare", "otherText": "fruit flies",
    },
    "compare, decoder": {
        "model": "writer", "text": "abcd", "view": "compare", "otherText": "abce", "shows": "head",
    },
    "compare, encoder-decoder": {
        "model": "translator", "text": "abc", "second": "de", "view": "compare",
        "otherText": "abd", "site": "cross",
    },
    "compare, classifier": {
        "model": "classifier", "text": "abcd", "view": "compare", "otherModel": "embedder",
    },
}  # fmt: skip


async def serious_of(page: Any) -> list[Any]:
    """What axe finds wrong, as far as it is serious."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed; `make check-page` brings it")
    await page.evaluate(AXE.read_text())
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        (one["id"], [node["html"][:120] for node in one["nodes"][:3]])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


async def shown_of(page: Any, folder: Path) -> Any:
    """The numbers that a view is saved with."""
    return json.loads((await saved(page, "json", folder)).read_text())["shown"]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_a_view_is_seen_heard_and_saved(
    visit: Visit, visiting: Visiting, tmp_path: Path, case: dict[str, Any]
) -> None:
    page = await visit.look(**case)
    assert await serious_of(page) == []
    drawing = ElementTree.parse(await saved(page, "svg", tmp_path)).getroot()
    assert len(list(drawing.iter(f"{SVG}rect"))) > 3
    assert (await saved(page, "png", tmp_path)).stat().st_size > 2000
    assert await shown_of(page, tmp_path)
    assert "NaN" not in (await saved(page, "json", tmp_path)).read_text()

    file = await saved(page, "html", tmp_path)
    reader = await visiting(offline=True)
    await reader.page.goto(file.as_uri())
    await reader.settled()
    await expect(reader.page.locator(".trouble")).to_be_hidden()
    assert await shown_of(reader.page, tmp_path) == await shown_of(page, tmp_path)

    other = await visiting(color_scheme="dark", viewport={"width": 400, "height": 800})
    await other.page.goto(f"{page.url}&language=ja")
    await other.settled()
    assert await serious_of(other.page) == []
    wide = await other.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [
    (1.0, 0, 1.0), (0.5, 0, 1.0), (1.7, 5, 1.0), (0.8, 0, 0.6), (1.3, 9, 0.5), (0.75, 0, 0.9),
])  # fmt: skip
async def test_sliders_give_the_chances_of_the_services_own_sampler(
    visit: Visit, tmp_path: Path, temperature: float, top_k: int, top_p: float
) -> None:
    page = await visit.look(
        "writer", text=PROMPT, view="next", temperature=temperature, topK=top_k, topP=top_p
    )
    shown = await shown_of(page, tmp_path)
    answer = await visit.ask(model="writer", text=PROMPT, include=["next_tokens"], top=256)
    logits = np.array([token["logit"] for token in answer["next_tokens"][0]["tokens"]])
    weights = probabilities(logits, temperature)
    np.testing.assert_allclose([t["tempered"] for t in shown["tokens"]], weights, rtol=1e-4)
    expected = weights[likeliest(weights, Sampling(max_tokens=1, top_k=top_k, top_p=top_p))]
    if top_k:
        expected = expected[:top_k]
    if top_p < 1:
        mass = np.cumsum(expected)
        left = mass[-1] if top_k else 1.0
        expected = expected[: int(np.searchsorted(mass, top_p * left)) + 1]
    kept = [t["kept"] for t in shown["tokens"] if t["kept"] > 0]
    np.testing.assert_allclose(kept, expected / expected.sum(), rtol=1e-4)


async def test_sliders_are_moved_by_keys_and_stand_in_the_address(visit: Visit) -> None:
    page = await visit.look("writer", text=PROMPT, view="next")
    await page.locator("#temperature").focus()
    await page.keyboard.press("ArrowLeft")
    await page.keyboard.press("ArrowLeft")
    await expect(page).to_have_url(re.compile("temperature=0.8"))
    await page.locator("#topK").fill("3")
    await expect(page.locator(".chance:not(.out)")).to_have_count(3)
    await page.locator("#temperature").fill("0")
    await expect(page.locator("#chance-0 .value")).to_have_text("100.0%")


@pytest.mark.parametrize("model", ["writer", "translator"])
async def test_a_generation_goes_on_token_by_token(visit: Visit, model: str) -> None:
    page = await visit.look(model, text=PROMPT, view="next")
    written: list[int] = []
    for _ in range(3):
        answer = await visit.ask(
            model=model, text=PROMPT, include=["next_tokens"], continuation=written
        )
        written.append(answer["next_tokens"][0]["tokens"][0]["id"])
        await page.get_by_role("button", name="Add the likeliest").click()
        await expect(page.locator(".piece.added")).to_have_count(len(written))
        await visit.settled()
    await expect(page).to_have_url(re.compile(f"written={'.'.join(map(str, written))}"))
    await page.locator("#chance-2").click()
    await expect(page.locator(".piece.added")).to_have_count(4)
    await visit.settled()
    await page.get_by_role("button", name="Take one back").click()
    await expect(page.locator(".piece.added")).to_have_count(3)
    await page.get_by_role("button", name="Draw one").click()
    await expect(page.locator(".piece.added")).to_have_count(4)
    await page.get_by_role("button", name="Start over").click()
    await expect(page.locator(".piece.added")).to_have_count(0)
    await page.go_back()
    await expect(page.locator(".piece.added")).to_have_count(4)


async def test_the_lens_names_what_each_layer_would_say(visit: Visit) -> None:
    page = await visit.look("writer", text=PROMPT, view="next")
    answer = await visit.ask(model="writer", text=PROMPT, include=["logit_lens"])
    texts, ids = answer["logit_lens"]["texts"], np.array(answer["tensors"]["logit_lens.ids"])
    cells = page.locator(".lens .heat tbody td")
    said = [texts[str(one)].replace(" ", "␣") for row in ids[::-1, :, 0] for one in row]
    await expect(cells).to_have_text(said)
    frames = await page.locator(".lens td.marked").count()
    assert frames == int((ids[:-1, :, 0] == ids[-1:, :, 0]).sum())

    await cells.first.focus()
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("ArrowDown")
    likely = page.locator(".lens-detail .label")
    await expect(likely).to_have_text([texts[str(one)].replace(" ", "␣") for one in ids[-2, 1]])
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile(f"lensState={len(ids) - 2}&lensPosition=1"))


async def test_two_texts_are_near_where_the_service_says_so(visit: Visit) -> None:
    texts = {"text": "fruit flies like a banana", "second": "insects love bananas"}
    page = await visit.look("minilm", view="vectors", **texts)
    answer = await visit.ask(model="minilm", include=["pooled", "similarity"], **texts)
    await expect(page.locator(".cosine")).to_contain_text(f"{answer['cosine']:.3f}")
    similarity = np.array(answer["tensors"]["similarity"])
    shown = await numbers(page.locator(".similarity .heat tbody td"))
    assert shown == pytest.approx(list(similarity.flatten()), abs=0.006)
    nearest = await numbers(page.locator(".nearest td.number"))
    assert nearest == pytest.approx(list(similarity.max(1)), abs=0.006)
    await page.locator("#near").fill("0.6")
    await expect(page.locator(".link-field path")).to_have_count(int((similarity > 0.6).sum()))
    await page.get_by_label("Hide special tokens").check()
    await expect(page.locator(".nearest tbody tr")).to_have_count(len(similarity) - 2)


async def test_a_class_hangs_on_tokens(visit: Visit) -> None:
    page = await visit.look("classifier", text="abcd", view="vectors")
    include = ["class_scores", "attributions"]
    answer = await visit.ask(model="classifier", text="abcd", include=include, label="noun")
    classes = sorted(answer["class_scores"], key=lambda one: -one["probability"])
    await expect(page.locator(".classes .label")).to_have_text([one["label"] for one in classes])
    await page.get_by_title("Explain noun").click()
    await expect(page).to_have_url(re.compile("label=noun"))
    await expect(page.locator(".hangs-on h2")).to_contain_text("noun")
    without = await numbers(page.locator(".occluded td:nth-child(2)"))
    expected = [100 * (answer["attributions"]["probability"] - drop)
                for drop in answer["attributions"]["drops"]]  # fmt: skip
    assert without == pytest.approx(expected, abs=0.12)


async def test_a_text_too_long_for_occlusion_still_has_its_classes(visiting: Visiting) -> None:
    visit = await visiting()
    await visit.look("classifier", text="ab" * 70, view="vectors")
    await expect(visit.page.locator(".classes .label")).to_have_count(3)
    await expect(visit.page.locator(".hangs-on .note")).to_contain_text("at most 128")
    # The browser tells of the refusal by itself.
    assert all("400" in one for one in visit.complaints)
    visit.complaints.clear()


async def test_both_sides_show_rollout_and_their_difference(visit: Visit) -> None:
    texts = ("time flies like an arrow", "fruit flies like a banana")
    page = await visit.look("minilm", text=texts[0], view="compare", otherText=texts[1], layer=3)
    both = [
        np.array((await visit.ask(model="minilm", text=text, include=["rollout"], layers=[3]))
                 ["tensors"]["encoder.rollout"][0])
        for text in texts
    ]  # fmt: skip
    # Second row, third column: what "time" holds of "flies".
    cell = page.locator(".compare-body section").first.locator(".heat tbody tr").nth(1)
    await expect(cell.locator("td").nth(2)).to_have_attribute(
        "aria-label", f"time → flies: {both[0][1, 2]:.1%}"
    )
    apart = await numbers(page.locator(".between .heat tbody td"))
    assert apart == pytest.approx(list((both[1] - both[0]).flatten()), abs=0.006)
    cosine = (await visit.ask(model="minilm", text=texts[0], second=texts[1],
                              include=["pooled"]))["cosine"]  # fmt: skip
    await expect(page.locator(".outcome dd")).to_have_text(f"{cosine:.3f}")

    await page.locator("#shows").select_option("head")
    await visit.settled()
    await page.get_by_role("button", name="Head 8").click()
    await visit.settled()
    await expect(page).to_have_url(re.compile("shows=head"))
    await page.locator("#other-text").fill("time flies")
    await page.locator("#other-text").press("Enter")
    await visit.settled()
    await expect(page.locator(".between .note")).to_contain_text("different tokens")
