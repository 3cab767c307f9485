"""What a Transformer is, as data: frozen, nested, free of torch.

A family is a mapping from its own configuration to these classes (`model_core/families/`); no
other module knows a family's name.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class ConfigError(ValueError):
    """A configuration that this project can't express; the message names the field and value."""


class Activation(StrEnum):
    """The non-linearity of a feed-forward part."""

    GELU = "gelu"  # exact: x · Φ(x) with the error function (Hendrycks & Gimpel 2016)
    GELU_TANH = "gelu_tanh"  # its tanh approximation, "gelu_new" in GPT-2
    RELU = "relu"
    SILU = "silu"  # x · σ(x), also called swish


class NormKind(StrEnum):
    """How a vector is normalised over its last dimension."""

    LAYER = "layer"  # Ba et al. 2016
    RMS = "rms"  # Zhang & Sennrich 2019


class NormPlacement(StrEnum):
    """Where a block normalises (Xiong et al. 2020)."""

    PRE = "pre"  # x + f(norm(x)): the residual stream stays unnormalised
    POST = "post"  # norm(x + f(x)): the original order, which needs a warm-up to train


class PositionKind(StrEnum):
    """How positions reach the tokens; rotary positions live in `AttentionConfig.rotary`."""

    NONE = "none"
    LEARNED = "learned"
    SINUSOIDAL = "sinusoidal"  # sine and cosine interleaved (Vaswani et al. 2017)


@dataclass(frozen=True, slots=True)
class NormConfig:
    """A normalisation; `eps` is added to the variance or mean square."""

    kind: NormKind
    eps: float


@dataclass(frozen=True, slots=True)
class RotaryConfig:
    """Rotary positions (Su et al. 2021): the first `dims` of each head turn, in halves.

    `theta` is the base of the frequencies theta^(-2i/dims).
    """

    theta: float
    dims: int


@dataclass(frozen=True, slots=True)
class AttentionConfig:
    """Multi-head attention. `kv_heads` < `heads` groups queries (Ainslie et al. 2023).

    Scores are divided by sqrt(head_dim). `causal` lets a position see itself and those before.
    """

    heads: int
    kv_heads: int
    head_dim: int
    bias: bool
    causal: bool = False
    rotary: RotaryConfig | None = None

    def __post_init__(self) -> None:
        if self.kv_heads < 1 or self.heads % self.kv_heads:
            raise ConfigError(
                f"kv_heads is {self.kv_heads}, but must divide heads, which is {self.heads}"
            )


@dataclass(frozen=True, slots=True)
class FeedForwardConfig:
    """The position-wise part: inner = act(W1 x), or act(Wg x) * W1 x when `gated`."""

    inner_dim: int
    activation: Activation
    gated: bool
    bias: bool


@dataclass(frozen=True, slots=True)
class StackConfig:
    """A stack of equal blocks. `cross_attention` blocks also look at the encoder's output."""

    layers: int
    attention: AttentionConfig
    feed_forward: FeedForwardConfig
    placement: NormPlacement
    final_norm: bool
    cross_attention: bool = False


@dataclass(frozen=True, slots=True)
class EmbeddingConfig:
    """Tokens to vectors: token (times `scale`) + position + token type, then a norm."""

    vocab_size: int
    position: PositionKind
    max_positions: int
    token_types: int = 0
    norm: bool = False
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """A whole Transformer: an encoder, a decoder, or both.

    `dim` is the width of the residual stream. `tied_head`: the language-model head shares the
    token embedding's weight (Press & Wolf 2017).
    """

    dim: int
    embedding: EmbeddingConfig
    norm: NormConfig
    encoder: StackConfig | None = None
    decoder: StackConfig | None = None
    tied_head: bool = True

    def __post_init__(self) -> None:
        if self.encoder is None and self.decoder is None:
            raise ConfigError("a Transformer needs an encoder, a decoder, or both")
        if self.decoder and self.decoder.cross_attention and self.encoder is None:
            raise ConfigError("a decoder with cross-attention needs an encoder")

    @property
    def stacks(self) -> tuple[StackConfig, ...]:
        """The stacks there are, encoder first."""
        return tuple(stack for stack in (self.encoder, self.decoder) if stack is not None)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, for a manifest."""
        return asdict(self)
