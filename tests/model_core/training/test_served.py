"""From data to an answer over HTTP: what is trained is exported and served like any other model."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from export.artifact import Precision
from export.catalogue import recipe
from export.pipeline import export
from model_core.training.loop import evaluating
from model_core.training.recipes.classify import class_scores
from model_core.training.recipes.embed import EmbedTask
from model_core.training.rows import Rows
from service.app import create_app
from service.living import ModelGroup
from service.metrics import Metrics
from service.registry import Registry
from service.settings import ServiceSettings
from tests.support.reports import silent
from tests.support.service import client_of
from tests.support.training import (
    TINY_LLAMA,
    classify_settings,
    embed_settings,
    go,
    seq2seq_settings,
    with_settings,
    write_labelled,
    write_matches,
    write_pairs,
    write_sentences,
)


@asynccontextmanager
async def service_of(checkpoint: Path, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application over the artifact of `checkpoint`, exported into `folder`."""
    wanted = recipe(str(checkpoint), Precision.FP32, name="trained")
    artifact = export(wanted, folder / "cache", silent, folder / "artifact")
    settings = ServiceSettings(models=(str(artifact),), slots=4, threads=1)
    group = ModelGroup(settings, Registry(), Metrics())
    group.load()
    try:
        app = create_app(group.registry, group.settings, group.metrics)
        async with client_of(app) as client:
            yield client
    finally:
        group.close()


async def post(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(path, json={"model": "trained", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_trained_classifier_names_labels_over_http(tmp_path: Path):
    data = write_labelled(tmp_path / "data.jsonl")
    go("classify", classify_settings(data), tmp_path / "run")
    async with service_of(tmp_path / "run" / "best", tmp_path) as client:
        texts = ["the old dog", "near one soup", "quite a lake"]
        found = await post(client, "/v1/classify", {"input": texts})
        assert [each["label"] for each in found["data"]] == ["animal", "food", "place"]


async def test_a_trained_classifier_of_several_labels_gives_each_its_probability(tmp_path: Path):
    data = write_labelled(tmp_path / "data.jsonl", several=True)
    settings = with_settings(classify_settings(data, steps=150), multi_label=True)
    begun = go("classify", settings, tmp_path / "run").prepared.start
    texts = ["near dog quite city one old the", "one old near the quite"]
    with evaluating(begun.model):
        rows = Rows.of([begun.tokenizer.encode(text) for text in texts], torch.device("cpu"))
        expected = class_scores(begun, rows).sigmoid()
    async with service_of(tmp_path / "run" / "best", tmp_path) as client:
        found = await post(client, "/v1/classify", {"input": texts, "threshold": 0.5})
        assert [labels_above(each) for each in found["data"]] == [["animal", "place"], []]
        for answer, scores in zip(found["data"], expected, strict=True):
            # ONNX Runtime sums in another order.
            assert answer["probs"] == pytest.approx(scores.tolist(), abs=1e-5)


def labels_above(answer: dict[str, Any]) -> Sequence[str]:
    return sorted(each["label"] for each in answer["labels"])


async def test_a_trained_encoder_decoder_answers_over_http(tmp_path: Path):
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    go("seq2seq", seq2seq_settings(pairs), tmp_path / "run")
    async with service_of(tmp_path / "run" / "best", tmp_path) as client:
        for source in ("ab", "hdg", "cafe"):
            found = await post(client, "/v1/completions", {"prompt": source, "max_tokens": 8})
            target = " ".join(f"{letter.upper()}1" for letter in source)
            assert found["choices"][0]["text"] == target
            assert found["choices"][0]["finish_reason"] == "stop"


async def test_a_model_trained_to_continue_texts_does_over_http(tmp_path: Path):
    texts = write_sentences(tmp_path / "texts.jsonl")
    settings = {
        "model": {"architecture": TINY_LLAMA},
        "data": {"train": str(texts), "max_tokens": 32},
        "tokenizer": {"vocab_size": 320},
        "optimizer": {"learning_rate": 1e-2},
        "training": {"steps": 60, "batch_size": 8, "evaluate_every": 30},
    }
    go("causal_lm", settings, tmp_path / "run")
    async with service_of(tmp_path / "run" / "best", tmp_path) as client:
        for prompt, expected in (("the cat", " purrs in the"), ("the fish", " swims in the")):
            body = {"prompt": prompt, "max_tokens": 12, "temperature": 0}
            found = await post(client, "/v1/completions", body)
            assert found["choices"][0]["text"].startswith(expected)
            assert found["choices"][0]["finish_reason"] == "stop"


async def test_a_model_trained_to_embed_gives_its_vectors_over_http(tmp_path: Path):
    data = write_matches(tmp_path / "data.jsonl")
    task = go("embed", embed_settings(data, steps=10), tmp_path / "run").prepared.task
    assert isinstance(task, EmbedTask)
    texts = ["a so k", "then A K and more"]
    with evaluating(task.model):
        ids = [task.begun.tokenizer.encode(text) for text in texts]
        expected = task.vectors(Rows.of(ids, torch.device("cpu")))
    async with service_of(tmp_path / "run" / "last", tmp_path) as client:
        found = await post(client, "/v1/embeddings", {"input": texts})
        for answer, vector in zip(found["data"], expected, strict=True):
            assert answer["embedding"] == pytest.approx(vector.tolist(), abs=1e-5)
