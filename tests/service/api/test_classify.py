from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from transformers import BertForSequenceClassification

from export.artifact import Precision
from export.catalogue import recipe
from export.pipeline import export
from service.app import create_app
from service.living import ModelGroup
from service.metrics import Metrics
from service.registry import Registry
from service.settings import ServiceSettings
from tests.support.checkpoints import draw_widely, tiny_bert_config, write_tokenizer
from tests.support.fakes import FakeClassificationModel, FakeEmbeddingModel
from tests.support.reports import silent
from tests.support.service import NOW_S, client_of, served


@pytest.mark.parametrize("path", ["/v1/classify", "/classify"])
async def test_each_input_has_its_label_and_the_probabilities_of_all(path: str) -> None:
    async with client_of(served()) as client:
        body = {"model": "classifier", "input": ["a", "b"]}
        answer = await client.post(path, json=body, headers={"x-request-id": "7"})
    assert answer.json() == {
        "id": "classify-7",
        "object": "list",
        "created": NOW_S,
        "model": "classifier",
        "data": [
            {"index": 0, "label": "verb", "probs": [0.125, 0.75, 0.125], "num_classes": 3},
            {"index": 1, "label": "adverb", "probs": [0.125, 0.125, 0.75], "num_classes": 3},
        ],
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }


async def test_without_a_model_the_default_classifier_answers() -> None:
    async with client_of(served()) as client:
        answer = await client.post("/classify", json={"input": "a"})
    assert answer.json()["model"] == "classifier"


async def test_labels_are_listed_by_number_and_by_probability() -> None:
    async with client_of(served()) as client:
        body = {"input": "a", "top_k": 2}
        several = (await client.post("/v1/classify", json=body)).json()["data"][0]
        body = {"input": "a", "threshold": 0.5}
        likely = (await client.post("/v1/classify", json=body)).json()["data"][0]
    assert several["labels"] == [
        {"label": "verb", "score": 0.75},
        {"label": "noun", "score": 0.125},
    ]
    assert likely["labels"] == [{"label": "verb", "score": 0.75}]


async def test_raw_scores_are_the_heads_own() -> None:
    async with client_of(served()) as client:
        body: dict[str, object] = {"input": "a", "raw_scores": True}
        answer = (await client.post("/v1/classify", json=body)).json()["data"][0]
        refused = await client.post("/v1/classify", json=body | {"threshold": 0.5})
    assert answer["scores"] == [1.0, 6.0, 1.0]
    assert "probs" not in answer
    assert refused.json()["error"]["param"] == "threshold"


async def test_a_text_that_is_too_long_is_cut_when_asked_and_the_answer_says_so() -> None:
    async with client_of(served()) as client:
        body = {"input": ["a", "a" * 100], "truncation": "right"}
        data = (await client.post("/v1/classify", json=body)).json()["data"]
    assert "truncated" not in data[0]
    assert (data[1]["truncated"], data[1]["dropped_tokens"]) == (True, 37)


async def test_given_labels_are_compared_with_the_text_by_an_embedding_model() -> None:
    labels = ["about x", "about y"]
    async with client_of(served()) as client:
        body = {"input": "about y", "labels": ["x", "y"], "hypothesis_template": "about {}"}
        answer = (await client.post("/v1/classify", json=body)).json()
        raw = (await client.post("/v1/classify", json=body | {"raw_scores": True})).json()
    assert answer["model"] == "embedder"
    assert answer["data"][0]["label"] == "y"
    model = FakeEmbeddingModel()
    vectors = [model.vector(model.tokenizer.encode(text)) for text in ("about y", *labels)]
    cosines = np.array([vectors[0] @ vector for vector in vectors[1:]])
    np.testing.assert_allclose(raw["data"][0]["scores"], cosines, rtol=1e-5)
    expected = np.exp(20 * cosines) / np.exp(20 * cosines).sum()
    np.testing.assert_allclose(answer["data"][0]["probs"], expected, rtol=1e-4)


# --- labels of which several may hold at once ----------------------------------------------------

LABELS = ("loud", "red", "small", "wet")
TEXTS = ["time flies", "b", "an arrow"]


