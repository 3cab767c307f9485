"""Embeddings: vectors of texts that match are brought together, of others apart.

Of all texts in a batch the one that matches has to be told by its cosine times a scale (multiple
negatives ranking: Henderson et al. 2017, Reimers & Gurevych 2019). Texts that were chosen to be
hard to tell apart may be added; with Matryoshka dims the first dims of a vector are trained to do
alone (Kusupati et al. 2022).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F

from model_core.checkpoints.save_sentence import save_sentence_config
from model_core.checkpoints.sentence_transformers import read_sentence_config
from model_core.checkpoints.sources import locate
from model_core.config import PoolingMode
from model_core.pooling import SentenceEmbedder, normalize
from model_core.sentence_config import SentenceConfig, UnitStep
from model_core.tokenization import Tokenizer
from model_core.training.crew import ALONE, Crew
from model_core.training.errors import TrainingError
from model_core.training.loop import Choice, device_of, evaluating
from model_core.training.order import ShuffledBatches, in_order
from model_core.training.outputs import Outputs
from model_core.training.parts import read_parts
from model_core.training.recipes.recipe import (
    Prepared,
    Recipe,
    Say,
    tokens_allowed,
    write_checkpoint,
)
from model_core.training.rows import Rows
from model_core.training.runs import Embed
from model_core.training.starting_point import Start, Wanted, start
from model_core.training.tables import Column, Row, as_text
from model_core.training.vocabulary import READING

MEASURED: Final = 2_000
"""Pairs of the validation part that are searched among one another."""


@dataclass(frozen=True, slots=True)
class Side:
    """Texts of one column: their token ids, and a number [N] that is the same for the same text."""

    texts: Sequence[Sequence[int]]
    numbers: Tensor


@dataclass(frozen=True, slots=True)
class Matches:
    """Anchors, the texts that match them, and perhaps for each one that doesn't."""

    anchors: Side
    positives: Side
    negatives: Side | None

    @property
    def sides(self) -> tuple[Side, ...]:
        """The columns that there are."""
        found = (self.anchors, self.positives, self.negatives)
        return tuple(side for side in found if side is not None)

    @property
    def lengths(self) -> list[int]:
        """Tokens of the longest text of each match."""
        return [max(map(len, row)) for row in zip(*(s.texts for s in self.sides), strict=True)]


@dataclass(frozen=True, slots=True)
class Group:
    """A batch: rows of anchors and candidates, and which candidates an anchor is not compared with.

    Candidates [K] are the positives of all anchors [B], in their order, then the negatives.
    `left_out` [B, K]: those that match too, as the same text or the match of the same anchor.
    """

    anchors: Rows
    candidates: tuple[Rows, ...]
    left_out: Tensor


