"""Adapters: little is trained, and what is saved is a plain checkpoint that computes the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from model_core.attention import Fused, Padded
from model_core.checkpoints.load import assemble, describe_config, load
from model_core.checkpoints.sources import locate
from model_core.heads import TransformerWithHeads
from model_core.training.errors import TrainingError
from model_core.training.low_rank import Adapted, Adapter, adapt, merge, merged
from model_core.training.run_folder import (
    MOMENTS_FILE,
    PARAMETERS_FILE,
    RunFolder,
    trained_parameters,
)
from model_core.training.runs import LowRankSection
from model_core.training.starting_point import NoTensors
from tests.support.training import (
    TINY_BERT,
    TINY_LLAMA,
    classify_settings,
    go,
    stop_after,
    with_settings,
    write_labelled,
    write_rows,
)

ALBERT = {
    **TINY_BERT, "model_type": "albert", "vocab_size": 50, "embedding_size": 16,
    "num_hidden_groups": 1, "inner_group_num": 1,
}  # fmt: skip
EVERYWHERE = LowRankSection(rank=3, layers=("*attention.*", "feed_forward.*"))


def model_of(architecture: dict[str, Any], head: str) -> TransformerWithHeads:
    description = describe_config({"vocab_size": 50, **architecture})
    model = assemble(description.config(NoTensors()), description, Fused(), (head,))
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def logits_of(model: TransformerWithHeads) -> torch.Tensor:
    ids = torch.arange(12).reshape(2, 6)
    transformer = model.transformer
    read = transformer.decode if transformer.encoder is None else transformer.encode
    (head,) = model.heads.values()
    return head(read(ids, Padded.of(ids)))


def adapted(architecture: dict[str, Any], head: str, section: LowRankSection) -> Any:
    model = model_of(architecture, head)
    adapt(model, section, seed=0, new=None)
    return model


def learned(model: nn.Module) -> None:
    """Give the adapters something to add."""
    for name, parameter in trained_parameters(model).items():
        assert ".adapter." in name
        nn.init.normal_(parameter, std=0.2)


@pytest.mark.parametrize(
    ("architecture", "head"), [(TINY_LLAMA, "language_model"), (ALBERT, "masked_lm")]
)
@torch.no_grad()
def test_merged_layers_compute_what_adapted_ones_do(architecture: dict[str, Any], head: str):
    before = logits_of(model_of(architecture, head))
    model = adapted(architecture, head, EVERYWHERE)
    assert torch.equal(logits_of(model), before), "adapters add something before they learned"
    learned(model)
    expected = logits_of(model)
    assert (expected - before).abs().max() > 0.1
    names = set(model_of(architecture, head).state_dict())
    with merged(model):
        # W x + s·B A x against (W + s·B A) x: sums of float32 in another order.
        torch.testing.assert_close(logits_of(model), expected, rtol=1e-4, atol=1e-4)
        assert set(model.state_dict()) == names
    assert torch.equal(logits_of(model), expected), "what was merged for a while did not come back"
    merge(model)
    torch.testing.assert_close(logits_of(model), expected, rtol=1e-4, atol=1e-4)
    assert set(model.state_dict()) == names
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_adapters_alone_have_gradients():
    model = adapted(TINY_LLAMA, "language_model", LowRankSection(rank=2))
    learned(model)
    logits_of(model).square().sum().backward()
    named = dict(model.named_parameters())
    with_gradient = {name for name, value in named.items() if value.grad is not None}
    assert with_gradient == {
        f"transformer.decoder.blocks.{block}.attention.{part}.adapter.{side}.weight"
        for block in (0, 1) for part in ("query", "value") for side in ("down", "up")
    }  # fmt: skip
    assert all(named[name].grad.abs().max() > 0 for name in with_gradient)


def test_layers_that_share_a_weight_share_an_adapter():
    model = adapted(ALBERT, "masked_lm", LowRankSection(layers=("attention.query",)))
    places = [module for module in model.modules() if isinstance(module, Adapted)]
    assert len(places) == TINY_BERT["num_hidden_layers"]
    assert len({id(place.adapter) for place in places}) == 1


def test_a_share_of_what_adapters_read_is_dropped_in_training_alone():
    adapter = Adapter(8, 8, LowRankSection(dropout=0.5), torch.Generator().manual_seed(0))
    nn.init.ones_(adapter.up.weight)
    x = torch.ones(4, 8)
    assert torch.equal(adapter.eval()(x), adapter(x))
    assert not torch.equal(adapter.train()(x), adapter(x))


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (("attention.qurey",), r"'attention.qurey', which no layer .*attention.key"),
        (("language_model.output",), "whose weight is the embedding's too"),
    ],
)
def test_a_layer_that_can_not_be_adapted_is_named(layers: tuple[str, ...], said: str):
    with pytest.raises(TrainingError, match=said):
        adapted(TINY_LLAMA, "language_model", LowRankSection(layers=layers))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder that knows animals from all else."""
    folder = tmp_path_factory.mktemp("pretrained")
    lines = write_labelled(folder / "data.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    coarse = write_rows(folder / "coarse.jsonl", [
        {**row, "label": row["label"] if row["label"] == "animal" else "other"} for row in rows
    ])  # fmt: skip
    go("classify", classify_settings(coarse, steps=60), folder / "run")
    return folder / "run" / "best"


