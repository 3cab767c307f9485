"""Masked language modelling: predict tokens that are hidden, from both sides (Devlin et al. 2018).

Blocks are packed from texts with a separator between them, each framed like a text of its own
(FULL-SENTENCES of Liu et al. 2019). What is hidden is drawn anew every time a block is seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model_core.attention import Padded
from model_core.heads import MaskedLanguageModelHead
from model_core.tokenization import Tokenizer
from model_core.training.baselines import BY_FREQUENCY, unigram_entropy
from model_core.training.crew import ALONE, Crew
from model_core.training.errors import TrainingError
from model_core.training.loop import Choice, device_of
from model_core.training.order import ShuffledBatches, generator_of, in_order
from model_core.training.outputs import Outputs
from model_core.training.parts import Tokens, cut_blocks, read_corpus, tokenize
from model_core.training.recipes.recipe import (
    Prepared,
    Recipe,
    Say,
    tokens_of_block,
    write_checkpoint,
)
from model_core.training.runs import MaskedLM
from model_core.training.starting_point import Start, Wanted, start
from model_core.training.tables import Column, as_text
from model_core.training.vocabulary import READING

HEAD: Final = "masked_lm"
NOT_ASKED: Final = -100
"""The target of a token that isn't to be predicted, which the loss leaves out."""
HIDDEN: Final = 0.8
"""Of the tokens to be predicted so many read [MASK]; half of the others another token, half
themselves."""