class EmbedTask:
    """Vectors of matches."""

    choice = Choice("mrr", higher=True)

    def __init__(
        self, run: Embed, begun: Start, sentence: SentenceConfig, train: Matches,
        validation: Matches,
    ) -> None:  # fmt: skip
        self.begun = begun
        self.model = begun.model
        self.sentence = sentence
        self.embedder = SentenceEmbedder(sentence)
        self.train = train
        self.validation = validation
        self.scale = run.scale
        self.dims = run.matryoshka
        section = run.training
        self.limits: dict[str, Any] = {"rows": section.batch_size, "tokens": section.batch_tokens}
        self.batches = ShuffledBatches(train.lengths, **self.limits, seed=section.seed)
        self.device = device_of(section.device)
        self.model.to(self.device)

    @property
    def batches_per_epoch(self) -> int:
        return self.batches.size(0)

    def batch(self, number: int, crew: Crew = ALONE) -> Group:
        if crew.size > 1:
            raise TrainingError("each text of a batch is held against all others: one worker")
        return self.group(self.train, self.batches[number])

    def group(self, of: Matches, indices: Sequence[int]) -> Group:
        """Some matches as a batch."""
        rows = [self.rows(side, indices) for side in of.sides]
        left_out = alike(of, list(indices)).to(self.device)
        return Group(rows[0], tuple(rows[1:]), left_out)

    def rows(self, side: Side, indices: Sequence[int]) -> Rows:
        """Some texts of a column."""
        return Rows.of([side.texts[index] for index in indices], self.device)

    def units(self, batch: Group) -> int:
        return len(batch.left_out)

    def tokens(self, batch: Group) -> int:
        return sum(rows.tokens for rows in (batch.anchors, *batch.candidates))

    def loss(self, batch: Group) -> Tensor:
        return self.loss_of(self.outputs(self.begun, batch), batch)

    def outputs(self, begun: Start, batch: Group) -> Outputs:
        """Vectors of anchors and candidates, and how each anchor's scores are spread over these."""
        sides = (batch.anchors, *batch.candidates)
        vectors_ND = torch.cat([self.vectors(rows, begun) for rows in sides])
        anchors_BD, candidates_KD = self.parted(vectors_ND, batch)
        scores_BK = ranking_scores(anchors_BD, candidates_KD, batch.left_out, self.scale)
        return Outputs(vectors_ND, scores_BK)

    def parted(self, vectors_ND: Tensor, batch: Group) -> tuple[Tensor, Tensor]:
        """Vectors of anchors [B, D] and of candidates [K, D]."""
        count = len(batch.left_out)
        return vectors_ND[:count], vectors_ND[count:]

    def loss_of(self, outputs: Outputs, batch: Group) -> Tensor:
        anchors_BD, candidates_KD = self.parted(outputs.hidden, batch)
        widths = (*self.dims, anchors_BD.shape[1])
        losses = [
            ranking_loss(anchors_BD[:, :d], candidates_KD[:, :d], batch.left_out, self.scale)
            for d in widths
        ]
        return torch.stack(losses).mean()

    def vectors(self, rows: Rows, begun: Start | None = None) -> Tensor:
        """Vectors [B, D] of texts, as they are served; by the model that is trained, or another."""
        transformer = (begun or self.begun).model.transformer
        read = transformer.encode if transformer.encoder is not None else transformer.decode
        return self.embedder(read(rows.token_ids, rows.layout()), rows.lengths).float()

    def evaluate(self) -> Mapping[str, float]:
        anchors, positives = (self.embedded(side) for side in self.validation.sides[:2])
        count = len(anchors)
        left_out = alike(replace(self.validation, negatives=None), list(range(count)))
        figures = search_figures(anchors, positives, left_out)
        for dim in self.dims:
            found = search_figures(anchors[:, :dim], positives[:, :dim], left_out)
            figures[f"mrr_of_{dim}_dims"] = found["mrr"]
        return figures

    def embedded(self, side: Side) -> Tensor:
        """Vectors [N, D] of the texts of a column of the validation part, on the CPU."""
        some = side.texts[:MEASURED]
        found: list[Tensor | None] = [None] * len(some)
        for indices in in_order([len(ids) for ids in some], **self.limits):
            for index, vector in zip(indices, self.vectors(self.rows(side, indices)), strict=True):
                found[index] = vector.cpu()
        return torch.stack([vector for vector in found if vector is not None])

    def write(self, folder: Path) -> None:
        write_checkpoint(self.begun, folder)
        save_sentence_config(self.sentence, self.begun.model.transformer.config.dim, folder)


def alike(matches: Matches, indices: list[int]) -> Tensor:
    """Which candidates match an anchor beside its own positive [B, K]: the same text again, or the
    match of the same anchor."""
    anchors, positives = (side.numbers[indices] for side in matches.sides[:2])
    found = (anchors[:, None] == anchors) | (positives[:, None] == positives)
    found.fill_diagonal_(False)
    if matches.negatives is None:
        return found
    negatives = matches.negatives.numbers[indices]
    return torch.cat((found, positives[:, None] == negatives), dim=1)


def ranking_loss(
    anchors_BD: Tensor, candidates_KD: Tensor, left_out_BK: Tensor, scale: float
) -> Tensor:
    """Σ -log p(candidate b | anchor b), p a softmax over cosines · scale."""
    scores_BK = ranking_scores(anchors_BD, candidates_KD, left_out_BK, scale)
    own_B = torch.arange(len(anchors_BD), device=anchors_BD.device)
    return F.cross_entropy(scores_BK, own_B, reduction="sum")


def ranking_scores(
    anchors_BD: Tensor, candidates_KD: Tensor, left_out_BK: Tensor, scale: float
) -> Tensor:
    """Cosines · scale [B, K]; of those that are left out so low that nothing is left of them."""
    scores_BK = normalize(anchors_BD) @ normalize(candidates_KD).T * scale
    # Not -inf: what is compared with another model's scores has to have differences.
    return scores_BK.masked_fill(left_out_BK, -1e4)


