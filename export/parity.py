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

from export.artifact import Arrays, CacheLayout, Parity, Precision
from export.graphs import TextOutput
from export.session import Provider, Session, usable_cores
from model_core.attention import Explicit, Padded, attend_by, cut_heads
from model_core.config import StackConfig
from model_core.transformer import Transformer

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

ADVICE: Mapping[Precision, str] = {
    Precision.FP32: "",
    Precision.FP16: "; --precision fp32 is exact",
    Precision.INT8: "; --precision fp32 is exact",
}


class ParityError(Exception):
    """An exported graph that doesn't compute what PyTorch does; nothing is written."""


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs of a graph and what PyTorch in float32 gives for them, by output name."""

    feeds: Arrays
    expected: Arrays


def padded(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids as right-padded rows [B, S], and which are real."""
    rows = torch.nn.utils.rnn.pad_sequence([torch.tensor(list(text)) for text in texts], True)
    lengths = torch.tensor([len(text) for text in texts])
    return rows, torch.arange(rows.shape[1]) < lengths[:, None]


def read(transformer: Transformer, rows: Tensor, mask: Tensor) -> Tensor:
    """Hidden states [B, S, E] of the stack that reads, with explicit attention."""
    attend_by(transformer, Explicit())
    layout = Padded.of(rows, mask)
    with torch.inference_mode():
        if transformer.encoder is not None:
            return transformer.encode(rows, layout)
        return transformer.decode(rows, layout)


def packed_feeds(transformer: Transformer, rows: Tensor, mask: Tensor) -> Arrays:
    """The inputs of a graph of packed texts, all `rows` as one batch."""
    flat = mask.flatten().nonzero().flatten()
    packed = torch.zeros(mask.numel(), dtype=torch.int64)
    packed[flat] = torch.arange(len(flat))
    positions = torch.arange(rows.shape[1]).expand_as(rows)
    feeds = {
        "input_ids": rows.flatten()[flat].numpy(),
        "position_ids": positions.flatten()[flat].numpy(),
        "padded_from_packed": packed.view_as(rows).numpy(),
        "packed_from_padded": flat.numpy(),
        "lengths": mask.sum(1).numpy(),
    }
    if transformer.config.stacks[0].embedding.token_types:
        feeds["token_type_ids"] = np.zeros(len(flat), np.int64)
    return feeds


def encoder_golden(
    transformer: Transformer, outputs: Sequence[TextOutput], texts: Sequence[Sequence[int]]
) -> Golden:
    """All `texts` (token ids) as one packed batch."""
    rows, mask = padded(texts)
    hidden_BSE = read(transformer, rows, mask)
    with torch.inference_mode():
        found = {
            output.name: output(hidden_BSE[mask], hidden_BSE, mask.sum(1)).numpy()
            for output in outputs
        }
    return Golden(packed_feeds(transformer, rows, mask), found)


def decoder_golden(
    transformer: Transformer, head: nn.Module, prompt: Sequence[int], cache: CacheLayout
) -> Golden:
    """One prompt in an empty cache, with the logits of every position."""
    token_ids = torch.tensor([list(prompt)])
    attend_by(transformer, Explicit())
    with torch.inference_mode():
        logits: Tensor = head(transformer.decode(token_ids, Padded.of(token_ids))[0])
    return Golden(prompt_feeds(token_ids, cache), {"logits": logits.numpy()})


def prompt_feeds(token_ids: Tensor, cache: CacheLayout) -> Arrays:
    """One row [1, S] in an empty cache, all of its positions asked for."""
    shape = (1, cache.kv_heads, token_ids.shape[1], cache.head_dim)
    return {
        "input_ids": token_ids.numpy(),
        "lengths": np.zeros(1, np.int64),
        "logit_index": np.arange(token_ids.shape[1]),
        **{name: np.zeros(shape, cache.dtype) for name in cache.names},
    }


def source_golden(
    transformer: Transformer, texts: Sequence[Sequence[int]], cross: CacheLayout
) -> Golden:
    """What the decoder will read of all `texts`, as one packed batch."""
    rows, mask = padded(texts)
    feeds = packed_feeds(transformer, rows, mask)
    hidden_TE = read(transformer, rows, mask)[mask]
    return Golden(feeds, cross_arrays(transformer, hidden_TE, feeds["padded_from_packed"], cross))


def target_golden(
    transformer: Transformer,
    head: nn.Module,
    source: Sequence[int],
    target: Sequence[int],
    cache: CacheLayout,
    cross: CacheLayout,
) -> Golden:
    """One target in an empty cache, beside the source that it looks at."""
    rows, mask = padded([source])
    memory = read(transformer, rows, mask)
    token_ids = torch.tensor([list(target)])
    with torch.inference_mode():
        layout = Padded.of(token_ids, memory=Padded.of(rows))
        logits: Tensor = head(transformer.decode(token_ids, layout, memory)[0])
    feeds = prompt_feeds(token_ids, cache)
    feeds["source_lengths"] = np.array([len(source)])
    feeds |= cross_arrays(transformer, memory[0], np.arange(len(source))[None], cross)
    return Golden(feeds, {"logits": logits.numpy()})


