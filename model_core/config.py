"""What a Transformer is, as data: frozen, nested, free of torch.

A family is a mapping from its own configuration to these classes (`model_core/families/`); no
other module knows a family's name.
"""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias


class ConfigError(ValueError):
    """A configuration that this project can't express; the message names the field and value."""


class Activation(StrEnum):
    """A non-linearity: of the feed-forward part, or of a head's hidden layer."""

    GELU = "gelu"  # exact: x · Φ(x) with the error function (Hendrycks & Gimpel 2016)
    GELU_TANH = "gelu_tanh"  # its tanh approximation, "gelu_new" in GPT-2
    RELU = "relu"
    SILU = "silu"  # x · σ(x), also called swish
    TANH = "tanh"


class NormKind(StrEnum):
    """How a vector is normalised over its last dimension."""

    LAYER = "layer"  # Ba et al. 2016
    RMS = "rms"  # Zhang & Sennrich 2019


class NormPlacement(StrEnum):
    """Where a block normalises (Xiong et al. 2020)."""

    PRE = "pre"  # x + f(norm(x)): the residual stream stays unnormalised
    POST = "post"  # norm(x + f(x)): the original order, which needs a warm-up to train
    BOTH = "both"  # x + norm(f(norm(x))): Gemma 2's four norms a block


class Parallel(StrEnum):
    """Whether attention and feed-forward follow one another or stand side by side.

    Side by side both read the same x, and both results are added to it (Wang & Komatsuzaki 2021).
    """

    NO = "no"
    TWO_NORMS = "two_norms"
    ONE_NORM = "one_norm"  # attention's norm serves the feed-forward part too


class PositionKind(StrEnum):
    """How positions reach the embeddings; those of attention are in `AttentionConfig` (rotary)
    and `StackConfig` (relative)."""

    NONE = "none"
    LEARNED = "learned"
    SINUSOIDAL = "sinusoidal"  # sine and cosine interleaved (Vaswani et al. 2017)
    SINUSOIDAL_HALVES = "sinusoidal_halves"  # all sines, then all cosines
    # The same with exponents 2k/(d-2), so that the last wavelength is 10,000 · 2π exactly, as
    # tensor2tensor has it.
    SINUSOIDAL_TO_THE_END = "sinusoidal_to_the_end"


class PoolingMode(StrEnum):
    """Which one vector stands for a text."""

    MEAN = "mean"
    CLS = "cls"
    MAX = "max"
    LAST = "last"


@dataclass(frozen=True, slots=True)
class NormConfig:
    """A normalisation; `eps` is added to the variance or mean square. RMS norms have no bias."""

    kind: NormKind
    eps: float
    bias: bool = True

    def __post_init__(self) -> None:
        if self.eps < 0:
            raise ConfigError(f"a norm's epsilon is {self.eps}, expected 0 or more")


@dataclass(frozen=True, slots=True)
class LinearScaling:
    """Positions divided by `factor` (Chen et al. 2023)."""

    factor: float


@dataclass(frozen=True, slots=True)
class DynamicScaling:
    """A base that grows once a text is longer than `trained_positions` (NTK-aware, dynamic)."""

    factor: float
    trained_positions: int


@dataclass(frozen=True, slots=True)
class YarnScaling:
    """Slow frequencies divided by `factor`, fast ones kept, a ramp between (Peng et al. 2023).

    The ramp lies between the dims that turn `fast` and `slow` times over `trained_positions`
    (rounded outwards if `truncate`). Cosine and sine are multiplied by `attention_factor`.
    """

    factor: float
    trained_positions: int
    fast: float
    slow: float
    attention_factor: float
    truncate: bool = True


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Llama 3.1's: wavelengths over trained_positions / `low` divided, under … / `high` kept."""

    factor: float
    low: float
    high: float
    trained_positions: int


RotaryScaling: TypeAlias = LinearScaling | DynamicScaling | YarnScaling | Llama3Scaling


@dataclass(frozen=True, slots=True)
class RotaryConfig:
    """Rotary positions (Su et al. 2021): the first `dims` of each head turn, in halves.

    `theta` is the base of the frequencies theta^(-2i/dims); `scaling` stretches them to contexts
    longer than those of training.
    """

    theta: float
    dims: int
    scaling: RotaryScaling | None = None

    def __post_init__(self) -> None:
        if self.theta <= 0 or self.dims < 2 or self.dims % 2:
            raise ConfigError(
                f"rotary positions have theta {self.theta} and turn {self.dims} dims; expected a "
                "positive base and an even number of dims"
            )


@dataclass(frozen=True, slots=True)
class AttentionConfig:
    """Multi-head attention. `kv_heads` < `heads` groups queries (Ainslie et al. 2023).

    `bias` is that of the query, key and value projections. Scores are multiplied by `scale`,
    1/sqrt(head_dim) if None; with `score_cap` c they become c·tanh(scores / c). `head_norm`
    normalises q and k within each head. `causal` lets a position see itself and those before;
    `window` w those at a distance below w.
    """

    heads: int
    kv_heads: int
    head_dim: int
    bias: bool
    output_bias: bool
    causal: bool = False
    rotary: RotaryConfig | None = None
    scale: float | None = None
    score_cap: float | None = None
    window: int | None = None
    head_norm: NormConfig | None = None

    def __post_init__(self) -> None:
        if self.kv_heads < 1 or self.heads % self.kv_heads:
            raise ConfigError(
                f"kv_heads is {self.kv_heads}, but must divide heads, which is {self.heads}"
            )

    @property
    def score_scale(self) -> float:
        """What scores are multiplied by."""
        return self.head_dim**-0.5 if self.scale is None else self.scale