@pytest.fixture(scope="module")
def multi_label(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelGroup]:
    folder = tmp_path_factory.mktemp("multi") / "model"
    config = tiny_bert_config(problem_type="multi_label_classification", num_labels=len(LABELS))
    config.id2label = dict(enumerate(LABELS))
    draw_widely(BertForSequenceClassification(config)).save_pretrained(folder)
    write_tokenizer(folder)
    made = export(recipe(str(folder), Precision.FP32, name="many"), folder / "cache", silent)
    group = ModelGroup(ServiceSettings(models=(str(made),), threads=1), Registry(), Metrics())
    group.load()
    try:
        yield group
    finally:
        group.close()


async def test_labels_that_may_hold_together_have_probabilities_of_their_own(
    multi_label: ModelGroup,
) -> None:
    group = multi_label
    async with client_of(create_app(group.registry, group.settings, group.metrics)) as client:

        async def ask(**fields: object) -> list[dict[str, Any]]:
            answer = await client.post("/v1/classify", json={"input": TEXTS, **fields})
            assert answer.status_code == 200, answer.text
            return answer.json()["data"]

        info = (await client.get("/info")).json()["models"][0]
        likely, raw = await ask(), await ask(raw_scores=True)
        two, sure = await ask(top_k=2), await ask(threshold=0.9)
        predicted = (await client.post("/predict", json={"inputs": TEXTS[0]})).json()
    assert info["scoring"] == "sigmoid"
    logits = np.array([item["scores"] for item in raw])
    probs = np.array([item["probs"] for item in likely])
    np.testing.assert_allclose(probs, 1 / (1 + np.exp(-logits)), rtol=1e-5)
    assert abs(probs.sum(axis=1) - 1).min() > 0.01, "they don't exclude one another"
    assert "labels" not in raw[0]
    for row, item, ranking, certain in zip(probs, likely, two, sure, strict=True):
        order = sorted(range(len(LABELS)), key=lambda place: -row[place])
        assert item["label"] == LABELS[order[0]]
        assert names(item) == [LABELS[place] for place in order if row[place] >= 0.5]
        assert names(ranking) == [LABELS[place] for place in order[:2]]
        assert names(certain) == [LABELS[place] for place in order if row[place] >= 0.9]
    np.testing.assert_allclose(
        [item["score"] for item in predicted], sorted(probs[0], reverse=True), rtol=1e-6
    )


def names(item: dict[str, Any]) -> list[str]:
    return [label["label"] for label in item["labels"]]


async def test_a_threshold_is_for_probabilities() -> None:
    model = FakeClassificationModel()
    model.card = replace(model.card, scoring="identity")
    async with client_of(served(classifier=model)) as client:
        answer = await client.post("/v1/classify", json={"input": "a", "threshold": 0.5})
    assert answer.json()["error"]["param"] == "threshold"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"labels": ["x"]}, "labels"),
        ({"labels": ["x", ""]}, "labels[1]"),
        ({"labels": ["x", "y"], "hypothesis_template": "no place"}, "hypothesis_template"),
        ({"labels": ["x", "y"], "hypothesis_template": "{} {}"}, "hypothesis_template"),
        ({"labels": ["x", "y"], "hypothesis_template": "{}" + "a" * 1024}, "hypothesis_template"),
        ({"hypothesis_template": "a {}"}, "hypothesis_template"),
        ({"labels": ["x"] * 2049}, "labels"),
        ({"labels": ["x"] * 2048, "input": ["a"] * 129}, "labels"),
        ({"top_k": 0}, "top_k"),
        ({"threshold": 1.5}, "threshold"),
        ({"truncation": "middle"}, "truncation"),
        ({"aggregation_strategy": "max"}, "aggregation_strategy"),
        ({"ignore_labels": []}, "ignore_labels"),
        ({"token_scores": True, "labels": ["x", "y"]}, "token_scores"),
    ],
    ids=str,
)
async def test_bad_fields_are_refused_by_name(change: dict[str, object], param: str) -> None:
    async with client_of(served()) as client:
        answer = await client.post("/v1/classify", json={"input": "a"} | change)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