def cross_arrays(
    transformer: Transformer,
    hidden_TE: Tensor,
    padded_from_packed: NDArray[np.int64],
    cross: CacheLayout,
) -> Arrays:
    """Keys and values [B, G, S, D] of each decoder layer's cross-attention."""
    place = torch.from_numpy(padded_from_packed)  # pyright: ignore[reportUnknownMemberType]
    with torch.inference_mode():
        projected = transformer.project_memory(hidden_TE)
    flat = [x for pair in zip(projected.keys, projected.values, strict=True) for x in pair]
    heads = [cut_heads(x_TE[place], cross.head_dim).transpose(1, 2) for x_TE in flat]
    return {name: x.numpy().astype(cross.dtype) for name, x in zip(cross.names, heads, strict=True)}


def check(graph: Path, golden: Golden, precision: Precision) -> tuple[Parity, Arrays]:
    """The receipt, and the outputs that the graph gave; raises `ParityError` outside the bounds."""
    receipt, found = compare(graph, golden)
    require(receipt, precision, f"the exported graph {graph.name} differs from PyTorch")
    return receipt, found


def require(receipt: Parity, precision: Precision, otherwise: str) -> None:
    """Raises `ParityError`, which begins with `otherwise`, outside the bounds of `precision`."""
    error, cosine = receipt.largest_error, receipt.smallest_cosine
    if not error <= LARGEST_ERROR[precision] or not cosine >= SMALLEST_COSINE[precision]:
        raise ParityError(
            f"{otherwise}: largest error {error:.2e} (at "
            f"most {LARGEST_ERROR[precision]:.0e}), smallest cosine {cosine:.6f} (at least "
            f"{SMALLEST_COSINE[precision]}) at {precision}{ADVICE[precision]}"
        )


def compare(graph: Path, golden: Golden) -> tuple[Parity, Arrays]:
    """The receipt, whatever it says, and the outputs that the graph gave."""
    session = Session(graph, Provider.CPU, usable_cores())
    names = list(golden.expected)
    found = dict(zip(names, session.run(golden.feeds, names), strict=True))
    return receipt_of(found, golden.expected), found


def receipt_of(found: Arrays, expected: Arrays) -> Parity:
    """How far outputs are from those that are expected, over all names of `expected`."""
    pairs = [(found[name], expected[name]) for name in expected]
    # NumPy's, for which a NaN among them is the largest and the smallest.
    error = float(np.max([relative_error(*pair) for pair in pairs]))
    cosine = float(np.min([smallest_cosine(*pair) for pair in pairs]))
    agreement = None
    if "logits" in expected:
        same = found["logits"].argmax(-1) == expected["logits"].argmax(-1)
        agreement = float(same.mean())
    return Parity(
        largest_error=error,
        smallest_cosine=cosine,
        top1_agreement=agreement,
        processor=processor(),
    )


def worst(receipts: Sequence[Parity]) -> Parity:
    """One receipt for several graphs: the largest error, the smallest cosine and agreement."""
    agreements = [r.top1_agreement for r in receipts if r.top1_agreement is not None]
    return Parity(
        largest_error=max(receipt.largest_error for receipt in receipts),
        smallest_cosine=min(receipt.smallest_cosine for receipt in receipts),
        top1_agreement=min(agreements, default=None),
        processor=receipts[0].processor,
    )


def relative_error(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference over the largest magnitude of `expected`."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def smallest_cosine(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Over the vectors: of a text, or of a token with all its heads."""
    a, b = (whole_vectors(array).astype(np.float64) for array in (found, expected))
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(((a * b).sum(-1) / norms).min())


def whole_vectors(array: NDArray[Any]) -> NDArray[Any]:
    """Keys or values [B, G, S, D] as [B, S, G·D]; else as it is."""
    if array.ndim < 4:
        return array
    return array.swapaxes(1, 2).reshape(array.shape[0], array.shape[2], -1)


def processor() -> str:
    """The machine and the instruction set, as PyTorch finds it."""
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def require_vocabulary(stack: StackConfig, texts: Sequence[Sequence[int]]) -> None:
    """Refuse a tokenizer that gives ids which the model has no embedding for."""
    largest = max((max(text) for text in texts if text), default=0)
    if largest >= stack.embedding.vocab_size:
        raise ParityError(
            f"the tokenizer gives token id {largest}, the model has only "
            f"{stack.embedding.vocab_size} embeddings; do they belong together?"
        )