@dataclass(frozen=True, slots=True)
class Masking:
    """How tokens are hidden: `share` of them, `mask_id` in their place.

    `special` says of each token of the vocabulary whether it is never hidden; `continues` whether
    it goes on with the word before it, in which case both are hidden or neither.
    """

    share: float
    mask_id: int
    special: Tensor
    continues: Tensor

    def hide(self, ids_BS: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What the model reads [B, S], and what it is to say [B, S]: `NOT_ASKED` elsewhere."""
        special_BS = self.special[ids_BS]
        word_BS = (~self.continues[ids_BS]).cumsum(dim=1).sub(1).clamp(min=0)
        draws_BS = torch.rand(ids_BS.shape, generator=generator).gather(1, word_BS)
        asked_BS = (draws_BS < self.share) & ~special_BS
        how_BS = torch.rand(ids_BS.shape, generator=generator)
        other_BS = torch.randint(len(self.special), ids_BS.shape, generator=generator)
        read_BS = ids_BS.masked_fill(asked_BS & (how_BS < HIDDEN), self.mask_id)
        swapped_BS = asked_BS & (how_BS >= (1 + HIDDEN) / 2)
        return torch.where(swapped_BS, other_BS, read_BS), ids_BS.masked_fill(~asked_BS, NOT_ASKED)


def masking_of(tokenizer: Tokenizer, run: MaskedLM) -> Masking:
    """How to hide tokens of this vocabulary; raises `TrainingError` if it has no mask."""
    mask_id = tokenizer.role_id("mask")
    if mask_id is None:
        raise TrainingError("the model's vocabulary has no mask token, so nothing can be hidden")
    ids = range(tokenizer.vocab_size)
    texts = [tokenizer.token_text(number) for number in ids]
    continues = continuing(texts) if run.whole_words else [False] * len(texts)
    return Masking(
        run.mask_share,
        mask_id,
        torch.tensor([tokenizer.is_special(number) for number in ids]),
        torch.tensor(continues),
    )


def continuing(texts: Sequence[str]) -> list[bool]:
    """Which tokens go on with a word: those marked so (WordPiece); where beginnings are marked by
    a space instead, those without."""
    if any(text.startswith("##") for text in texts):
        return [text.startswith("##") for text in texts]
    return [not text.startswith(" ") for text in texts]


@dataclass(frozen=True, slots=True)
class Puzzle:
    """What the model reads [B, S], and what it is to say there [B, S]."""

    read: Tensor
    asked: Tensor

    @property
    def is_asked(self) -> Tensor:
        """Where a token is asked for [B, S]."""
        return self.asked != NOT_ASKED

    @property
    def targets(self) -> Tensor:
        """The tokens [M] that are asked for."""
        return self.asked[self.is_asked]


class MaskedTask:
    """Hidden tokens of blocks [N, S]."""

    choice = Choice("loss")

    def __init__(
        self, run: MaskedLM, begun: Start, train: Tokens, validation: Tokens, masking: Masking
    ) -> None:
        self.begun = begun
        self.model = begun.model
        self.train = train
        self.validation = validation
        self.masking = masking
        section = run.training
        self.seed = section.seed
        self.rows = section.batch_size
        lengths = [train.shape[1]] * len(train)
        self.batches = ShuffledBatches(
            lengths, rows=self.rows, tokens=section.batch_tokens, seed=section.seed
        )
        self.device = device_of(section.device)
        self.model.to(self.device)

    @property
    def batches_per_epoch(self) -> int:
        return self.batches.size(0)

    def batch(self, number: int, crew: Crew = ALONE) -> Puzzle:
        # Hidden before it is shared out, so that the same is hidden in any number of shares.
        whole = self.puzzle(self.train[self.batches[number]], "mask", number)
        return Puzzle(crew.rows(whole.read), crew.rows(whole.asked))

    def puzzle(self, blocks: Tokens, purpose: str, number: int) -> Puzzle:
        """Blocks with tokens hidden, the same ones for the same purpose and number."""
        ids_BS = torch.from_numpy(blocks).long()  # pyright: ignore[reportUnknownMemberType]
        read, asked = self.masking.hide(ids_BS, generator_of(self.seed, purpose, number))
        return Puzzle(read.to(self.device), asked.to(self.device))

    def units(self, batch: Puzzle) -> int:
        return int(batch.is_asked.sum())

    def tokens(self, batch: Puzzle) -> int:
        return batch.read.numel()

    def loss(self, batch: Puzzle) -> Tensor:
        return self.loss_of(self.outputs(self.begun, batch), batch)

    def outputs(self, begun: Start, batch: Puzzle) -> Outputs:
        return hidden_tokens(begun, batch)

    def loss_of(self, outputs: Outputs, batch: Puzzle) -> Tensor:
        return summed_loss(outputs.logits, batch.targets)

    def evaluate(self) -> Mapping[str, float]:
        loss, right, asked = 0.0, 0, 0
        batches = in_order([self.validation.shape[1]] * len(self.validation), rows=self.rows)
        for number, rows in enumerate(batches):
            puzzle = self.puzzle(self.validation[rows], "validation mask", number)
            logits_MV = self.outputs(self.begun, puzzle).logits
            loss += summed_loss(logits_MV, puzzle.targets).item()
            right += int((logits_MV.argmax(dim=-1) == puzzle.targets).sum())
            asked += self.units(puzzle)
        return {
            "loss": loss / max(1, asked),
            "pseudo_perplexity": float(np.exp(min(loss / max(1, asked), 700.0))),
            "accuracy": right / max(1, asked),
        }

    def write(self, folder: Path) -> None:
        write_checkpoint(self.begun, folder)


def hidden_tokens(begun: Start, puzzle: Puzzle) -> Outputs:
    """Logits [M, V] of the tokens that are asked for; the head reads nothing else."""
    hidden_BSE = begun.model.transformer.encode(puzzle.read, Padded.of(puzzle.read))
    head = cast("MaskedLanguageModelHead", begun.model.heads[HEAD])
    return Outputs(hidden_BSE.flatten(0, 1), head(hidden_BSE[puzzle.is_asked]))


def summed_loss(logits_MV: Tensor, targets_M: Tensor) -> Tensor:
    """Σ -log p(token) over the tokens that are asked for."""
    return F.cross_entropy(logits_MV.float(), targets_M, reduction="sum")


def framed_blocks(tokens: Tokens, frame: Sequence[int], size: int, what: str) -> Tokens:
    """[N, size] blocks of a sequence, each within the frame of a text: [CLS] … [SEP]."""
    if len(frame) != 2:
        raise TrainingError(
            f"the model's tokenizer frames a text by {len(frame)} tokens; masked LM needs two, one "
            "at each end"
        )
    inner = cut_blocks(tokens, size - 2, 0, what)
    first, last = (np.full((len(inner), 1), token, np.int32) for token in frame)
    return np.concatenate((first, inner, last), axis=1)


def prepare(run: MaskedLM, output: Path, cache: Path, say: Say) -> Prepared:
    """Texts → vocabulary and model → framed blocks."""
    say("reading the data")
    corpus = read_corpus(run.data, Column(run.data.text_column, "--text-column", as_text))
    say("making the model")
    begun = start(run, Wanted(HEAD, READING), corpus.train, output, cache)
    size = tokens_of_block(run.data.max_tokens, begun)
    say("tokenizing")
    frame = begun.tokenizer.encode("")
    train, validation = (
        framed_blocks(
            tokenize(begun.tokenizer, texts, frame[-1] if frame else None, special_tokens=False),
            frame,
            size,
            what,
        )
        for texts, what in ((corpus.train, "training"), (corpus.validation, "validation"))
    )
    vocab_size = begun.model.transformer.token_embedding.num_embeddings
    entropy = unigram_entropy(train[:, 1:-1], validation[:, 1:-1], vocab_size)
    return Prepared(
        task=MaskedTask(run, begun, train, validation, masking_of(begun.tokenizer, run)),
        start=begun,
        tables=corpus.tables,
        baseline={"loss": entropy, "pseudo_perplexity": float(np.exp(entropy))},
        baseline_name=BY_FREQUENCY,
        facts={
            "blocks to train on": f"{len(train):,} of {size} tokens",
            "blocks to validate on": f"{len(validation):,}",
            "vocabulary": f"{begun.tokenizer.vocab_size:,} tokens",
        },
    )


RECIPE = Recipe(MaskedLM, prepare)
