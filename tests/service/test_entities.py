"""Entities: those that transformers' pipeline finds in what the same model says, and where."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertForTokenClassification,
    RobertaConfig,
    RobertaForTokenClassification,
    TokenClassificationPipeline,
)
from typer.testing import CliRunner

from export.artifact import Precision
from export.catalogue import recipe
from export.pipeline import export
from model_core.tokenization import Span, Tokenizer
from service import entities
from service.app import create_app
from service.client import AsyncClient, Entity
from service.entities import Aggregation, entities_of
from service.living import ModelGroup
from service.metrics import Metrics
from service.offline_commands import app
from service.registry import Registry
from service.settings import ServiceSettings
from tests.support.checkpoints import draw_widely, tiny_bert_config
from tests.support.reports import silent
from tests.support.service import BASE_URL, client_of
from tests.support.vocabularies import BERT, Layout, byte_level, word_pieces

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC")
TEXTS = (
    "hello world, the quick brown fox jumps",
    "time flies like an arrow; fruit flies like a banana",
    "Ärger über Öl: die Straße 🙂🙃 ist größer, c'est naïve",
    "日本語のテキスト [SEP] zzz",
)
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def bert(folder: Path) -> Any:
    Layout("BertTokenizer", word_pieces(BERT), {"unk_token": "[UNK]"}).write(folder)
    config = tiny_bert_config(vocab_size=300, max_position_embeddings=96)
    return draw_widely(BertForTokenClassification(labelled(config)))


def roberta(folder: Path) -> Any:
    names = ("bos_token", "pad_token", "eos_token", "unk_token", "mask_token")
    tokens: dict[str, Any] = dict(zip(names, SPECIAL, strict=True))
    Layout("RobertaTokenizer", byte_level(SPECIAL), tokens, "roberta").write(folder)
    config = RobertaConfig(
        vocab_size=400, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=98, type_vocab_size=1, pad_token_id=1,
    )  # fmt: skip
    return draw_widely(RobertaForTokenClassification(labelled(config)))


def labelled(config: Any) -> Any:
    config.id2label = dict(enumerate(LABELS))
    config.label2id = {label: number for number, label in enumerate(LABELS)}
    return config


def checkpoint(folder: Path, make: Callable[[Path], Any]) -> Path:
    model = make(folder)
    # Else whatever the text, one label is the likeliest of all.
    model.classifier.bias.data.zero_()
    model.classifier.weight.data *= 4
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=[bert, roberta], ids=["word pieces", "bytes"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("tagger") / "model", request.param)


def pipeline_of(folder: Path, strategy: Aggregation) -> Callable[[str], list[dict[str, Any]]]:
    kinds = {"bert": BertForTokenClassification, "roberta": RobertaForTokenClassification}
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = kinds["roberta" if "Roberta" in type(tokenizer).__name__ else "bert"]
    made: Any = TokenClassificationPipeline(
        model=model.from_pretrained(folder),
        tokenizer=tokenizer,
        aggregation_strategy=strategy.value,
        device=torch.device("cpu"),
    )
    return made


@pytest.mark.parametrize("strategy", list(Aggregation))
@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_entities_are_those_of_transformers_pipeline(folder: Path, strategy: Aggregation) -> None:
    reference: Any = pipeline_of(folder, strategy)
    tokenizer = Tokenizer.from_files({path.name: path for path in folder.iterdir()})
    found_any = 0
    for text in TEXTS:
        expected = reference(text)
        spans = tokenizer.spans(text)
        with torch.inference_mode():
            ids = torch.tensor([[span.token_id for span in spans]])
            logits = reference.model(input_ids=ids).logits[0]
        found = entities_of(spans, torch.softmax(logits, -1).numpy(), LABELS, strategy)
        found_any += len(found)
        key = "entity" if strategy is Aggregation.NONE else "entity_group"
        places = [(item[key], item["start"], item["end"]) for item in expected]
        assert [(item.label, item.start, item.stop) for item in found] == places, text
        # One rounding of a mean of probabilities in float32.
        np.testing.assert_allclose(
            [item.score for item in found], [item["score"] for item in expected], rtol=1e-5
        )
    assert found_any > len(TEXTS), "the texts have several entities"


def tagged(*labels: str, strategy: Aggregation = Aggregation.SIMPLE) -> list[entities.Entity]:
    """Entities of a text of one letter a token, each a word's beginning, surely of a label."""
    known = sorted(set(labels))
    scores = np.array([[float(name == label) for name in known] for label in labels], np.float32)
    spans = [Span(0, "a", False, place, place + 1) for place in range(len(labels))]
    return entities_of(spans, scores, known, strategy)


