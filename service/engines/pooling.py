"""From texts as token ids to the inputs of an encoder's graph, and scores to probabilities."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from service.messages import Floats, TokenIds

Integers = NDArray[np.int64]

UNROLLED = 8
"""Rows are padded to a multiple of this: the runtime's products take several terms of a sum at a
time, and a remainder would be added in another order than in a batch with a longer text."""


def pack(
    texts: Sequence[TokenIds], *, token_types: bool, second_at: Sequence[int] | None = None
) -> dict[str, Integers]:
    """One packed batch of `texts`, each at least one token: the graph's inputs by name.

    Where texts are pairs, `second_at` is where the second of each begins: from there on tokens
    have type 1, before it type 0.

    Only attention needs rows; `padded_from_packed` [B, S] and `packed_from_padded` [T] lead there
    and back (`export/attention.py`).
    """
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    total = int(lengths.sum())
    starts = np.cumsum(lengths) - lengths
    longest = -(-int(lengths.max()) // UNROLLED) * UNROLLED
    places: Integers = np.arange(longest)
    real = places < lengths[:, None]
    packed: dict[str, Integers] = {
        "input_ids": np.fromiter(chain.from_iterable(texts), np.int64, total),
        "position_ids": np.broadcast_to(places, real.shape)[real],
        # Padding repeats the text's own last token: nothing of a neighbour's gets into its row.
        "padded_from_packed": starts[:, None] + np.minimum(places, lengths[:, None] - 1),
        "packed_from_padded": np.flatnonzero(real),
        "lengths": lengths,
    }
    if token_types:
        starts_at = lengths if second_at is None else np.asarray(second_at, np.int64)
        packed["token_type_ids"] = (places >= starts_at[:, None])[real].astype(np.int64)
    return packed


def softmax(scores: Floats) -> Floats:
    """Probabilities of classes that exclude one another; rows [.., C] sum to 1."""
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def sigmoid(scores: Floats) -> Floats:
    """Probabilities of classes that may hold together."""
    return (0.5 * (1.0 + np.tanh(0.5 * scores))).astype(np.float32)


def unit(vectors: Floats) -> Floats:
    """Each of `vectors` [N, D] divided by its length; one of length zero is not finite then."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def ranked(scores: Floats) -> list[int]:
    """Places of `scores` [C] from the highest on; of equals the first comes first."""
    order: list[int] = np.argsort(-scores, kind="stable").tolist()
    return order
