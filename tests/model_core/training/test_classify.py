"""Classifiers learn what words say of labels, one or several, and know how sure they may be."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from model_core.attention import Explicit
from model_core.checkpoints.load import load
from model_core.checkpoints.sources import locate
from model_core.training.errors import TrainingError
from model_core.training.metrics import several_f1, temperature
from model_core.training.recipes.classify import (
    ClassifyTask,
    weights_of_one,
    weights_of_several,
)
from model_core.training.run_folder import RunFolder
from tests.support.training import (
    FILLING,
    TINY_BERT,
    TINY_LLAMA,
    classify_settings,
    go,
    with_settings,
    write_labelled,
    write_rows,
)


@pytest.mark.parametrize("architecture", [TINY_BERT, TINY_LLAMA], ids=["encoder", "decoder"])
def test_a_classifier_beats_the_majority_class(tmp_path: Path, architecture: dict[str, Any]):
    data = write_labelled(tmp_path / "data.jsonl")
    settings = classify_settings(data)
    settings["model"] = {"architecture": architecture}
    outcome = go("classify", settings, tmp_path / "run")
    figures, baseline = outcome.figures, outcome.prepared.baseline
    assert 0.3 < baseline["accuracy"] < 0.7
    assert figures["accuracy"] > 0.95
    assert figures["macro_f1"] > 0.95 > 3 * baseline["macro_f1"]
    assert figures["loss"] < 0.2 < baseline["loss"]
    located = locate(str(tmp_path / "run" / "best"), cache=tmp_path)
    loaded = load(located, Explicit(), ("sequence_classifier",))
    assert loaded.description.labels == ("animal", "food", "place")
    assert not loaded.description.multi_label


def test_several_labels_at_once_are_told_apart(tmp_path: Path):
    data = write_labelled(tmp_path / "data.jsonl", several=True)
    settings = with_settings(classify_settings(data, steps=150), multi_label=True)
    outcome = go("classify", settings, tmp_path / "run")
    assert outcome.figures["exact_match"] > 0.9 > 2 * outcome.prepared.baseline["exact_match"]
    assert outcome.figures["macro_f1"] > 0.9
    loaded = load(locate(str(tmp_path / "run" / "best"), cache=tmp_path), Explicit())
    assert loaded.description.multi_label


def test_labels_that_mean_nothing_teach_nothing(tmp_path: Path):
    draw = random.Random(1)
    rows = [{"text": " ".join(draw.choices(FILLING, k=5)), "label": draw.choice("ab")}
            for _ in range(400)]  # fmt: skip
    data = write_rows(tmp_path / "data.jsonl", rows)
    figures = go("classify", classify_settings(data, steps=30), tmp_path / "run").figures
    assert figures["accuracy"] < 0.7


def test_a_checkpoint_gets_a_new_head_and_keeps_one_for_the_same_labels(tmp_path: Path):
    data = write_labelled(tmp_path / "data.jsonl")
    first = go("classify", classify_settings(data), tmp_path / "first")
    settings = classify_settings(data, steps=1)
    settings["model"] = {"source": str(tmp_path / "first" / "best")}
    settings["optimizer"] = {"learning_rate": 1e-9}
    again = go("classify", with_settings(settings, calibrate=False), tmp_path / "again")
    assert again.figures["loss"] == pytest.approx(first.figures["loss"], abs=1e-4)
    other = write_rows(tmp_path / "other.jsonl", [
        {"text": f"cat {number}", "label": "odd" if number % 2 else "even"} for number in range(99)
    ])  # fmt: skip
    settings["data"] = {"train": str(other), "validation_share": 0.2}
    start = go("classify", settings, tmp_path / "new").prepared.start
    assert start.description.labels == ("even", "odd")


def test_a_temperature_makes_confidence_true_and_leaves_answers(tmp_path: Path):
    data = write_labelled(tmp_path / "data.jsonl")
    outcome = go("classify", classify_settings(data, steps=40), tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    best = folder.path("best")
    assert best is not None
    assert best.name == "calibrated"
    plain = outcome.story.measurements[-1].figures
    assert outcome.figures["accuracy"] == max(
        each.figures["accuracy"] for each in outcome.story.measurements
        if each.step == outcome.story.best_step
    )  # fmt: skip
    assert outcome.figures["loss"] <= plain["loss"] + 1e-6 or outcome.story.best_step != 40
    # Logits that are three times too large.
    torch.manual_seed(0)
    logits = torch.randn(4000, 4)
    labels = torch.multinomial(logits.softmax(-1), 1)[:, 0]
    assert temperature(3 * logits, labels) == pytest.approx(3.0, rel=0.1)
    several = torch.bernoulli(logits.sigmoid())
    found = temperature(3 * logits, several, F.binary_cross_entropy_with_logits)
    assert found == pytest.approx(3.0, rel=0.1)


def test_balance_weighs_rare_labels_up_and_leaves_the_mean():
    labels = torch.tensor([0] * 9 + [1])
    weights = weights_of_one(labels, 2, 1.0)
    assert (weights[1] / weights[0]).item() == pytest.approx(9.0)
    assert weights[labels].mean().item() == pytest.approx(1.0)
    assert weights_of_one(labels, 2, 0.0).tolist() == [1.0, 1.0]
    several = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    assert weights_of_several(several, 2, 1.0).tolist() == pytest.approx([1 / 3, 3.0])


def test_f1_of_several_labels_by_hand():
    said = torch.tensor([[1, 0, 0], [1, 1, 0]]).bool()
    true = torch.tensor([[1, 1, 0], [0, 1, 0]]).bool()
    # Hits 1 and 1, said 2 and 1, true 1 and 2; the third label doesn't occur.
    assert several_f1(said, true) == pytest.approx((4 / 6, (2 / 3 + 2 / 3) / 2))


def test_a_batch_scores_as_its_texts_do_alone(tmp_path: Path):
    data = write_labelled(tmp_path / "data.jsonl", 60)
    task = go("classify", classify_settings(data, steps=1), tmp_path / "run").prepared.task
    assert isinstance(task, ClassifyTask)
    task.model.eval()
    with torch.no_grad():
        together = task.scores()
        task.limits = {"rows": 1}
        # Sums of float32 in another order.
        torch.testing.assert_close(task.scores(), together, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("rows", "multi_label", "said"),
    [
        ([{"text": str(n), "label": "a"} for n in range(50)], False, "only the label 'a'"),
        ([{"text": str(n), "label": []} for n in range(50)], True, "no label at all"),
        ([{"text": str(n)} for n in range(50)], False, r"no column 'label'.*--label-column"),
        ([{"text": "one", "label": "a"}], False, "none is left to"),
    ],
)
def test_data_that_tells_nothing_apart_is_refused(
    tmp_path: Path, rows: list[dict[str, Any]], multi_label: bool, said: str
):
    data = write_rows(tmp_path / "data.jsonl", rows)
    settings = with_settings(classify_settings(data), multi_label=multi_label)
    with pytest.raises(TrainingError, match=said):
        go("classify", settings, tmp_path / "run")


def test_texts_that_are_too_long_are_cut_and_counted(tmp_path: Path):
    rows = [{"text": "cat " * (5 + 50 * (n % 2)), "label": "ab"[n % 2]} for n in range(60)]
    rows = [{**row, "text": f"{n} {row['text']}"} for n, row in enumerate(rows)]
    data = write_rows(tmp_path / "data.jsonl", rows)
    prepared = go("classify", classify_settings(data, steps=1), tmp_path / "run").prepared
    assert prepared.facts["texts cut short"] == "30, to 32 tokens"


def test_an_encoder_without_such_a_head_is_refused(tmp_path: Path):
    data = write_labelled(tmp_path / "data.jsonl", 60)
    settings = classify_settings(data)
    settings["model"] = {"architecture": {
        "model_type": "transformer", "d_model": 32, "nhead": 4, "num_encoder_layers": 1,
        "num_decoder_layers": 1, "dim_feedforward": 64, "max_position_embeddings": 32,
    }}  # fmt: skip
    with pytest.raises(TrainingError, match="no sequence classifier head"):
        go("classify", settings, tmp_path / "run")
