"""PyTorch against ONNX Runtime on the same inputs: the figures of the parity receipt.

The reference is the model with explicit attention, in float32, whatever the artifact's precision.
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.artifact import CacheLayout, Parity, Precision
from export.graphs import EncoderOutput, read_outputs
from export.session import Provider, Session, usable_cores
from model_core.attention import Explicit, Padded, attend_by
from model_core.config import TransformerConfig
from model_core.transformer import Transformer

Arrays = dict[str, NDArray[Any]]

PROBES = (
    "time flies like an arrow",
    "Fruit flies like a banana.",
    "The encoder reads a sequence of tokens and gives each a vector that knows its context; the "
    "decoder writes one token after another, looking only at what it has already written.",
    "def attention(q, k, v):\n    return softmax(q @ k.T / sqrt(d)) @ v",
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the "
    "age of foolishness, it was the epoch of belief, it was the epoch of incredulity.",
    "7",
)
"""Short and long, prose and code: what every export is tried on."""

LARGEST_ERROR: Mapping[Precision, float] = {
    # Rounding in another order: a few units in the sixth digit, more through 30 layers.
    Precision.FP32: 1e-3,
    Precision.FP16: 5e-2,
    # Errors of 1% a product add up along the depth; the cosine below is the stricter bound.
    Precision.INT8: 5e-1,
}
SMALLEST_COSINE: Mapping[Precision, float] = {
    Precision.FP32: 0.99999,
    Precision.FP16: 0.999,
    Precision.INT8: 0.95,
}


class ParityError(Exception):
    """An exported graph that doesn't compute what PyTorch does; nothing is written."""


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs of a graph and what PyTorch in float32 gives for them, by output name."""

    feeds: Arrays
    expected: Arrays


def encoder_golden(
    transformer: Transformer, outputs: Sequence[EncoderOutput], texts: Sequence[Sequence[int]]
) -> Golden:
    """All `texts` (token ids) as one packed batch."""
    lengths = torch.tensor([len(text) for text in texts])
    rows = torch.nn.utils.rnn.pad_sequence([torch.tensor(text) for text in texts], True)
    mask = torch.arange(rows.shape[1]) < lengths[:, None]
    attend_by(transformer, Explicit())
    with torch.inference_mode():
        hidden = transformer.encode(rows, Padded.of(rows, mask))
        results = read_outputs(hidden, lengths, outputs)
    flat = mask.flatten().nonzero().flatten()
    packed = torch.zeros(mask.numel(), dtype=torch.int64)
    packed[flat] = torch.arange(len(flat))
    positions = torch.arange(rows.shape[1]).expand_as(rows)
    feeds = {
        "input_ids": rows.flatten()[flat].numpy(),
        "position_ids": positions.flatten()[flat].numpy(),
        "padded_from_packed": packed.view_as(rows).numpy(),
        "packed_from_padded": flat.numpy(),
        "lengths": lengths.numpy(),
    }
    if transformer.config.embedding.token_types:
        feeds["token_type_ids"] = np.zeros(len(flat), np.int64)
    named = zip(outputs, results, strict=True)
    return Golden(feeds, {output.name: result.numpy() for output, result in named})


def decoder_golden(
    transformer: Transformer, head: nn.Module, prompt: Sequence[int], cache: CacheLayout
) -> Golden:
    """One prompt in an empty cache, with the logits of every position."""
    token_ids = torch.tensor([list(prompt)])
    attend_by(transformer, Explicit())
    with torch.inference_mode():
        logits: Tensor = head(transformer.decode(token_ids, Padded.of(token_ids))[0])
    empty = np.zeros((1, cache.kv_heads, len(prompt), cache.head_dim), cache.dtype)
    feeds: Arrays = {
        "input_ids": token_ids.numpy(),
        "lengths": np.zeros(1, np.int64),
        "logit_index": np.arange(len(prompt)),
        **dict.fromkeys(cache.names, empty),
    }
    return Golden(feeds, {"logits": logits.numpy()})


def check(graph: Path, golden: Golden, precision: Precision) -> tuple[Parity, Arrays]:
    """The receipt, and the outputs that the graph gave; raises `ParityError` outside the bounds."""
    session = Session(graph, Provider.CPU, usable_cores())
    names = list(golden.expected)
    found = dict(zip(names, session.run(golden.feeds, names), strict=True))
    error = max(relative_error(found[name], golden.expected[name]) for name in names)
    cosine = min(smallest_cosine(found[name], golden.expected[name]) for name in names)
    agreement = None
    if "logits" in found:
        same = found["logits"].argmax(-1) == golden.expected["logits"].argmax(-1)
        agreement = float(same.mean())
    if not error <= LARGEST_ERROR[precision] or not cosine >= SMALLEST_COSINE[precision]:
        raise ParityError(
            f"the exported graph differs from PyTorch: largest error {error:.2e} (at most "
            f"{LARGEST_ERROR[precision]:.0e}), smallest cosine {cosine:.6f} (at least "
            f"{SMALLEST_COSINE[precision]}) at {precision}"
        )
    receipt = Parity(
        largest_error=error,
        smallest_cosine=cosine,
        top1_agreement=agreement,
        processor=processor(),
    )
    return receipt, found


def relative_error(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference over the largest magnitude of `expected`."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def smallest_cosine(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Over the rows."""
    a, b = found.astype(np.float64), expected.astype(np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(((a * b).sum(-1) / norms).min())


def processor() -> str:
    """The machine and the instruction set, as PyTorch finds it."""
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def vocabulary_bound(config: TransformerConfig, texts: Sequence[Sequence[int]]) -> None:
    """Refuse a tokenizer that gives ids which the model has no embedding for."""
    largest = max((max(text) for text in texts if text), default=0)
    if largest >= config.embedding.vocab_size:
        raise ParityError(
            f"the tokenizer gives token id {largest}, the model has only "
            f"{config.embedding.vocab_size} embeddings; do they belong together?"
        )
