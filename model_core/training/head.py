"""A classifier head on frozen embeddings: softmax regression, trained where it has one optimum.

The trunk is run once over every text; what is trained is one linear layer on what it gave.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from model_core.attention import Fused, Padded
from model_core.checkpoints.load import load
from model_core.checkpoints.sentence_transformers import (
    load_sentence_embedder,
    read_sentence_config,
)
from model_core.checkpoints.sources import Located
from model_core.heads import Classifier
from model_core.pooling import SentenceEmbedder
from model_core.sentence_config import SentenceConfig
from model_core.tokenization import Tokenizer
from model_core.training.errors import TrainingError
from model_core.training.metrics import macro_f1, temperature
from model_core.transformer import Transformer

BATCH_TOKENS: Final = 2048
"""Tokens of a batch, padding included: few enough to stay in a core's cache."""

Progress = Callable[[int, int], None]
"""Told how many of how many are done."""


@dataclass(frozen=True, slots=True)
class Embedder:
    """Texts to vectors by an encoder that is not trained."""

    transformer: Transformer
    tokenizer: Tokenizer
    sentence: SentenceEmbedder

    @classmethod
    def of(cls, located: Located) -> "Embedder":
        """The encoder in `located`; raises `TrainingError` where there is none."""
        model = load(located, Fused())
        if model.config.encoder is None or model.config.decoder is not None:
            raise TrainingError(f"{located.source} is no encoder, so it gives no embeddings")
        tokenizer = Tokenizer.from_files(located.files)
        config = read_sentence_config(located) or SentenceConfig()
        if config.lowercase:
            tokenizer = tokenizer.lowercased()
        sentence = load_sentence_embedder(located, config, model.config.dim)
        return cls(model.model.transformer, tokenizer, sentence)

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return self.sentence.config.vector_dim(self.transformer.config.dim)

    def embed(self, texts: Sequence[str], on_progress: Progress) -> Tensor:
        """Vectors [N, E] in the order of `texts`, those of more than `max_tokens` cut short.

        Runs them by length, so that hardly any padding is computed.
        """
        positions = self.transformer.config.output_stack.embedding.max_positions
        limit = min(self.sentence.config.max_tokens or positions, positions)
        token_ids = [ids[:limit] for ids in self.tokenizer.encode_batch(texts)]
        by_length = sorted(range(len(texts)), key=lambda index: len(token_ids[index]))
        vectors = torch.empty(len(texts), self.dim)
        done = 0
        while done < len(by_length):
            rows = max(1, BATCH_TOKENS // len(token_ids[by_length[done]]))
            batch = by_length[done : done + rows]
            vectors[batch] = self.embed_batch([token_ids[index] for index in batch])
            done += len(batch)
            on_progress(done, len(texts))
        return vectors

    @torch.inference_mode()
    def embed_batch(self, token_ids: Sequence[Sequence[int]]) -> Tensor:
        """Vectors [B, E] of texts of similar lengths."""
        rows = [torch.tensor(ids) for ids in token_ids]
        padded_BS = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths_B = torch.tensor([len(ids) for ids in token_ids])
        # No mask where nothing is padded: the kernel without one is the faster.
        is_even = bool((lengths_B == padded_BS.shape[1]).all())
        mask = None if is_even else torch.arange(padded_BS.shape[1]) < lengths_B[:, None]
        hidden_BSE = self.transformer.encode(padded_BS, Padded.of(padded_BS, mask))
        return self.sentence(hidden_BSE, lengths_B)


@dataclass(frozen=True, slots=True)
class Vectors:
    """Embedded examples: vectors [N, E] and the numbers of their labels [N]."""

    values: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True)
class Regression:
    """How a softmax regression is fitted.

    `l2` is the strength of the penalty l2/2·‖W‖² on weights for standardised vectors. `balance`
    says how much rare classes count: an example weighs (its class's frequency)^-balance, so 0
    leaves every example alike and 1 every class.
    """

    l2: float
    balance: float


