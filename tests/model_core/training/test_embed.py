"""Vectors of texts that match come together, and what a batch holds twice is not held apart."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from model_core.checkpoints.sentence_transformers import read_sentence_config
from model_core.checkpoints.sources import locate
from model_core.config import PoolingMode
from model_core.sentence_config import SentenceConfig
from model_core.training.errors import TrainingError
from model_core.training.head import Embedder
from model_core.training.recipes.embed import (
    EmbedTask,
    Matches,
    Side,
    alike,
    ranking_loss,
    search_figures,
)
from tests.support.training import embed_settings, go, with_settings, write_matches, write_rows


@pytest.mark.parametrize("negative", [None, "negative"])
def test_matches_are_found_far_better_than_before_training(tmp_path: Path, negative: str | None):
    data = write_matches(tmp_path / "data.jsonl")
    settings = with_settings(embed_settings(data), data={"negative_column": negative})
    outcome = go("embed", with_settings(settings, matryoshka=[8]), tmp_path / "run")
    figures, before = outcome.figures, outcome.prepared.baseline
    assert figures["mrr"] > 0.8 > 2 * before["mrr"]
    assert figures["recall_at_10"] > 0.95
    assert figures["mrr_of_8_dims"] > 0.6
    located = locate(str(tmp_path / "run" / "best"), cache=tmp_path)
    sentence = read_sentence_config(located)
    assert sentence == SentenceConfig(max_tokens=32)


def test_what_is_measured_in_training_is_what_the_checkpoint_gives(tmp_path: Path):
    data = write_matches(tmp_path / "data.jsonl")
    task = go("embed", embed_settings(data, steps=3), tmp_path / "run").prepared.task
    assert isinstance(task, EmbedTask)
    located = locate(str(tmp_path / "run" / "last"), cache=tmp_path)
    embedder = Embedder.of(located)
    texts = ["a so k", "then A K", "b and t"]
    found = embedder.embed(texts, lambda done, total: None)
    ids = [embedder.tokenizer.encode(text) for text in texts]
    task.model.eval()
    with torch.no_grad():
        ours = torch.cat([task.vectors(task.rows(Side([row], torch.zeros(1)), [0])) for row in ids])
    torch.testing.assert_close(found, ours, atol=1e-6, rtol=1e-5)


def test_training_goes_on_from_an_embedding_model_as_it_pools(
    tmp_path: Path, minilm_files: Mapping[str, Path]
):
    rows = [{"anchor": f"number {n}", "positive": f"the number {n}"} for n in range(24)]
    settings = embed_settings(write_rows(tmp_path / "data.jsonl", rows), steps=1, batch_size=4)
    settings["model"] = {"source": str(minilm_files["config.json"].parent)}
    settings["optimizer"] = {"learning_rate": 1e-9}
    outcome = go("embed", settings, tmp_path / "run")
    assert outcome.figures["mrr"] == pytest.approx(outcome.prepared.baseline["mrr"])
    assert outcome.figures["mrr"] > 0.8
    located = locate(str(tmp_path / "run" / "best"), cache=tmp_path)
    sentence = read_sentence_config(located)
    assert sentence is not None
    assert (sentence.pooling, sentence.max_tokens) == ((PoolingMode.MEAN,), 256)
    assert located.licence == locate(settings["model"]["source"], cache=tmp_path).licence


def test_the_loss_is_a_softmax_over_cosines_times_the_scale():
    torch.manual_seed(0)
    anchors, candidates = torch.randn(3, 8), torch.randn(5, 8)
    left_out = torch.zeros(3, 5, dtype=torch.bool)
    expected = 0.0
    for row in range(3):
        cosines = torch.stack([F.cosine_similarity(anchors[row], c, dim=0) for c in candidates])
        expected -= (20 * cosines).log_softmax(0)[row]
    torch.testing.assert_close(ranking_loss(anchors, candidates, left_out, 20.0), expected)
    left_out[0, 1] = True
    without = ranking_loss(anchors[:1], candidates[[0, 2, 3, 4]], left_out[:1, :1].repeat(1, 4), 20)
    whole = ranking_loss(anchors[:1], candidates, left_out[:1], 20.0)
    torch.testing.assert_close(without, whole)


def test_the_same_text_and_the_same_anchors_match_are_not_held_apart():
    texts = [[1]] * 4
    matches = Matches(
        Side(texts, torch.tensor([0, 0, 1, 2])),
        Side(texts, torch.tensor([5, 6, 7, 6])),
        Side(texts, torch.tensor([9, 5, 9, 9])),
    )
    found = alike(matches, [0, 1, 2, 3]).nonzero().tolist()
    assert found == [[0, 1], [0, 5], [1, 0], [1, 3], [3, 1]]


def test_ranks_count_from_one_and_ties_against():
    anchors = torch.eye(4)
    left_out = torch.zeros(4, 4, dtype=torch.bool)
    perfect = search_figures(anchors, anchors, left_out)
    assert perfect == {"mrr": 1.0, "recall_at_1": 1.0, "recall_at_10": 1.0}
    nothing = search_figures(torch.ones(40, 4), torch.ones(40, 4), torch.zeros(40, 40).bool())
    assert nothing == pytest.approx({"mrr": 1 / 40, "recall_at_1": 0.0, "recall_at_10": 0.0})


def test_dims_that_vectors_do_not_have_are_refused(tmp_path: Path):
    data = write_matches(tmp_path / "data.jsonl")
    settings = with_settings(embed_settings(data), matryoshka=[16, 64])
    with pytest.raises(TrainingError, match=r"matryoshka is \[16, 64\]; vectors have 32 dims"):
        go("embed", settings, tmp_path / "run")
