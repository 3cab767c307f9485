"""A smaller model learns what a larger one says, from some of whose layers it starts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model_core.attention import Fused
from model_core.checkpoints.load import assemble, describe_config, load
from model_core.checkpoints.sources import locate
from model_core.training.distillation import Distilled, hidden_loss, soft_loss
from model_core.training.errors import TrainingError
from model_core.training.fewer_layers import with_layers_left_out
from model_core.training.outputs import Outputs
from model_core.training.starting_point import NoTensors
from tests.support.training import (
    TINY_BERT,
    TINY_LLAMA,
    classify_settings,
    embed_settings,
    go,
    masked_settings,
    seq2seq_settings,
    stop_after,
    with_settings,
    write_labelled,
    write_matches,
    write_pairs,
    write_sentences,
)

GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_head": 4, "n_positions": 32, "n_layer": 2}
LAYERS = "num_hidden_layers"


def test_the_soft_loss_is_the_divergence_of_softened_answers():
    ours, theirs = torch.randn(5, 7), torch.randn(5, 7)
    p, q = ((x / 3).softmax(-1) for x in (theirs, ours))
    expected = (p * (p / q).log()).sum() * 9
    found = soft_loss(Outputs(ours, ours).choices(), Outputs(theirs, theirs).choices(), 3.0)
    torch.testing.assert_close(found, expected)
    # Labels of which several may hold are a choice each, and a text's loss is their mean.
    several = [Outputs(x, x, several=True).choices() for x in (ours, theirs)]
    p, q = (x.sigmoid() for x in (theirs, ours))
    of_each = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    torch.testing.assert_close(soft_loss(several[0], several[1], 1.0), of_each.mean(1).sum())
    assert soft_loss(several[0], several[0], 2.0) == 0


def test_hidden_states_are_compared_by_their_direction():
    states = torch.randn(6, 8)
    assert hidden_loss(states * 5, states) == pytest.approx(0, abs=1e-6)
    assert hidden_loss(-states, states) == pytest.approx(2, abs=1e-6)


@pytest.mark.parametrize(
    ("architecture", "count", "head"),
    [
        ({**TINY_BERT, LAYERS: 5}, LAYERS, "masked_lm"),
        ({**TINY_LLAMA, LAYERS: 5}, LAYERS, "language_model"),
        ({**GPT2, "n_layer": 5}, "n_layer", "language_model"),
    ],
    ids=["BERT", "Llama", "GPT-2"],
)
def test_a_smaller_model_starts_from_layers_of_the_larger(
    architecture: dict[str, Any], count: str, head: str
):
    description = describe_config({"vocab_size": 50, **architecture})
    model = assemble(description.config(NoTensors()), description, Fused(), (head,))
    student, smaller = with_layers_left_out(model, description, 2, NoTensors())
    assert smaller.values[count] == 2
    own, its = dict(model.named_parameters()), dict(student.named_parameters())
    for name, value in its.items():
        # Of five layers two are the first and the third.
        source = name.replace(".blocks.1.", ".blocks.2.")
        assert torch.equal(value, own[source]), name
    with pytest.raises(TrainingError, match=r"layers is 5, but .* has 5; name fewer"):
        with_layers_left_out(model, description, 5, NoTensors())


def test_layers_that_differ_are_chosen_with_what_they_are():
    kinds = ["sliding_attention", "sliding_attention", "full_attention", "full_attention"]
    values = {
        **TINY_LLAMA, "model_type": "gemma2", "vocab_size": 50, "head_dim": 8,
        "sliding_window": 4, LAYERS: 4, "layer_types": kinds,
    }  # fmt: skip
    description = describe_config(values)
    model = assemble(description.config(NoTensors()), description, Fused(), ("language_model",))
    _, smaller = with_layers_left_out(model, description, 2, NoTensors())
    assert smaller.values["layer_types"] == ["sliding_attention", "full_attention"]


def distilled(settings: dict[str, Any], teacher: Path, **section: Any) -> dict[str, Any]:
    values = {**settings, "model": {"source": str(teacher)}}
    values.pop("tokenizer")
    return with_settings(values, distillation={"layers": 1, **section})


RUNS: list[tuple[str, Callable[[Path], Path], Callable[..., dict[str, Any]], float]] = [
    ("classify", write_labelled, classify_settings, 0.9),
    ("masked_lm", write_sentences, masked_settings, 0.8),
    ("embed", write_matches, embed_settings, 0.8),
]


@pytest.mark.parametrize(("recipe", "write", "settings", "share"), RUNS)
def test_a_student_keeps_most_of_its_teachers_score(
    tmp_path: Path,
    recipe: str,
    write: Callable[[Path], Path],
    settings: Callable[..., dict[str, Any]],
    share: float,
):
    data = write(tmp_path / "data.jsonl")
    go(recipe, settings(data), tmp_path / "teacher")
    teacher = tmp_path / "teacher" / "best"
    outcome = go(recipe, distilled(settings(data, steps=60), teacher), tmp_path / "run")
    task = outcome.prepared.task
    assert isinstance(task, Distilled)
    name, figures = task.choice.figure, outcome.figures
    theirs, ours = figures[f"teacher_{name}"], figures[name]
    assert figures["share_of_teacher"] == pytest.approx(
        ours / theirs if task.choice.higher else theirs / ours, rel=1e-4
    )
    assert figures["share_of_teacher"] > share
    if recipe != "embed":  # whose baseline is the student before it learned
        baseline = outcome.prepared.baseline[name]
        assert ours > baseline + 0.2 if task.choice.higher else ours < baseline - 0.2
    assert all(parameter.grad is None for parameter in task.teacher.model.parameters())
    heads = () if outcome.prepared.start.head is None else (outcome.prepared.start.head,)
    found = load(locate(str(tmp_path / "run" / "best"), cache=tmp_path), Fused(), heads)
    assert found.config.output_stack.layers == 1


def causal(texts: Path, **training: Any) -> dict[str, Any]:
    return {
        "model": {"architecture": TINY_LLAMA},
        "data": {"train": str(texts), "max_tokens": 16},
        "tokenizer": {"vocab_size": 300},
        "optimizer": {"learning_rate": 5e-3},
        "training": {"steps": 40, "batch_size": 8, "evaluate_every": 20, **training},
    }


def test_what_is_said_softly_is_part_of_the_loss_and_a_run_goes_on(tmp_path: Path):
    texts = write_sentences(tmp_path / "texts.jsonl", 300)
    go("causal_lm", causal(texts), tmp_path / "teacher")
    teacher = tmp_path / "teacher" / "best"
    settings = distilled(causal(texts, steps=6, evaluate_every=4), teacher)
    whole = go("causal_lm", settings, tmp_path / "whole")
    go("causal_lm", settings, tmp_path / "cut", is_stopping=stop_after(3))
    resumed = go("causal_lm", settings, tmp_path / "cut", resume=True)
    assert [s.loss for s in resumed.story.steps] == [s.loss for s in whole.story.steps]
    nothing = {"soft": 0, "hard": 0, "hidden": 0}
    losses: dict[str, float] = {}
    for part in nothing:
        alone = distilled(causal(texts, steps=1), teacher, **{**nothing, part: 1})
        losses[part] = go("causal_lm", alone, tmp_path / part).story.steps[0].loss
    together = 5 * losses["soft"] + 2 * losses["hard"] + losses["hidden"]
    assert whole.story.steps[0].loss == pytest.approx(together, rel=1e-5)
    assert losses["soft"] > 0.01
    assert 0.001 < losses["hidden"] < 2


def test_there_has_to_be_something_to_learn_from(tmp_path: Path):
    data = write_labelled(tmp_path / "data.jsonl")
    scratch = with_settings(classify_settings(data), distillation={"layers": 1})
    with pytest.raises(TrainingError, match="distillation learns from a checkpoint"):
        go("classify", scratch, tmp_path / "run")
    texts = write_sentences(tmp_path / "texts.jsonl")
    go("masked_lm", masked_settings(texts, steps=1), tmp_path / "trunk")
    trunk = tmp_path / "trunk" / "best"
    with pytest.raises(TrainingError, match="no sequence classifier for this data"):
        go("classify", distilled(classify_settings(data), trunk), tmp_path / "run")
    both = with_settings(distilled(masked_settings(texts), trunk), lora={"rank": 2})
    with pytest.raises(TrainingError, match="name lora or distillation"):
        go("masked_lm", both, tmp_path / "run")
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    with pytest.raises(TrainingError, match="distillation is no key"):
        go("seq2seq", with_settings(seq2seq_settings(pairs), distillation={"layers": 1}),
           tmp_path / "run")  # fmt: skip