@dataclass(frozen=True, slots=True)
class BucketedBias:
    """A learned number for each head and bucket of distances, added to the scores (T5).

    `buckets` in all; distances from `max_distance` on share the last.
    """

    buckets: int
    max_distance: int

    def __post_init__(self) -> None:
        if self.buckets < 4 or self.max_distance <= self.buckets // 2:
            raise ConfigError(
                f"relative positions have {self.buckets} buckets up to a distance of "
                f"{self.max_distance}; expected 4 buckets at least, and more than half as far"
            )


@dataclass(frozen=True, slots=True)
class Disentangled:
    """Content-to-position and position-to-content scores (DeBERTa, He et al. 2021).

    The table has 2 · `span` rows, for distances in log buckets from -span to span - 1, of which
    `max_distance` falls into the last; it is normalised like everything else if `norm`.
    """

    span: int
    max_distance: int
    norm: bool


Relative: TypeAlias = BucketedBias | Disentangled


@dataclass(frozen=True, slots=True)
class FeedForwardConfig:
    """The position-wise part: inner = act(W1 x), or act(Wg x) * W1 x when `gated`."""

    inner_dim: int
    activation: Activation
    gated: bool
    bias: bool


@dataclass(frozen=True, slots=True)
class EmbeddingConfig:
    """Tokens to vectors: token (times `scale`) + position + token type, then a norm.

    Position p reads row p + `position_offset` of the table, which has that many rows more than
    `max_positions`; or `position_rows` in all, where texts may not use the last. With `token_dim`
    all of this happens at that width, and a linear layer leads to the model's (ALBERT, ELECTRA);
    `projection_bias` is its bias; with `norm_last` the norm follows it (DeBERTa).
    """

    vocab_size: int
    position: PositionKind
    max_positions: int
    position_offset: int = 0
    token_types: int = 0
    norm: bool = False
    scale: float = 1.0
    token_dim: int | None = None
    projection_bias: bool = True
    norm_last: bool = False
    position_rows: int | None = None

    @property
    def rows(self) -> int:
        """How many rows the table of positions has."""
        return self.position_rows or self.max_positions + self.position_offset


@dataclass(frozen=True, slots=True)
class StackConfig:
    """Embeddings and a stack of blocks, one for each of `attention`.

    Blocks with `cross_attention` also look at the encoder's output. `first_norm` False: the first
    block's attention reads the embeddings as they are. `shared_weights`: every block has the
    weights of the first (ALBERT).
    """

    embedding: EmbeddingConfig
    attention: tuple[AttentionConfig, ...]
    feed_forward: FeedForwardConfig
    placement: NormPlacement
    final_norm: bool
    parallel: Parallel = Parallel.NO
    cross_attention: AttentionConfig | None = None
    relative: Relative | None = None
    first_norm: bool = True
    shared_weights: bool = False

    def __post_init__(self) -> None:
        if not self.attention:
            raise ConfigError("a stack needs a layer at least")
        if self.parallel is not Parallel.NO and self.placement is not NormPlacement.PRE:
            raise ConfigError(f"parallel blocks normalise before, not {self.placement}")
        cross = self.cross_attention
        if cross is not None and (cross.causal or cross.rotary or cross.window):
            raise ConfigError("cross-attention has no positions: not causal, rotary or local")

    @property
    def layers(self) -> int:
        """How many blocks there are."""
        return len(self.attention)


@dataclass(frozen=True, slots=True)
class LanguageModelConfig:
    """The head that scores next tokens: W h, with the token embedding as W if `tied`.

    h is multiplied by `scale`; with `cap` c the logits become c·tanh(logits / c).
    """

    tied: bool = True
    bias: bool = False
    scale: float = 1.0
    cap: float | None = None


@dataclass(frozen=True, slots=True)
class ClassifierConfig:
    """A classifier's hidden layer, and which vector of a text it reads, in a family that leaves
    these to its configuration (ModernBERT, DeBERTa)."""

    pooling: PoolingMode = PoolingMode.CLS
    activation: Activation = Activation.GELU
    bias: bool = True


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """A whole Transformer: an encoder, a decoder, or both.

    `dim` is the width of the residual stream. `shared_embedding`: the decoder's token embedding
    is the encoder's (Press & Wolf 2017, as are tied heads).
    """

    dim: int
    norm: NormConfig
    encoder: StackConfig | None = None
    decoder: StackConfig | None = None
    shared_embedding: bool = True
    language_model: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)

    def __post_init__(self) -> None:
        if self.encoder is None and self.decoder is None:
            raise ConfigError("a Transformer needs an encoder, a decoder, or both")
        if self.decoder and self.decoder.cross_attention and self.encoder is None:
            raise ConfigError("a decoder with cross-attention needs an encoder")

    @property
    def stacks(self) -> tuple[StackConfig, ...]:
        """The stacks there are, encoder first."""
        return tuple(stack for stack in (self.encoder, self.decoder) if stack is not None)

    @property
    def output_stack(self) -> StackConfig:
        """The stack whose hidden states the heads read: the decoder if there is one."""
        return self.stacks[-1]

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, for a manifest."""
        return asdict(self)