def test_a_label_that_begins_an_entity_ends_the_one_before() -> None:
    found = tagged("B-X", "I-X", "B-X", "O", "I-X", "Y", "Y")
    assert [(item.label, item.start, item.stop) for item in found] == [
        ("X", 0, 2), ("X", 2, 3), ("X", 4, 5), ("Y", 5, 7),
    ]  # fmt: skip


def test_a_text_of_nothing_has_no_entities() -> None:
    frame = Span(1, "[CLS]", True, None, None)
    assert entities_of([frame], np.ones((1, 2), np.float32), ("O", "X"), Aggregation.FIRST) == []


# --- as it is served -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = checkpoint(tmp_path_factory.mktemp("served") / "model", bert)
    made = export(
        recipe(str(folder), Precision.FP32, name="tagger"), folder.with_name("cache"), silent
    )
    settings = ServiceSettings(models=(str(made),), threads=1)
    group = ModelGroup(settings, Registry(), Metrics())
    group.load()
    try:
        yield group, folder
    finally:
        group.close()


async def posted(group: ModelGroup, path: str, **body: Any) -> Any:
    made = create_app(group.registry, group.settings, group.metrics)
    async with client_of(made) as client:
        return await client.post(path, json=body)


async def test_a_tagger_answers_with_entities_and_their_places(served: Any) -> None:
    group, folder = served
    reference = pipeline_of(folder, Aggregation.MAX)
    answer = await posted(
        group, "/v1/classify", input=list(TEXTS), aggregation_strategy="max", model="tagger"
    )
    assert answer.status_code == 200, answer.text
    for text, item in zip(TEXTS, answer.json()["data"], strict=True):
        expected = reference(text)
        assert [(e["label"], e["start"], e["end"]) for e in item["entities"]] == [
            (e["entity_group"], e["start"], e["end"]) for e in expected
        ]
        assert all(e["text"] == text[e["start"] : e["end"]] for e in item["entities"])
        np.testing.assert_allclose(
            [e["score"] for e in item["entities"]], [e["score"] for e in expected], rtol=1e-4
        )


async def test_every_token_comes_with_its_scores_on_request(served: Any) -> None:
    group, _ = served
    body: dict[str, Any] = {"input": TEXTS[0], "token_scores": True}
    sure = (await posted(group, "/classify", **body)).json()
    raw = (await posted(group, "/classify", **body, raw_scores=True)).json()
    assert sure["labels"] == list(LABELS)
    (item,), (other,) = sure["data"], raw["data"]
    assert item["tokens"][0]["text"] == "hello"
    probs = np.array([token["probs"] for token in item["tokens"]])
    scores = np.array([token["scores"] for token in other["tokens"]])
    assert probs.shape == (len(item["tokens"]), len(LABELS))
    np.testing.assert_allclose(probs, np.exp(scores) / np.exp(scores).sum(-1, keepdims=True), 1e-4)
    assert item["entities"] == other["entities"]


