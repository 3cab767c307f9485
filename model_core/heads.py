"""What stands on the hidden states: language models and classifiers. Pooling is `pooling.py`'s.

Every head works on the last dimension; a sequence classifier reads one vector a text.
"""

from torch import Tensor, nn

from model_core.config import Activation, LanguageModelConfig, NormConfig
from model_core.feed_forward import ACTIVATIONS
from model_core.norm import build_norm
from model_core.pooling import PoolingMode
from model_core.transformer import Transformer


class LanguageModelHead(nn.Module):
    """Logits [..., V] of the next token, W h, with W shared with the token embedding if tied."""

    def __init__(
        self, dim: int, config: LanguageModelConfig, token_embedding: nn.Embedding
    ) -> None:
        super().__init__()
        self.config = config
        self.output = nn.Linear(dim, token_embedding.num_embeddings, config.bias)
        if config.tied:
            self.output.weight = token_embedding.weight

    def forward(self, hidden: Tensor) -> Tensor:
        scale, cap = self.config.scale, self.config.cap
        logits = self.output(hidden if scale == 1.0 else hidden * scale)
        return logits if cap is None else cap * (logits / cap).tanh()


class MaskedLanguageModelHead(nn.Module):
    """Dense, activation, norm, then the token embedding with a bias of its own (BERT's).

    The dense layer leads to the width of the token embedding, where that is another.
    """

    def __init__(
        self,
        dim: int,
        activation: Activation,
        norm: NormConfig,
        token_embedding: nn.Embedding,
        *,
        transform_bias: bool = True,
        output_bias: bool = True,
        tied: bool = True,
    ) -> None:
        super().__init__()
        width = token_embedding.embedding_dim
        self.transform = nn.Linear(dim, width, transform_bias)
        self.activation = ACTIVATIONS[activation]
        self.norm = build_norm(width, norm)
        self.output = nn.Linear(width, token_embedding.num_embeddings, output_bias)
        if tied:
            self.output.weight = token_embedding.weight

    def forward(self, hidden: Tensor) -> Tensor:
        return self.output(self.norm(self.activation(self.transform(hidden))))


class Classifier(nn.Module):
    """Scores [..., C] of vectors [..., E]: perhaps a hidden layer and a norm, then a linear one.

    Of a text's one vector, chosen by `pooling`; or of every token, where that is None.
    """

    def __init__(
        self,
        dim: int,
        labels: int,
        *,
        pooling: PoolingMode | None = None,
        hidden: Activation | None = None,
        hidden_bias: bool = True,
        norm: NormConfig | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.hidden = nn.Linear(dim, dim, hidden_bias) if hidden else None
        self.activation = ACTIVATIONS[hidden] if hidden else None
        self.norm = build_norm(dim, norm) if norm else nn.Identity()
        self.output = nn.Linear(dim, labels, bias)

    def forward(self, vectors: Tensor) -> Tensor:
        if self.hidden is not None and self.activation is not None:
            vectors = self.activation(self.hidden(vectors))
        return self.output(self.norm(vectors))


class TransformerWithHeads(nn.Module):
    """A Transformer and the heads that a checkpoint has on it, by name.

    The names of its parameters are what the key rules of a family map a checkpoint to.
    """

    def __init__(self, transformer: Transformer, heads: dict[str, nn.Module]) -> None:
        super().__init__()
        self.transformer = transformer
        self.heads = nn.ModuleDict(heads)