def tuned(data: Path, pretrained: Path, **training: Any) -> dict[str, Any]:
    settings = classify_settings(data, **training)
    settings["model"] = {"source": str(pretrained)}
    settings.pop("tokenizer")
    lora = {"rank": 4, "alpha": 8, "dropout": 0.1, "layers": ["*attention.*", "feed_forward.*"]}
    return with_settings(settings, lora=lora, optimizer={"learning_rate": 1e-2})


def test_adapters_on_a_loaded_model_beat_the_baseline(tmp_path: Path, pretrained: Path):
    data = write_labelled(tmp_path / "data.jsonl")
    outcome = go("classify", tuned(data, pretrained), tmp_path / "run")
    assert outcome.figures["macro_f1"] > 0.9 > 0.5 > outcome.prepared.baseline["macro_f1"]
    report = (tmp_path / "run" / "report.md").read_text()
    whole = sum(p.numel() for p in outcome.prepared.task.model.parameters())
    assert f"| parameters | {whole:,}, of which {outcome.trained:,} were trained |" in report
    # Six layers of rank 4 in each of two blocks, and the new head with its pooler.
    adapters = 2 * 4 * (4 * (32 + 32) + 2 * (32 + 64))
    assert outcome.trained == adapters + (32 * 32 + 32) + (3 * 32 + 3)
    checkpoint = tmp_path / "run" / "best"
    loaded = load(locate(str(checkpoint), cache=tmp_path), Fused(), ("sequence_classifier",))
    assert not loaded.unused
    # What isn't adapted is as it was.
    before, after = (load_file(each / "model.safetensors") for each in (pretrained, checkpoint))
    embedding, query = (f"bert.{name}.weight" for name in (
        "embeddings.word_embeddings", "encoder.layer.0.attention.self.query",
    ))  # fmt: skip
    assert torch.equal(before[embedding], after[embedding])
    assert not torch.equal(before[query], after[query])


def test_a_run_with_adapters_that_was_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, pretrained: Path
):
    data = write_labelled(tmp_path / "data.jsonl")
    settings = tuned(data, pretrained, steps=7, evaluate_every=4, dropout=0.1)
    whole = go("classify", settings, tmp_path / "whole")
    go("classify", settings, tmp_path / "cut", is_stopping=stop_after(3))
    resumed = go("classify", settings, tmp_path / "cut", resume=True)
    assert [s.loss for s in resumed.story.steps] == [s.loss for s in whole.story.steps]
    states = [RunFolder(tmp_path / name).newest_state() for name in ("whole", "cut")]
    for file in (PARAMETERS_FILE, MOMENTS_FILE):
        one, other = ((state / file).read_bytes() for state in states if state is not None)
        assert one == other
    parameters = load_file((states[0] or tmp_path) / PARAMETERS_FILE)
    assert all(".adapter." in name or name.startswith("heads.") for name in parameters)


def test_a_model_from_scratch_has_nothing_to_stand_beside(tmp_path: Path):
    data = write_labelled(tmp_path / "data.jsonl")
    settings = with_settings(classify_settings(data), lora={"rank": 2})
    with pytest.raises(TrainingError, match=r"lora trains adapters of a checkpoint.*model\.source"):
        go("classify", settings, tmp_path / "run")
    wrong = with_settings(settings, lora={"rnak": 2})
    with pytest.raises(TrainingError, match=r"lora\.rnak is no key; accepted: rank, alpha"):
        go("classify", wrong, tmp_path / "run")