@pytest.mark.parametrize("truncation", ["left", "right"])
async def test_places_are_those_of_the_whole_text_where_it_is_cut(
    served: Any, truncation: str
) -> None:
    group, _ = served
    text = "🙂 " * 4000 + TEXTS[0] + " arrow" * 4000
    body: dict[str, Any] = {"input": [text], "token_scores": True, "ignore_labels": []}
    answer = await posted(group, "/v1/classify", **body, truncation=truncation)
    (item,) = answer.json()["data"]
    assert item["truncated"]
    assert len(item["tokens"]) == 94, "with [CLS] and [SEP] what the model takes"
    assert all(token["text"] == text[token["start"] : token["end"]] for token in item["tokens"])
    edge = item["tokens"][-1 if truncation == "left" else 0]
    assert edge["end" if truncation == "left" else "start"] == (
        len(text) if truncation == "left" else 0
    )


async def test_entities_are_left_out_by_label_and_by_score(served: Any) -> None:
    group, _ = served
    everything = (await posted(group, "/classify", input=TEXTS[1], ignore_labels=[])).json()
    entities = everything["data"][0]["entities"]
    label = entities[0]["label"]
    others = await posted(group, "/classify", input=TEXTS[1], ignore_labels=[label])
    assert others.json()["data"][0]["entities"] == [e for e in entities if e["label"] != label]
    least = sorted(entity["score"] for entity in entities)[len(entities) // 2]
    sure = await posted(group, "/classify", input=TEXTS[1], ignore_labels=[], threshold=least)
    assert sure.json()["data"][0]["entities"] == [e for e in entities if e["score"] >= least]


@pytest.mark.parametrize(("body", "param"), [
    ({"input": [[1, 2]]}, "input"),
    ({"input": [5, 6]}, "input"),
    ({"input": ["a", ""]}, "input[1]"),
    ({"input": "a", "top_k": 2}, "top_k"),
    ({"input": "a " * 200}, "input"),
    ({"input": "a", "aggregation_strategy": "last"}, "aggregation_strategy"),
])  # fmt: skip
async def test_what_a_tagger_cant_answer_is_refused_by_name(
    served: Any, body: dict[str, Any], param: str
) -> None:
    answer = await posted(served[0], "/v1/classify", **body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def over(group: ModelGroup) -> AsyncClient:
    made = create_app(group.registry, group.settings, group.metrics)
    return AsyncClient(BASE_URL, transport=httpx.ASGITransport(made))


async def test_the_client_gives_entities_of_any_number_of_texts(served: Any) -> None:
    group, _ = served
    async with over(group) as client:
        found = await client.entities([*TEXTS, *TEXTS], batch=3, aggregation_strategy="first")
    assert found[: len(TEXTS)] == found[len(TEXTS) :]
    for text, row in zip(TEXTS, found[: len(TEXTS)], strict=True):
        assert all(entity.text == text[entity.start : entity.end] for entity in row)


def test_the_command_line_gives_the_same_entities(served: Any, tmp_path: Path) -> None:
    group, _ = served
    answer = asyncio.run(posted(group, "/v1/classify", input=list(TEXTS))).json()
    expected = [[Entity(**entity) for entity in item["entities"]] for item in answer["data"]]
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(TEXTS), encoding="utf-8")
    result = CliRunner().invoke(app, ["classify", group.settings.models[0], str(lines)])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
    for row, found in zip(rows, expected, strict=True):
        assert [(e["label"], e["start"], e["end"]) for e in row["entities"]] == [
            (e.label, e.start, e.end) for e in found
        ]


async def test_a_tagger_is_told_apart_from_a_classifier_of_texts(served: Any) -> None:
    group = cast(ModelGroup, served[0])
    made = create_app(group.registry, group.settings, group.metrics)
    async with client_of(made) as client:
        models = (await client.get("/v1/models")).json()["data"]
        info = (await client.get("/info")).json()["models"]
        refused = await client.post("/predict", json={"inputs": "a"})
    assert [model["task"] for model in models] == ["token_classify"]
    assert info[0]["labels"] == list(LABELS)
    assert refused.status_code == 424
    assert "no model is served for the task classify; served: tagger" in refused.json()["error"]
