"""What a model has to beat: something simple that has seen the same data."""

from typing import Final

import numpy as np

from model_core.training.parts import Tokens

BY_FREQUENCY: Final = "tokens drawn by their frequency"


def unigram_entropy(train: Tokens, validation: Tokens, vocab_size: int) -> float:
    """Nats per token of `validation` if tokens were drawn by how often `train` has them (+1)."""
    counts = np.bincount(train.flatten(), minlength=vocab_size) + 1
    return float(-np.log(counts / counts.sum())[validation.flatten()].mean())
