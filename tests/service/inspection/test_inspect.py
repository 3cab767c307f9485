"""`POST /v1/inspect` over tiny models of each kind, from their checkpoints to the answer."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from safetensors.numpy import load as load_safetensors
from transformers import BertModel

from service.app import create_app
from service.errors import UnknownModel
from service.inspection import graphs
from service.inspection.inquiry import Inquiry, Part
from service.inspection.model import GivenUp, InspectedModel, Seen
from service.inspection.sequences import TextLimits
from service.living import ModelGroup
from service.metrics import Metrics
from service.registry import Registry
from service.settings import ServiceSettings
from service.specs import ModelSpec
from tests.support.inspected import LABELS
from tests.support.schema import require_told, strict
from tests.support.service import client_of, served


@pytest.mark.parametrize("body", [
    {"model": "embedder", "text": "ab", "second": "c", "include": ["pattern", "pooled"]},
    {"model": "classifier", "text": "ab", "include": ["class_scores", "attributions", "q"]},
    {"model": "writer", "text": "ab", "include": ["next_tokens", "logit_lens", "k"]},
    {"model": "translator", "text": "ab", "include": ["pattern", "bias", "residual_norms"]},
    {"model": "translator", "text": "ab", "include": ["rollout", "next_tokens"],
     "continuation": [4, 9]},
])  # fmt: skip
async def test_answers_are_as_the_document_tells(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    document = strict((await client.get("/openapi.json")).json())
    answer = await client.post("/v1/inspect", json=body)
    assert answer.status_code == 200, answer.text
    require_told(document, "/v1/inspect", "post", answer)


@asynccontextmanager
async def serving(folders: tuple[Path, list[Path]]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the whole service over these models."""
    cache, models = folders
    settings = ServiceSettings(
        models=tuple(map(str, models)), cache_folder=cache, threads=1, slots=2, inspect=True,
        inspect_max_tokens=48, max_context=64,
    )  # fmt: skip
    registry = Registry()
    group = ModelGroup(settings, registry, Metrics())
    group.load()
    try:
        async with client_of(create_app(registry, settings, group.metrics)) as found:
            yield found
    finally:
        group.close()


@pytest.fixture
async def client(folders: tuple[Path, list[Path]]) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(folders) as found:
        yield found


