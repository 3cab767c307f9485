"""Pooling against sentence-transformers' formulas, and the same vector in every batch."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_core.config import PoolingMode
from model_core.pooling import SentenceEmbedder, pool
from model_core.sentence_config import (
    DenseStep,
    NormStep,
    Pooling,
    SentenceConfig,
    UnitStep,
    VectorActivation,
    WeightedMean,
)

MODES: Sequence[Pooling] = [*PoolingMode, *WeightedMean]
DIM = 24
LENGTHS = (1, 7, 2, 19, 64, 33)
EVERYTHING = SentenceConfig(
    pooling=tuple(MODES),
    steps=(
        DenseStep("2_Dense", DIM * len(MODES), 40, activation=VectorActivation.TANH),
        NormStep("3_LayerNorm", 40),
        DenseStep("4_Dense", 40, 16, bias=False, activation=VectorActivation.GELU),
        UnitStep(),
    ),
)


def by_hand(text_SE: Tensor, mode: Pooling) -> Tensor:
    """One text's vector as sentence-transformers defines it, in double precision, token by token.

    https://github.com/huggingface/sentence-transformers: modules/pooling.py
    """
    tokens = [token.double() for token in text_SE]
    match mode:
        case PoolingMode.CLS:
            return tokens[0]
        case PoolingMode.LAST:
            return tokens[-1]
        case PoolingMode.MAX:
            return torch.stack(tokens).max(dim=0).values
        case PoolingMode.MEAN:
            return sum(tokens, torch.zeros(1)) / len(tokens)
        case WeightedMean.SQRT_LENGTH:
            return sum(tokens, torch.zeros(1)) / len(tokens) ** 0.5
        case WeightedMean.POSITION:
            weighted = [number * token for number, token in enumerate(tokens, 1)]
            return sum(weighted, torch.zeros(1)) / sum(range(1, len(tokens) + 1))


def some_texts(lengths: Sequence[int], dim: int = DIM) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(length, dim, generator=generator) for length in lengths]


def rows_of(texts: Sequence[Tensor], padding: float = torch.nan) -> tuple[Tensor, Tensor]:
    """Right-padded rows [B, S, E] and lengths [B]."""
    rows = nn.utils.rnn.pad_sequence([*texts], batch_first=True, padding_value=padding)
    return rows, torch.tensor([len(text) for text in texts])


@pytest.mark.parametrize("mode", MODES)
def test_a_vector_is_what_sentence_transformers_says(mode: Pooling) -> None:
    texts = some_texts(LENGTHS)
    found = pool(*rows_of(texts), mode)
    for vector, text in zip(found, texts, strict=True):
        # fp32 sums of 64 standard normal terms, weighted by up to 64: rounding alone.
        torch.testing.assert_close(vector.double(), by_hand(text, mode), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("mode", MODES)
def test_half_precision_holds_a_long_text(mode: Pooling) -> None:
    # 1 + … + 2000 is thirty times what fp16 can hold.
    texts = [text.half() for text in some_texts((2000, 3))]
    found = pool(*rows_of(texts), mode)
    assert found.dtype == torch.float16
    assert found.isfinite().all()
    expected = by_hand(texts[0], mode)
    # Half a unit in the last place of fp16, relative to the largest sum on the way.
    torch.testing.assert_close(found[0].double(), expected, rtol=2e-3, atol=2e-3)


def test_vectors_of_several_modes_stand_one_after_the_other() -> None:
    rows, lengths = rows_of(some_texts(LENGTHS))
    embedder = SentenceEmbedder(SentenceConfig(pooling=tuple(MODES), steps=()))
    parts = embedder(rows, lengths).split(DIM, dim=-1)
    for part, mode in zip(parts, MODES, strict=True):
        assert torch.equal(part, pool(rows, lengths, mode))


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        (VectorActivation.IDENTITY, nn.Identity()),
        (VectorActivation.TANH, nn.Tanh()),
        (VectorActivation.RELU, nn.ReLU()),
        (VectorActivation.GELU, nn.GELU()),
        (VectorActivation.SILU, nn.SiLU()),
        (VectorActivation.SIGMOID, nn.Sigmoid()),
    ],
)
def test_steps_follow_in_order(activation: VectorActivation, function: nn.Module) -> None:
    config = SentenceConfig(
        steps=(DenseStep("", DIM, 5, activation=activation), NormStep("", 5), UnitStep())
    )
    embedder = SentenceEmbedder(config)
    weights = embedder.state_dict()
    assert list(weights) == [
        *("steps.0.linear.weight", "steps.0.linear.bias"),
        *("steps.1.norm.weight", "steps.1.norm.bias"),
    ]
    for tensor in weights.values():
        nn.init.normal_(tensor)
    rows, lengths = rows_of(some_texts(LENGTHS))
    mean = pool(rows, lengths, PoolingMode.MEAN)
    dense = function(mean @ weights["steps.0.linear.weight"].T + weights["steps.0.linear.bias"])
    norm = F.layer_norm(dense, (5,), weights["steps.1.norm.weight"], weights["steps.1.norm.bias"])
    expected = norm / norm.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(embedder(rows, lengths), expected)
    assert config.vector_dim(DIM) == 5


def test_by_default_it_is_the_mean_at_length_one() -> None:
    rows, lengths = rows_of(some_texts(LENGTHS))
    vectors = SentenceEmbedder(SentenceConfig())(rows, lengths)
    expected = F.normalize(pool(rows, lengths, PoolingMode.MEAN), dim=-1)
    assert torch.equal(vectors, expected)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> onnxruntime.InferenceSession:
    """All modes and steps as one graph, of any number of texts of any length."""
    torch.manual_seed(3)
    embedder = SentenceEmbedder(EVERYTHING).eval()
    path = Path(tmp_path_factory.mktemp("pooling")) / "model.onnx"
    texts, longest = torch.export.Dim("texts"), torch.export.Dim("longest")
    with warnings.catch_warnings():
        # torch.export's own business.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            embedder,
            (torch.zeros(2, 3, DIM), torch.tensor([3, 2])),
            dynamic_shapes=({0: texts, 1: longest}, {0: texts}),
            input_names=["hidden", "lengths"],
            output_names=["vectors"],
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, texts: Sequence[Tensor]) -> np.ndarray:
    rows, lengths = rows_of(texts)
    # The runtime's products are the same with trailing zeros by the eight alone.
    rows = F.pad(rows, (0, 0, 0, -rows.shape[1] % 8), value=torch.nan)
    (vectors,) = session.run(None, {"hidden": rows.numpy(), "lengths": lengths.numpy()})
    assert isinstance(vectors, np.ndarray)
    return vectors


def test_the_exported_graph_equals_pytorch(exported: onnxruntime.InferenceSession) -> None:
    torch.manual_seed(3)
    embedder = SentenceEmbedder(EVERYTHING).eval()
    texts = some_texts(LENGTHS)
    expected = embedder(*rows_of(texts)).detach().numpy()
    # Unit vectors of fp32: a few roundings of 1e-7.
    np.testing.assert_allclose(run(exported, texts), expected, atol=1e-6)


def test_a_text_has_the_same_vector_to_the_bit_in_every_batch(
    exported: onnxruntime.InferenceSession,
) -> None:
    texts = some_texts([*LENGTHS, *range(3, 29)])
    alone = np.concatenate([run(exported, [text]) for text in texts])
    for width in (2, 3, 5, 8, 16, 17, len(texts)):
        np.testing.assert_array_equal(run(exported, texts[:width]), alone[:width])
    reversed_order = run(exported, texts[::-1])[::-1]
    np.testing.assert_array_equal(reversed_order, alone)
    with_longer = run(exported, [*texts, *some_texts((301, 512))])
    np.testing.assert_array_equal(with_longer[: len(texts)], alone)