def search_figures(anchors_ND: Tensor, positives_ND: Tensor, left_out: Tensor) -> dict[str, float]:
    """How well an anchor finds its positive among all: by its rank, from 1.

    The mean of 1/rank (MRR), and the share that is first or among the first ten.
    """
    scores_NN = normalize(anchors_ND) @ normalize(positives_ND).T
    own_N1 = scores_NN.diagonal()[:, None]
    # One with the same score counts as before it: vectors that are all alike find nothing.
    is_own = torch.eye(len(scores_NN), dtype=torch.bool)
    rank_N = 1 + ((scores_NN >= own_N1) & ~left_out & ~is_own).sum(dim=1)
    return {
        "mrr": (1 / rank_N).mean().item(),
        "recall_at_1": (rank_N == 1).float().mean().item(),
        "recall_at_10": (rank_N <= 10).float().mean().item(),
    }


# --- data -----------------------------------------------------------------------------------------


def sentence_of(run: Embed, cache: Path, begun: Start) -> SentenceConfig:
    """How vectors are made: as the checkpoint has it, else by `pooling` and to length 1."""
    stated = None
    if run.model.source is not None:
        stated = read_sentence_config(locate(run.model.source, cache=cache))
    if stated is not None and any(not isinstance(step, UnitStep) for step in stated.steps):
        raise TrainingError(
            f"{run.model.source} has layers with weights after its pooling, which aren't trained"
        )
    sentence = stated or SentenceConfig()
    if run.pooling is not None or stated is None:
        sentence = replace(sentence, pooling=(run.pooling or PoolingMode.MEAN,))
    size = tokens_allowed(run.data.max_tokens or sentence.max_tokens, begun)
    return replace(sentence, max_tokens=size, steps=(UnitStep(),))


def matches_of(run: Embed, tokenizer: Tokenizer, rows: Sequence[Row], size: int) -> Matches:
    """Rows as token ids, with a number for every text that there is."""
    numbers: dict[str, int] = {}

    def side(column: str) -> Side:
        texts = [row[column] for row in rows]
        ids = [tokenizer.cut(each, size) for each in tokenizer.encode_batch(texts)]
        found = [numbers.setdefault(text, len(numbers)) for text in texts]
        return Side([each or [tokenizer.pad_id or 0] for each in ids], torch.tensor(found))

    data = run.data
    negatives = None if data.negative_column is None else side(data.negative_column)
    return Matches(side(data.anchor_column), side(data.positive_column), negatives)


def prepare(run: Embed, output: Path, cache: Path, say: Say) -> Prepared:
    """Texts that match → a model, and how it makes vectors → token ids."""
    say("reading the data")
    data = run.data
    columns = [
        Column(data.anchor_column, "--anchor-column", as_text),
        Column(data.positive_column, "--positive-column", as_text),
    ]
    if data.negative_column is not None:
        columns.append(Column(data.negative_column, "--negative-column", as_text))
    parts = read_parts(data, columns, data.anchor_column)
    if len(parts.train) < 2 or len(parts.validation) < 2:
        raise TrainingError("two matches are needed in each part: each is held against the others")
    say("making the model")
    texts = (row[column.name] for row in parts.train for column in columns)
    begun = start(run, Wanted(None, READING), texts, output, cache)
    if len(begun.model.transformer.config.stacks) > 1:
        raise TrainingError("an encoder-decoder can't be trained to embed; name an encoder")
    sentence = sentence_of(run, cache, begun)
    width = sentence.vector_dim(begun.model.transformer.config.dim)
    if any(dim >= width for dim in run.matryoshka):
        raise TrainingError(
            f"matryoshka is {list(run.matryoshka)}; vectors have {width} dims, name fewer"
        )
    say("tokenizing")
    tokenizer = begun.tokenizer.lowercased() if sentence.lowercase else begun.tokenizer
    size = sentence.max_tokens or begun.max_tokens
    train, validation = (
        matches_of(run, tokenizer, rows, size) for rows in (parts.train, parts.validation)
    )
    task = EmbedTask(run, begun, sentence, train, validation)
    say("measuring the model as it is")
    with evaluating(task.model):
        before = dict(task.evaluate())
    return Prepared(
        task=task,
        start=begun,
        tables=parts.tables,
        baseline=before,
        baseline_name="before training",
        facts={
            "matches to train on": f"{len(parts.train):,}",
            "matches to search among": f"{min(MEASURED, len(parts.validation)):,}",
            "vectors": f"{width} dims, {' and '.join(sentence.pooling)} of at most {size} tokens",
        },
    )


RECIPE = Recipe(Embed, prepare)
