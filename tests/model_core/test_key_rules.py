"""Key rules: names and layouts of tensors."""

import pytest
import torch

from model_core.checkpoints.key_rules import (
    Drop,
    Pairs,
    Rename,
    Row,
    Shifted,
    Split,
    Transposed,
    match,
    origin,
)
from model_core.position import rotate

RULES = (
    Rename("encoder.layer.{layer}.dense", "blocks.{layer}.feed_forward.up"),
    Split("encoder.layer.{layer}.qkv", ("blocks.{layer}.q", "blocks.{layer}.k")),
    Rename("norm", "final_norm"),
    Drop("position_ids", "saved by old versions"),
)


def ours(name: str, prefix: str = "") -> tuple[str, ...]:
    found = match(RULES, name, prefix)
    assert found is not None
    return found.ours


def test_a_rule_names_a_module_and_maps_its_weight_and_bias() -> None:
    assert ours("encoder.layer.11.dense.weight") == ("blocks.11.feed_forward.up.weight",)
    assert ours("encoder.layer.0.dense.bias") == ("blocks.0.feed_forward.up.bias",)
    assert ours("encoder.layer.3.qkv.bias") == ("blocks.3.q.bias", "blocks.3.k.bias")


def test_the_prefix_of_a_family_is_optional() -> None:
    names = ("bert.norm.weight", "norm.weight")
    assert [ours(name, "bert.") for name in names] == [("final_norm.weight",)] * 2


def test_a_dropped_tensor_is_known_and_goes_nowhere() -> None:
    assert ours("position_ids") == ()


def test_what_no_rule_names_is_unknown() -> None:
    assert match(RULES, "encoder.layer.x.dense.weight") is None
    assert match(RULES, "normal.weight") is None
    assert match(RULES, "norm.gain") is None
    assert origin(RULES, "blocks.0.attention.query.weight") is None


def test_the_way_back_names_the_tensor_and_all_that_it_is_made_of() -> None:
    for name in ("blocks.4.q.weight", "blocks.4.k.weight"):
        found = origin(RULES, name)
        assert found is not None
        assert found.theirs == "encoder.layer.4.qkv.weight"
        assert found.ours == ("blocks.4.q.weight", "blocks.4.k.weight")


@pytest.mark.parametrize(
    "rule",
    [
        Rename("a", "b"),
        Rename("a", "b", Transposed()),
        Rename("a", "b", Pairs(2)),
        Rename("a", "b", Pairs(2, dims=4)),
        Rename("a", "b", Shifted(1.0)),
        Split("a", ("b", "c", "d")),
        Split("a", ("b", "c"), Transposed()),
        Split("a", ("b", "c", "d"), heads=2),
    ],
    ids=str,
)
def test_every_layout_has_its_way_back(rule: Rename | Split) -> None:
    tensor = torch.arange(12.0 * 12).view(12, 12)
    assert torch.equal(rule.save(rule.load(tensor)), tensor)


def test_a_row_becomes_a_vector_and_a_row_again() -> None:
    row = torch.arange(5.0)[None]
    assert Row().load(row).shape == (5,)
    assert torch.equal(Row().save(Row().load(row)), row)


def test_parts_within_heads_are_gathered_over_the_heads() -> None:
    """GPT-NeoX: the rows are (q, k, v) of head 0, then those of head 1."""
    rows = torch.tensor([0, 10, 20, 1, 11, 21])[:, None]
    parts = Split("qkv", ("q", "k", "v"), heads=2).load(rows)
    assert [part.flatten().tolist() for part in parts] == [[0, 1], [10, 11], [20, 21]]


def test_rotation_in_halves_equals_rotation_in_pairs_after_the_rule() -> None:
    """llama.cpp turns neighbours (a0 b0 a1 b1 …); after the rule ours turns halves, alike."""
    heads, dim, width = 2, 8, 6
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randn(heads * dim, width, generator=generator)
    x = torch.randn(width, generator=generator)
    angle = torch.randn(dim // 2, generator=generator)
    cos, sin = angle.cos(), angle.sin()

    a, b = (pairs @ x).view(heads, dim // 2, 2).unbind(-1)
    expected = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1)

    halves = Pairs(heads).load(pairs)
    turned = rotate((halves @ x).view(1, 1, heads, dim), cos[None, None], sin[None, None])
    found = turned.view(heads, 2, dim // 2).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)  # sums of six in another order