async def look(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post("/v1/inspect", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_each_head_of_each_layer_shows_where_it_looks(client: httpx.AsyncClient) -> None:
    answer = await look(client, model="embedder", text="Time flies")
    tokens = answer["sequences"][0]["tokens"]
    assert [token["text"] for token in tokens] == list("Time flies")
    assert [(token["start"], token["stop"]) for token in tokens[:2]] == [(0, 1), (1, 2)]
    assert answer["stacks"] == {"encoder": {"layers": 2, "heads": 4, "kv_heads": 4, "head_dim": 4}}
    assert [entry["layer"] for entry in answer["attentions"]] == [0, 1]
    for entry in answer["attentions"]:
        pattern = np.array(answer["tensors"][f"{entry['name']}.pattern"])
        assert pattern.shape == (4, 10, 10)
        np.testing.assert_allclose(pattern.sum(-1), 1.0, atol=1e-5)
    assert answer["graph"]["precision"] == "fp32"
    assert answer["graph"]["served"]["precision"] == "fp32"
    assert answer["graph"]["served"]["distance"]["largest_error"] < 1e-4


async def test_what_is_shown_adds_up_for_grouped_queries(client: httpx.AsyncClient) -> None:
    answer = await look(
        client, model="writer", text="abcd", second="ef", layers=[1], heads=[3, 0],
        include=["q", "k", "scores", "pattern", "value_norms", "residual_norms"],
    )  # fmt: skip
    (entry,) = answer["attentions"]
    tensors = {name: np.array(rows) for name, rows in answer["tensors"].items()}
    name = entry["name"]
    assert (entry["heads"], entry["kv_heads"]) == ([3, 0], [0, 1])
    assert entry["kv_head_of"] == [1, 0]
    q, k = tensors[f"{name}.q"], tensors[f"{name}.k"][entry["kv_head_of"]]
    scores = q @ k.swapaxes(-2, -1) * entry["scale"]
    np.testing.assert_allclose(tensors[f"{name}.scores"], scores, rtol=1e-4, atol=1e-4)
    visible = np.tril(np.ones((6, 6), bool))
    shown = np.where(visible, np.exp(scores), 0)
    expected = shown / shown.sum(-1, keepdims=True)
    np.testing.assert_allclose(tensors[f"{name}.pattern"], expected, rtol=1e-4, atol=1e-5)
    assert tensors[f"{name}.value_norms"].shape == (2, 6)
    assert tensors["decoder.residual_norms"].shape == (3, 6)
    assert [token["of"] for token in answer["sequences"][0]["tokens"]] == [0] * 4 + [1] * 2
    assert entry["causal"]


async def test_next_tokens_are_those_of_the_served_model(client: httpx.AsyncClient) -> None:
    answer = await look(
        client, model="writer", text="abcd", include=["next_tokens", "logit_lens"], top=3
    )
    said = await client.post("/v1/completions", json={
        "model": "writer", "prompt": "abcd", "max_tokens": 1, "temperature": 0, "logprobs": 3,
    })  # fmt: skip
    logprobs = said.json()["choices"][0]["logprobs"]
    (place,) = answer["next_tokens"]
    assert place["position"] == 3
    assert place["tokens"][0]["text"] == logprobs["tokens"][0]
    likeliest = sorted(logprobs["top_logprobs"][0].values(), reverse=True)
    found = [token["probability"] for token in place["tokens"]]
    np.testing.assert_allclose(found, np.exp(likeliest), rtol=1e-3)
    lens, tensors = answer["logit_lens"], answer["tensors"]
    assert (lens["states"], lens["positions"]) == ([0, 1, 2], [0, 1, 2, 3])
    last = tensors["logit_lens.ids"][-1][-1]
    assert last == [token["id"] for token in place["tokens"]], "the last state is the output"
    assert lens["texts"][str(last[0])] == place["tokens"][0]["text"]
    np.testing.assert_allclose(tensors["logit_lens.probabilities"][-1][-1], found, rtol=1e-5)


async def test_the_listed_tokens_and_the_rest_are_all_there_is_at_every_temperature(
    client: httpx.AsyncClient,
) -> None:
    body = {"model": "writer", "text": "abcd", "include": ["next_tokens"]}
    (few,) = (await look(client, **body, top=3))["next_tokens"]
    (all_,) = (await look(client, **body, top=256))["next_tokens"]
    assert all_["rest"] == {"tokens": 0, "probability": 0, "temperatures": [], "log_sums": []}
    logits = np.array([token["logit"] for token in all_["tokens"]])
    assert few["rest"]["tokens"] == len(logits) - 3
    assert few["rest"]["temperatures"][0] == 0.1
    assert few["rest"]["temperatures"][-1] == 2.0
    for temperature, told in zip(few["rest"]["temperatures"], few["rest"]["log_sums"], strict=True):
        weights = np.exp((logits - logits[0]) / temperature)
        listed = weights[:3].sum()
        rest = np.exp(told - logits[0] / temperature)
        np.testing.assert_allclose(listed / (listed + rest), listed / weights.sum(), rtol=1e-9)
    assert [token["ends"] for token in all_["tokens"]].count(True) >= 1
    np.testing.assert_allclose(
        few["rest"]["probability"], 1 - sum(t["probability"] for t in few["tokens"]), atol=1e-6
    )


@pytest.mark.parametrize(("model", "second"), [("writer", None), ("translator", None),
                                               ("translator", "ab")])  # fmt: skip
async def test_a_generation_is_stepped_through_by_its_own_tokens(
    client: httpx.AsyncClient, model: str, second: str | None
) -> None:
    body = {"model": model, "text": "time", "include": ["next_tokens"], "top": 1}
    if second is not None:
        body["second"] = second
    written: list[int] = []
    answer = await look(client, **body)
    for _ in range(5):
        written.append(answer["next_tokens"][0]["tokens"][0]["id"])
        answer = await look(client, **body, continuation=written)
    tokens = answer["sequences"][-1]["tokens"]
    assert [token["id"] for token in tokens[-5:]] == written
    for token in tokens[-5:]:
        if token["start"] is not None:
            text = answer["texts"][1][token["start"] : token["stop"]]
            assert (token["of"], text) == (1, token["text"])
    if second is None:
        said = await client.post("/v1/completions", json={
            "model": model, "prompt": "time", "max_tokens": 5, "temperature": 0, "ignore_eos": True,
        })  # fmt: skip
        assert said.json()["choices"][0]["text"] == answer["texts"][1]


async def test_two_texts_are_compared_as_the_served_model_does(client: httpx.AsyncClient) -> None:
    texts = ["time flies", "fruit"]
    answer = await look(
        client, model="embedder", text=texts[0], second=texts[1],
        include=["pooled", "similarity", "pattern"], layers=[0],
    )  # fmt: skip
    served = await client.post("/v1/embeddings", json={"model": "embedder", "input": texts})
    vectors = np.array([row["embedding"] for row in served.json()["data"]])
    pooled = np.array(answer["tensors"]["pooled"])
    np.testing.assert_allclose(pooled, vectors, atol=1e-4)
    cosine = pooled[0] @ pooled[1] / np.linalg.norm(pooled[0]) / np.linalg.norm(pooled[1])
    assert answer["cosine"] == pytest.approx(cosine, abs=1e-5)
    assert np.shape(answer["tensors"]["similarity"]) == (10, 5)
    names = [entry["name"] for entry in answer["attentions"]]
    assert names == ["encoder.blocks.0.attention", "second.encoder.blocks.0.attention"]
    assert np.shape(answer["tensors"][f"{names[1]}.pattern"]) == (4, 5, 5)


async def test_a_class_is_explained_by_leaving_tokens_out(client: httpx.AsyncClient) -> None:
    answer = await look(
        client, model="classifier", text="abc", include=["class_scores", "attributions"]
    )
    served = await client.post("/v1/classify", json={"model": "classifier", "input": "abc"})
    probs = [row["probability"] for row in answer["class_scores"]]
    np.testing.assert_allclose(probs, served.json()["data"][0]["probs"], atol=1e-4)
    assert not answer["attentions"], "nothing of them was asked for"
    told = answer["attributions"]
    assert told["label"] == LABELS[int(np.argmax(probs))]
    assert told["probability"] == max(probs)
    without = await client.post("/v1/classify", json={"model": "classifier", "input": "ac"})
    place = LABELS.index(told["label"])
    expected = max(probs) - without.json()["data"][0]["probs"][place]
    assert told["drops"][1] == pytest.approx(expected, abs=1e-4)
    assert told["positions"] == [0, 1, 2]
    occluded = np.array(answer["tensors"]["occluded"])
    np.testing.assert_allclose(occluded[1], without.json()["data"][0]["probs"], atol=1e-4)
    other = await look(
        client, model="classifier", text="abc", include=["attributions"], label="adverb"
    )
    assert other["attributions"]["label"] == "adverb"


async def test_a_pair_is_one_sequence_for_a_classifier(client: httpx.AsyncClient) -> None:
    answer = await look(client, model="classifier", text="ab", second="cde", layers=[0])
    (sequence,) = answer["sequences"]
    assert [token["of"] for token in sequence["tokens"]] == [0, 0, 1, 1, 1]
    assert [token["start"] for token in sequence["tokens"]] == [0, 1, 0, 1, 2]


async def test_a_target_looks_at_itself_and_at_its_source(client: httpx.AsyncClient) -> None:
    answer = await look(
        client, model="translator", text="abcd", second="ef", layers=[0],
        include=["pattern", "bias", "next_tokens", "residual_norms"],
    )  # fmt: skip
    kinds = [(e["stack"], e["kind"], e["queries"], e["keys"]) for e in answer["attentions"]]
    assert kinds == [
        ("encoder", "self", 0, 0), ("decoder", "self", 1, 1), ("decoder", "cross", 1, 0),
    ]  # fmt: skip
    patterns = [np.array(answer["tensors"][f"{e['name']}.pattern"]) for e in answer["attentions"]]
    assert [pattern.shape[1:] for pattern in patterns] == [(4, 4), (3, 3), (3, 4)]
    assert "decoder.blocks.0.cross_attention.bias" not in answer["tensors"]
    assert np.shape(answer["tensors"]["decoder.blocks.0.attention.bias"])[1:] == (3, 3)
    start = answer["sequences"][1]["tokens"][0]
    assert (start["special"], start["of"]) == (True, None)
    assert answer["next_tokens"][0]["position"] == 2


@pytest.mark.parametrize(("model", "stacks"), [
    ("embedder", ["encoder"]), ("writer", ["decoder"]), ("translator", ["encoder", "decoder"]),
])  # fmt: skip
async def test_rollout_is_the_product_of_mean_patterns_and_skips(
    client: httpx.AsyncClient, model: str, stacks: list[str]
) -> None:
    body = {"model": model, "text": "time", "include": ["rollout", "pattern"]}
    if model == "translator":
        body["second"] = "ab"
    answer = await look(client, **body)
    tensors = {name: np.array(rows) for name, rows in answer["tensors"].items()}
    for stack in stacks:
        names = [entry["name"] for entry in answer["attentions"]
                 if (entry["stack"], entry["kind"]) == (stack, "self")]  # fmt: skip
        found = tensors[f"{stack}.rollout"]
        expected = np.eye(found.shape[-1])
        for layer, name in enumerate(names):
            expected = (np.eye(len(expected)) + tensors[f"{name}.pattern"].mean(0)) / 2 @ expected
            np.testing.assert_allclose(found[layer], expected, atol=1e-5)
        np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
        if stack == "decoder":
            assert not np.triu(found[-1], 1).any(), "nothing is seen before its time"
    one = await look(client, **(body | {"include": ["rollout"], "layers": [1]}))
    np.testing.assert_allclose(
        one["tensors"][f"{stacks[0]}.rollout"], tensors[f"{stacks[0]}.rollout"][1:2], atol=1e-6
    )


@pytest.mark.parametrize("number_type", ["float32", "float16", "uint8"])
async def test_the_binary_answer_has_the_same_numbers(
    client: httpx.AsyncClient, number_type: str
) -> None:
    body = {"model": "embedder", "text": "abc", "include": ["pattern", "q"]}
    plain = await look(client, **body)
    answer = await client.post(
        "/v1/inspect", json=body | {"number_type": number_type},
        headers={"accept": "application/octet-stream"},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    tensors = load_safetensors(answer.content)
    length = int.from_bytes(answer.content[:8], "little")
    header = json.loads(answer.content[8 : 8 + length])
    assert length % 8 == 0
    told = json.loads(header["__metadata__"]["answer"])
    assert told == {name: value for name, value in plain.items() if name != "tensors"}
    assert set(tensors) == set(plain["tensors"])
    for name, array in tensors.items():
        scale = 255.0 if array.dtype == np.uint8 else 1.0
        assert (array.dtype == np.uint8) == (number_type == "uint8" and name.endswith("pattern"))
        expected = np.array(plain["tensors"][name])
        np.testing.assert_allclose(array / scale, expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(("body", "field", "said"), [
    ({"layers": [2]}, "layers[0]", "has layers 0 to 1"),
    ({"heads": [0, 4]}, "heads[1]", "has heads 0 to 3"),
    ({"layers": [0, 0]}, "layers", "a number twice"),
    ({"layers": [-1]}, "layers[0]", "greater than or equal to 0"),
    ({"include": ["next_tokens"]}, "include", "next_tokens is not for a model that does embed"),
    ({"include": ["bias"]}, "include", "adds no bias to its scores"),
    ({"include": ["entropy"]}, "include[0]", "'entropy' is not accepted"),
    ({"include": []}, "include", "at least 1"),
    ({"text": "a" * 49}, "text", "text has 49 tokens; at most 48 are looked into"),
    ({"text": "a" * 5000}, "text", "5000 bytes"),
    ({"text": ""}, "text", "text is empty"),
    ({"second": ""}, "second", "second is empty"),
    ({"second": "a" * 49}, "second", "second has 49 tokens"),
    ({"model": "classifier", "include": ["attributions"], "label": "x"}, "label",
     "has: noun, verb, adverb"),
    ({"model": "writer", "include": ["next_tokens"], "positions": [7]}, "positions[0]",
     "has positions 0 to 2"),
    ({"continuation": [3]}, "continuation", "a model that does embed writes nothing"),
    ({"model": "writer", "continuation": [3, 9999]}, "continuation[1]", "has tokens 0 to"),
    ({"model": "writer", "continuation": [3] * 46}, "continuation", "has 49 tokens; at most 48"),
    ({"tokens": 4}, "tokens", "not a known field"),
])  # fmt: skip
async def test_what_cannot_be_looked_into_is_refused_by_name(
    client: httpx.AsyncClient, body: dict[str, Any], field: str, said: str
) -> None:
    answer = await client.post("/v1/inspect", json={"model": "embedder", "text": "abc"} | body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == field
    assert said in error["message"]


async def test_an_unknown_model_is_not_found(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/inspect", json={"model": "none", "text": "abc"})
    assert answer.status_code == 404


async def test_too_large_an_answer_in_json_says_what_to_ask_for(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.inspect.MOST_NUMBERS_JSON", 71)
    body = {"model": "embedder", "text": "abc"}
    answer = await client.post("/v1/inspect", json=body)
    assert answer.status_code == 400
    assert "72 numbers; at most 71 are given. Ask for fewer layers" in answer.text
    assert (await client.post("/v1/inspect", json=body | {"layers": [0]})).status_code == 200
    assert (await client.post("/v1/inspect", json=body | {"heads": [2]})).status_code == 200


async def test_patterns_are_those_of_transformers(
    client: httpx.AsyncClient, folders: tuple[Path, list[Path]]
) -> None:
    reference: Any = BertModel.from_pretrained(
        folders[0].parent / "embedder", attn_implementation="eager"
    ).eval()
    answer = await look(client, model="embedder", text="Time flies")
    token_ids = [token["id"] for token in answer["sequences"][0]["tokens"]]
    with torch.inference_mode():
        expected = reference(torch.tensor([token_ids]), output_attentions=True).attentions
    for entry, pattern in zip(answer["attentions"], expected, strict=True):
        found = np.array(answer["tensors"][f"{entry['name']}.pattern"])
        np.testing.assert_allclose(found, pattern[0].numpy(), atol=1e-4)


async def test_nobody_looks_inside_unless_that_is_switched_on() -> None:
    async with client_of(served()) as client:
        answer = await client.post("/v1/inspect", json={"model": "embedder", "text": "abc"})
        assert answer.status_code == 409
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == ("inspection_off", "model")
        assert "ANATOMY_INSPECT=true" in error["message"]
        without_model = await client.post("/v1/inspect", json={"text": "abc"})
        assert without_model.status_code == 409
        unknown = await client.post("/v1/inspect", json={"model": "none", "text": "abc"})
        assert unknown.status_code == 404


async def test_more_inspections_than_places_are_told_to_come_again(
    folders: tuple[Path, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    seen = InspectedModel.look

    def slow(self: InspectedModel, *args: Any) -> Seen:
        assert gate.wait(30)
        return seen(self, *args)

    monkeypatch.setattr(InspectedModel, "look", slow)
    async with serving(folders) as client:
        body = {"model": "embedder", "text": "abc"}
        tasks = [asyncio.create_task(client.post("/v1/inspect", json=body)) for _ in range(5)]
        done, waiting = await asyncio.wait(tasks, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 3:
            more, waiting = await asyncio.wait(
                waiting, timeout=30, return_when=asyncio.FIRST_COMPLETED
            )
            done |= more
        gate.set()
        answers = await asyncio.gather(*tasks)
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429, 429]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["retry-after"]) >= 1


async def test_what_is_loaded_later_can_be_looked_into_and_what_is_unloaded_cannot(
    folders: tuple[Path, list[Path]],
) -> None:
    cache, (embedder, classifier, *_) = folders
    settings = ServiceSettings(models=(str(embedder),), cache_folder=cache, threads=1, inspect=True)
    registry = Registry()
    group = ModelGroup(settings, registry, Metrics())
    async with group.lifespan():
        assert registry.inspection("embedder").card.name == "embedder"
        await group.change(group.wanted, (ModelSpec(source=str(classifier), name="another"),))
        assert registry.inspection("another").card.labels == LABELS
        with pytest.raises(UnknownModel):
            registry.inspection("embedder")


@pytest.mark.parametrize("part", [Part.NEXT_TOKENS, Part.LOGIT_LENS])
def test_what_nobody_waits_for_ends_between_two_positions(
    folders: tuple[Path, list[Path]], monkeypatch: pytest.MonkeyPatch, part: Part
) -> None:
    cache, models = folders
    settings = ServiceSettings(
        models=tuple(map(str, models)), cache_folder=cache, threads=1, inspect=True, max_context=64
    )
    registry = Registry()
    group = ModelGroup(settings, registry, Metrics())
    group.load()
    monkeypatch.setattr(graphs, "LENS_ROWS", 2)
    asked = list[bool]()

    def wanted() -> bool:
        asked.append(len(asked) < 3)
        return asked[-1]

    inquiry = Inquiry("abcdef", include=(part,), positions=(0, 1, 2, 3, 4, 5))
    try:
        with pytest.raises(GivenUp):
            registry.inspection("writer").look(inquiry, TextLimits(48, 32), 2**20, wanted)
    finally:
        group.close()
    assert asked == [True, True, True, False]
