"""Random weights are drawn from the run's seed alone, all of them, as wide as is said."""

from typing import Any

import pytest
import torch

from model_core.attention import Fused
from model_core.checkpoints.load import assemble, describe_config
from model_core.heads import TransformerWithHeads
from model_core.training.starting_point import NoTensors, initialize, is_kept
from tests.support.training import TINY_BERT, TINY_LLAMA, TINY_ORIGINAL

SHAPES: dict[str, dict[str, Any]] = {
    "masked_lm": TINY_BERT,
    "sequence_classifier": {**TINY_BERT, "id2label": {"0": "a", "1": "b"}},
    "language_model": TINY_LLAMA,
    "seq2seq": TINY_ORIGINAL,
}


def drawn(head: str, seed: int, elsewhere: int) -> TransformerWithHeads:
    torch.manual_seed(elsewhere)
    description = describe_config({**SHAPES[head], "vocab_size": 500})
    model = assemble(description.config(NoTensors()), description, Fused(), (head,))
    initialize(model, seed)
    return model


@pytest.mark.parametrize("head", SHAPES)
def test_random_weights_depend_on_the_seed_and_nothing_else(head: str):
    first, again, other = drawn(head, 1, 8), drawn(head, 1, 9), drawn(head, 2, 8)
    for name, value in first.named_parameters():
        assert torch.equal(value, again.get_parameter(name)), name
    assert not torch.equal(
        next(first.transformer.parameters()), next(other.transformer.parameters())
    )


@pytest.mark.parametrize("head", SHAPES)
def test_biases_are_zero_and_matrices_as_wide_as_they_should(head: str):
    model = drawn(head, 0, 0)
    for name, value in model.named_parameters():
        if name.endswith("bias"):
            assert not value.any(), name
    embedding = model.transformer.token_embedding.weight
    assert embedding.std().item() == pytest.approx((2 / (5 * 32)) ** 0.5, rel=0.05)


def test_what_belongs_to_a_checkpoint_is_kept_and_what_tells_of_its_vectors_is_not():
    kept = ("tokenizer.json", "vocab.txt", "spiece.model", "LICENSE", "generation_config.json")
    left = ("config.json", "modules.json", "model.safetensors", "README.md")
    assert all(map(is_kept, kept))
    assert not any(map(is_kept, left))


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_t5_without_tensors_has_a_decoder_if_it_says_so(is_whole: bool):
    """What there is of a checkpoint tells otherwise; from scratch, there is nothing."""
    config = {
        "model_type": "t5", "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2,
        "vocab_size": 40, "is_encoder_decoder": is_whole,
    }  # fmt: skip
    built = describe_config(config).config(NoTensors())
    assert (built.decoder is not None) == is_whole
