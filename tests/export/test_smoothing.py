"""Smoothing changes the weights and not the function."""

from dataclasses import replace

import pytest
import torch

from export.smoothing import smooth
from model_core.attention import Explicit, Padded
from model_core.config import NormPlacement
from model_core.transformer import Transformer
from tests.model_core.test_transformer import LLAMA_LIKE, drawn, ids

TEXTS = [ids(12, seed=seed).tolist() for seed in range(3)]


@torch.no_grad()
def hidden(model: Transformer) -> torch.Tensor:
    whole = ids(2, 9, seed=9)
    return model.decode(whole, Padded.of(whole))


def test_the_function_stays_and_the_weights_change() -> None:
    model = drawn(LLAMA_LIKE)
    before, weights = hidden(model), [p.clone() for p in model.parameters()]
    smooth(model, TEXTS)
    # Each weight is rounded once more: float32, two layers.
    torch.testing.assert_close(hidden(model), before, rtol=1e-4, atol=1e-5)
    changed = [not torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True)]
    assert any(changed)


def test_blocks_that_normalise_after_the_skip_stay_as_they_are() -> None:
    assert LLAMA_LIKE.decoder is not None
    stack = replace(LLAMA_LIKE.decoder, placement=NormPlacement.POST)
    model = drawn(replace(LLAMA_LIKE, decoder=stack))
    weights = [p.clone() for p in model.parameters()]
    smooth(model, TEXTS)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


def test_only_decoders_are_smoothed() -> None:
    encoder = replace(LLAMA_LIKE, encoder=LLAMA_LIKE.decoder, decoder=None)
    with pytest.raises(TypeError, match="for decoders"):
        smooth(Transformer(encoder, Explicit()), TEXTS)