GRID: Final = tuple(
    Regression(l2, balance) for balance in (0.0, 0.25, 0.5) for l2 in (3e-5, 1e-4, 3e-4, 1e-3)
)
ITERATIONS: Final = 100
"""On 80,000 glosses 60 and 150 give a macro-F1 of 0.545 and 0.544."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A head, how it was fitted, and the temperature that is folded into its weights."""

    head: Classifier
    regression: Regression
    temperature: float
    validation_macro_f1: float


def train_head(
    train: Vectors,
    validation: Vectors,
    classes: int,
    *,
    seed: int,
    on_progress: Progress,
    grid: Sequence[Regression] = GRID,
) -> Trained:
    """The regression of `grid` with the best macro-F1 on `validation`, calibrated there too.

    Raises `TrainingError` where there is nothing to tell apart, or vectors are not finite.
    """
    if not len(validation.labels) or torch.bincount(train.labels).count_nonzero() < 2:
        raise TrainingError("training needs examples of two classes, and some for validation")
    if not (train.values.isfinite().all() and validation.values.isfinite().all()):
        raise TrainingError("some of the model's embeddings are not finite (NaN or infinity)")
    best: Trained | None = None
    for number, regression in enumerate(grid):
        generator = torch.Generator().manual_seed(seed)
        head = fit(train, classes, regression, generator, ITERATIONS)
        score = macro_f1(predict(head, validation.values), validation.labels, classes)
        if best is None or score > best.validation_macro_f1:
            best = Trained(head, regression, 1.0, score)
        on_progress(number + 1, len(grid))
    if best is None:
        raise TrainingError("no regression was given to choose from")
    found = temperature(scores(best.head, validation.values), validation.labels)
    divide(best.head, found)
    return replace(best, temperature=found)


def fit(
    train: Vectors,
    classes: int,
    regression: Regression,
    generator: torch.Generator,
    iterations: int,
) -> Classifier:
    """Softmax regression on all examples at once, by L-BFGS.

    The objective is convex, so `generator`, which draws the first weights, hardly matters.
    """
    # Vectors of length 1 have components near 1/√E, so weights would have to be large and the
    # penalty weak. Standardised, both are of ordinary size; the layer takes the scaling in below.
    std_E, mean_E = torch.std_mean(train.values, dim=0)
    std_E = std_E.clamp(min=1e-6)
    x_NE = (train.values - mean_E) / std_E
    frequency_C = torch.bincount(train.labels, minlength=classes) / len(train.labels)
    weight_C = frequency_C.clamp(min=1 / len(train.labels)) ** -regression.balance

    weight_CE = torch.randn(classes, x_NE.shape[1], generator=generator) * 1e-3
    weight_CE.requires_grad_()
    bias_C = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight_CE, bias_C], max_iter=iterations, history_size=20, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        logits_NC = F.linear(x_NE, weight_CE, bias_C)
        loss = F.cross_entropy(logits_NC, train.labels, weight_C)
        loss = loss + regression.l2 / 2 * weight_CE.square().sum()
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
        return loss

    optimizer.step(objective)  # pyright: ignore[reportUnknownMemberType]
    head = Classifier(x_NE.shape[1], classes)
    with torch.no_grad():
        head.output.weight.copy_(weight_CE / std_E)
        head.output.bias.copy_(bias_C - head.output.weight @ mean_E)
    return head.eval()


@torch.no_grad()
def scores(head: Classifier, vectors_NE: Tensor) -> Tensor:
    """Logits [N, C]."""
    return head(vectors_NE)


def predict(head: Classifier, vectors_NE: Tensor) -> Tensor:
    """The number of the likeliest label [N]."""
    return scores(head, vectors_NE).argmax(dim=-1)


def divide(head: Classifier, by: float) -> None:
    """Scale the logits of `head` in place: its answers stay, its confidence changes."""
    with torch.no_grad():
        for parameter in head.output.parameters():
            parameter.div_(by)
