"""Causal language modelling: predict each token from those before it, in packed blocks.

Radford et al. 2019: texts follow one another, parted by the token that ends a text.
"""

from collections.abc import Mapping, Sequence
from math import exp, log
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from model_core.attention import Padded
from model_core.heads import LanguageModelHead
from model_core.training.baselines import BY_FREQUENCY, unigram_entropy
from model_core.training.crew import ALONE, Crew
from model_core.training.loop import Choice, device_of
from model_core.training.order import ShuffledBatches, in_order
from model_core.training.outputs import Outputs
from model_core.training.parts import Tokens, cut_blocks, read_corpus, tokenize
from model_core.training.recipes.recipe import (
    Prepared,
    Recipe,
    Say,
    tokens_of_block,
    write_checkpoint,
)
from model_core.training.runs import CausalLM
from model_core.training.starting_point import Start, Wanted, start
from model_core.training.tables import Column, as_text
from model_core.training.vocabulary import WRITING

HEAD = "language_model"


class CausalTask:
    """Next tokens of blocks [N, S + 1]: all but the first are predicted.

    `bytes_per_token` are those of the validation texts, for bits per byte.
    """

    choice = Choice("loss")

    def __init__(
        self, run: CausalLM, begun: Start, train: Tokens, validation: Tokens, bytes_per_token: float
    ) -> None:
        self.begun = begun
        self.model = begun.model
        self.train = train
        self.validation = validation
        self.bytes_per_token = bytes_per_token
        section = run.training
        lengths = [train.shape[1] - 1] * len(train)
        self.rows = section.batch_size
        self.batches = ShuffledBatches(
            lengths, rows=self.rows, tokens=section.batch_tokens, seed=section.seed
        )
        self.device = device_of(section.device)
        self.model.to(self.device)

    @property
    def batches_per_epoch(self) -> int:
        return self.batches.size(0)

    def batch(self, number: int, crew: Crew = ALONE) -> Tensor:
        return self.blocks(self.train, crew.share(self.batches[number]))

    def blocks(self, of: Tokens, indices: Sequence[int]) -> Tensor:
        """Some blocks [B, S + 1] on the device."""
        return torch.from_numpy(of[list(indices)]).long().to(self.device)  # pyright: ignore[reportUnknownMemberType]

    def units(self, batch: Tensor) -> int:
        return batch[:, 1:].numel()

    def tokens(self, batch: Tensor) -> int:
        return batch[:, 1:].numel()

    def loss(self, batch: Tensor) -> Tensor:
        return self.loss_of(self.outputs(self.begun, batch), batch)

    def outputs(self, begun: Start, batch: Tensor) -> Outputs:
        return next_tokens(begun, batch)

    def loss_of(self, outputs: Outputs, batch: Tensor) -> Tensor:
        return next_token_loss(outputs.logits, batch)

    def evaluate(self) -> Mapping[str, float]:
        lengths = [self.validation.shape[1] - 1] * len(self.validation)
        batches = in_order(lengths, rows=self.rows)
        total = sum(self.loss(self.blocks(self.validation, rows)).item() for rows in batches)
        return figures_of(total / sum(lengths), self.bytes_per_token)

    def write(self, folder: Path) -> None:
        write_checkpoint(self.begun, folder)


def next_tokens(begun: Start, block_BS: Tensor) -> Outputs:
    """Logits [N, V] of all tokens but the first of each row, from those before it in its row."""
    inputs = block_BS[:, :-1]
    hidden_NE = begun.model.transformer.decode(inputs, Padded.of(inputs)).flatten(0, 1)
    return Outputs(hidden_NE, cast("LanguageModelHead", begun.model.heads[HEAD])(hidden_NE))


def next_token_loss(logits_NV: Tensor, block_BS: Tensor) -> Tensor:
    """Σ -log p(token | those before it in its row), over all but the first of each row."""
    return F.cross_entropy(logits_NV.float(), block_BS[:, 1:].flatten(), reduction="sum")


def figures_of(loss: float, bytes_per_token: float) -> dict[str, float]:
    """A mean loss in nats per token, as people compare it."""
    return {
        "loss": loss,
        "perplexity": exp(min(loss, 700.0)),
        "bits_per_byte": loss / log(2) / bytes_per_token,
    }


def prepare(run: CausalLM, output: Path, cache: Path, say: Say) -> Prepared:
    """Texts → vocabulary and model → blocks."""
    say("reading the data")
    column = Column(run.data.text_column, "--text-column", as_text)
    corpus = read_corpus(run.data, column)
    say("making the model")
    begun = start(run, Wanted(HEAD, WRITING), corpus.train, output, cache)
    size = tokens_of_block(run.data.max_tokens, begun) + 1
    say("tokenizing")
    end = min(begun.tokenizer.eos_ids, default=None)
    train, validation = (
        tokenize(begun.tokenizer, texts, end, special_tokens=True)
        for texts in (corpus.train, corpus.validation)
    )
    blocks = [
        cut_blocks(tokens, size, 1, what)
        for tokens, what in ((train, "training"), (validation, "validation"))
    ]
    bytes_per_token = sum(len(text.encode()) for text in corpus.validation) / len(validation)
    vocab_size = begun.model.transformer.token_embedding.num_embeddings
    entropy = unigram_entropy(blocks[0], blocks[1], vocab_size)
    return Prepared(
        task=CausalTask(run, begun, blocks[0], blocks[1], bytes_per_token),
        start=begun,
        tables=corpus.tables,
        baseline=figures_of(entropy, bytes_per_token),
        baseline_name=BY_FREQUENCY,
        facts={
            "tokens to train on": f"{len(train):,}",
            "tokens to validate on": f"{len(validation):,}",
            "tokens in a block": f"{size - 1}",
            "vocabulary": f"{begun.tokenizer.vocab_size:,} tokens",
        },
    )


RECIPE = Recipe(CausalLM, prepare)
