"""Key rules: names and layouts of tensors."""

import torch

from model_core.checkpoints.key_rules import Drop, PairsToHalves, Rename, match
from model_core.position import rotate

RULES = (
    Rename("encoder.layer.{layer}.dense", "blocks.{layer}.feed_forward.up"),
    Rename("norm", "final_norm"),
    Drop("position_ids", "saved by old versions"),
)


def ours(name: str, prefix: str = "") -> str | None:
    found = match(RULES, name, prefix)
    assert found is not None
    return found.ours


def test_a_rule_names_a_module_and_maps_its_weight_and_bias() -> None:
    assert ours("encoder.layer.11.dense.weight") == "blocks.11.feed_forward.up.weight"
    assert ours("encoder.layer.0.dense.bias") == "blocks.0.feed_forward.up.bias"


def test_the_prefix_of_a_family_is_optional() -> None:
    assert ours("bert.norm.weight", "bert.") == ours("norm.weight", "bert.") == "final_norm.weight"


def test_a_dropped_tensor_is_known_and_goes_nowhere() -> None:
    assert ours("position_ids") is None


def test_what_no_rule_names_is_unknown() -> None:
    assert match(RULES, "encoder.layer.x.dense.weight") is None
    assert match(RULES, "normal.weight") is None
    assert match(RULES, "norm.gain") is None


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

    halves = PairsToHalves("q", "query", heads).transform(pairs)
    turned = rotate((halves @ x).view(1, 1, heads, dim), cos[None, None], sin[None, None])
    found = turned.view(heads, 2, dim // 2).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)  # sums of six in another order
