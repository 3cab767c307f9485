"""What reads texts, exported: sentence-transformers' modules, cross-encoders, scores of tokens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    PreTrainedModel,
)

from export.artifact import Artifact, Precision, Scoring
from export.catalogue import recipe
from export.pipeline import export
from export.session import Provider, Session
from model_core.checkpoints.errors import CheckpointError
from model_core.tokenization import Tokenizer
from service.engines.pooling import pack
from tests.support.checkpoints import write_tokenizer
from tests.support.families import CASES
from tests.support.families.bert import config
from tests.support.families.case import draw
from tests.support.reports import silent

TEXTS = ("time flies", "b", "an arrow")
TOLERANCE = 1e-4  # float32 through other kernels, relative to the output's scale


def saved(model: PreTrainedModel, folder: Path) -> Path:
    draw(model, 0, 2.5).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def exported(source: Path, folder: Path) -> Artifact:
    wanted = recipe(str(source), Precision.FP32)
    return Artifact.open(export(wanted, folder / "cache", silent, folder / "artifact"))


def run(artifact: Artifact, texts: list[list[int]], types: list[int] | None = None) -> NDArray[Any]:
    feeds = pack(texts, token_types=True)
    if types is not None:
        feeds["token_type_ids"] = np.array(types)
    (served,) = artifact.manifest.served
    return Session(artifact.graph, Provider.CPU, 1).run(feeds, [served.output])[0]


def error(found: NDArray[Any], expected: torch.Tensor) -> float:
    return float(np.abs(found - expected.numpy()).max() / expected.abs().max())


@torch.inference_mode()
def test_sentence_transformers_modules_are_part_of_the_graph(tmp_path: Path) -> None:
    source = tmp_path / "checkpoint"
    model = BertModel(config())
    saved(model, source)
    kinds = ["Transformer", "Pooling", "Dense", "Normalize"]
    write(source / "modules.json", [
        {"idx": n, "name": str(n), "path": f"{n}_{kind}" if n else "",
         "type": f"sentence_transformers.models.{kind}"}
        for n, kind in enumerate(kinds)
    ])  # fmt: skip
    write(source / "1_Pooling" / "config.json", {
        "word_embedding_dimension": 32, "pooling_mode_cls_token": True,
        "pooling_mode_mean_tokens": True,
    })  # fmt: skip
    write(source / "2_Dense" / "config.json", {
        "in_features": 64, "out_features": 12, "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    })  # fmt: skip
    dense = torch.nn.Linear(64, 12)
    named = {f"linear.{name}": value for name, value in dense.state_dict().items()}
    save_file(named, source / "2_Dense" / "model.safetensors")
    write(source / "config_sentence_transformers.json", {
        "prompts": {"query": "ask: ", "document": ""}, "default_prompt_name": "query",
    })  # fmt: skip
    artifact = exported(source, tmp_path)

    tokenizer = Tokenizer.load(artifact.folder)
    texts = tokenizer.encode_batch(TEXTS)
    rows = [model(torch.tensor([text])).last_hidden_state[0] for text in texts]
    pooled = torch.stack([torch.cat((row[0], row.mean(0))) for row in rows])
    expected = torch.nn.functional.normalize(torch.tanh(dense(pooled)), dim=-1)
    assert error(run(artifact, texts), expected) <= TOLERANCE
    manifest = artifact.manifest
    assert manifest.served[0].dim == 12
    assert manifest.sentence is not None
    assert manifest.sentence.prompts[manifest.sentence.default_prompt or ""] == "ask: "


@torch.inference_mode()
def test_a_cross_encoder_scores_pairs_with_token_types(tmp_path: Path) -> None:
    # What sentence-transformers writes into a cross-encoder's config.json, now and before.
    shape: BertConfig = config(
        num_labels=1,
        sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"},
        sbert_ce_default_activation_function="torch.nn.modules.linear.Identity",
    )
    model = BertForSequenceClassification(shape)
    artifact = exported(saved(model, tmp_path / "checkpoint"), tmp_path)
    assert artifact.manifest.served[0].scoring is Scoring.IDENTITY

    query, documents = [5, 6, 7], [[40, 41], [42, 43, 44, 45], [9]]
    pairs = [[*query, *document] for document in documents]
    types = [[0] * len(query) + [1] * len(document) for document in documents]
    expected = torch.cat([
        model(torch.tensor([pair]), token_type_ids=torch.tensor([kinds])).logits
        for pair, kinds in zip(pairs, types, strict=True)
    ])  # fmt: skip
    found = run(artifact, pairs, [kind for kinds in types for kind in kinds])
    assert error(found, expected) <= TOLERANCE


@torch.inference_mode()
def test_token_classes_come_for_every_token(tmp_path: Path) -> None:
    model = BertForTokenClassification(config(num_labels=4))
    artifact = exported(saved(model, tmp_path / "checkpoint"), tmp_path)
    assert artifact.manifest.served[0].per_token
    texts = [[5, 6, 7], [40], [9, 10, 11, 12, 13]]
    expected = torch.cat([model(torch.tensor([text])).logits[0] for text in texts])
    assert error(run(artifact, texts), expected) <= TOLERANCE


def test_heads_of_an_encoder_decoder_that_don_t_write_are_refused_by_name(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "BART")
    source = tmp_path / "checkpoint"
    case.reference("sequence_classifier").save_pretrained(source)
    write_tokenizer(source)
    with pytest.raises(CheckpointError, match="BartForSequenceClassification"):
        exported(source, tmp_path)
