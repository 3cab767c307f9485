"""Sequence to sequence: write a target for a source (Vaswani et al. 2017).

Label smoothing, Adam with the inverse square root of the step, dropout on what each part adds, and
the mean of the last checkpoints' weights, as in the paper.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.generation import generation_defaults
from model_core.checkpoints.load import read_json
from model_core.checkpoints.save import write_json
from model_core.heads import LanguageModelHead
from model_core.training.averaging import average_checkpoints, read_checkpoint
from model_core.training.errors import TrainingError
from model_core.training.loop import Choice, device_of, evaluating
from model_core.training.order import ShuffledBatches, in_order
from model_core.training.parts import Parts, read_parts
from model_core.training.recipes.recipe import (
    Prepared,
    Recipe,
    Say,
    tokens_allowed,
    write_checkpoint,
)
from model_core.training.rows import Rows
from model_core.training.run_folder import BEST, RunFolder, restore_parameters
from model_core.training.runs import Seq2Seq
from model_core.training.starting_point import Start, Wanted, start
from model_core.training.tables import Column, as_text
from model_core.training.translation_metrics import error_rates, word_scores
from model_core.training.vocabulary import TRANSLATING

HEAD: Final = "seq2seq"
MEASURED: Final = 500
"""Sources that are answered, greedily, to compare answers with targets after training."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Token ids of a source, as the tokenizer frames it, and of its target with its end."""

    source: Sequence[int]
    target: Sequence[int]

    @property
    def length(self) -> int:
        """Tokens of the longer of both, by which batches are made."""
        return max(len(self.source), len(self.target))


@dataclass(frozen=True, slots=True)
class Ends:
    """What a target begins with, what ends it, and what fills up rows."""

    start: tuple[int, ...]
    end: int
    pad: int


@dataclass(frozen=True, slots=True)
class Translation:
    """Sources, targets as the decoder reads them, and the tokens that it is to say [N] there."""

    source: Rows
    read: Rows
    said: Tensor


class Seq2SeqTask:
    """Targets of sources."""

    choice = Choice("loss")

    def __init__(
        self, run: Seq2Seq, begun: Start, train: Sequence[Pair], validation: Sequence[Pair],
        ends: Ends,
    ) -> None:  # fmt: skip
        self.begun = begun
        self.model = begun.model
        self.train = train
        self.validation = validation
        self.ends = ends
        self.smoothing = run.label_smoothing
        self.beams = run.beams
        section = run.training
        self.limits: dict[str, Any] = {"rows": section.batch_size, "tokens": section.batch_tokens}
        self.batches = ShuffledBatches(
            [pair.length for pair in train], **self.limits, seed=section.seed
        )
        self.device = device_of(section.device)
        self.model.to(self.device)

    @property
    def batches_per_epoch(self) -> int:
        return self.batches.size(0)

    def batch(self, number: int) -> Translation:
        return self.translation([self.train[index] for index in self.batches[number]])

    def translation(self, pairs: Sequence[Pair]) -> Translation:
        """Pairs as one batch: what is said at a position is what is read at the next."""
        read = [[*self.ends.start, *pair.target[:-1]] for pair in pairs]
        # Nothing is to be said of a start that has several tokens until it is over.
        before = len(self.ends.start) - 1
        said = [torch.tensor([-100] * before + list(pair.target)) for pair in pairs]
        return Translation(
            Rows.of([pair.source for pair in pairs], self.device, self.ends.pad),
            Rows.of(read, self.device, self.ends.pad),
            torch.cat(said).to(self.device),
        )

    def units(self, batch: Translation) -> int:
        return int((batch.said >= 0).sum())

    def tokens(self, batch: Translation) -> int:
        return batch.source.tokens + batch.read.tokens

    def loss(self, batch: Translation) -> Tensor:
        return summed_loss(target_logits(self.begun, batch), batch.said, self.smoothing)

    def evaluate(self) -> Mapping[str, float]:
        loss, right, said = 0.0, 0, 0
        for rows in in_order([pair.length for pair in self.validation], **self.limits):
            batch = self.translation([self.validation[index] for index in rows])
            logits_NV = target_logits(self.begun, batch)
            loss += summed_loss(logits_NV, batch.said, 0.0).item()
            right += int((logits_NV.argmax(dim=-1) == batch.said).sum())
            said += self.units(batch)
        mean = loss / said
        return {"loss": mean, "perplexity": exp(min(mean, 700.0)), "accuracy": right / said}

    def write(self, folder: Path) -> None:
        write_checkpoint(self.begun, folder)
        file = folder / "generation_config.json"
        stated = read_json(file) if file.is_file() else {}
        ours = {
            "decoder_start_token_id": self.ends.start[0],
            "eos_token_id": self.ends.end,
            "pad_token_id": self.ends.pad,
            "num_beams": self.beams,
        }
        write_json(file, {**ours, **stated})


def target_logits(begun: Start, batch: Translation) -> Tensor:
    """Scores [N, V] of the tokens that are to be said, without padding."""
    transformer = begun.model.transformer
    layout = batch.source.layout()
    memory_BSE = transformer.encode(batch.source.token_ids, layout)
    hidden_BTE = transformer.decode(batch.read.token_ids, batch.read.layout(layout), memory_BSE)
    return cast("LanguageModelHead", begun.model.heads[HEAD])(hidden_BTE[batch.read.real])


def summed_loss(logits_NV: Tensor, said_N: Tensor, smoothing: float) -> Tensor:
    """Σ of the cross-entropies with targets that are smoothed: (1 - ε) of the probability on the
    token, ε spread over all (Szegedy et al. 2016)."""
    return F.cross_entropy(logits_NV.float(), said_N, reduction="sum", label_smoothing=smoothing)


@torch.no_grad()
def write_greedily(task: Seq2SeqTask, pairs: Sequence[Pair], steps: int) -> list[list[int]]:
    """The likeliest next token again and again, for all pairs at once, without their ends.

    Plain: the whole target runs again at every step. The engine that serves keeps a cache.
    """
    transformer, ends = task.begun.model.transformer, task.ends
    head = cast("LanguageModelHead", task.begun.model.heads[HEAD])
    source = Rows.of([pair.source for pair in pairs], task.device, ends.pad)
    layout = source.layout()
    memory_BSE = transformer.encode(source.token_ids, layout)
    written_BT = torch.tensor([ends.start] * len(pairs), device=task.device)
    is_open_B = torch.ones(len(pairs), dtype=torch.bool, device=task.device)
    for _ in range(steps):
        lengths = torch.full((len(pairs),), written_BT.shape[1], device=task.device)
        rows = Rows(written_BT, lengths)
        hidden_BTE = transformer.decode(written_BT, rows.layout(layout), memory_BSE)
        next_B = head(hidden_BTE[:, -1]).argmax(dim=-1).masked_fill(~is_open_B, ends.end)
        written_BT = torch.cat((written_BT, next_B[:, None]), dim=1)
        is_open_B &= next_B != ends.end
        if not is_open_B.any():
            break
    answers: list[list[int]] = [
        [int(token) for token in row] for row in written_BT[:, len(ends.start) :].cpu()
    ]
    return [row[: row.index(ends.end)] if ends.end in row else row for row in answers]


def answers_of(task: Seq2SeqTask, steps: int) -> tuple[list[str], list[str]]:
    """Texts that the model writes for some sources of the validation part, and their targets."""
    tokenizer = task.begun.tokenizer
    some = task.validation[:MEASURED]
    written: list[str] = [""] * len(some)
    for rows in in_order([pair.length for pair in some], rows=64):
        found = write_greedily(task, [some[index] for index in rows], steps)
        for index, ids in zip(rows, found, strict=True):
            written[index] = tokenizer.decode(ids)
    return written, [tokenizer.decode(pair.target) for pair in some]


# --- data -----------------------------------------------------------------------------------------


def ends_of(begun: Start) -> Ends:
    """What targets begin and end with, as the checkpoint says; `TrainingError` if it doesn't."""
    values = begun.description.values
    file = begun.files.get("generation_config.json")
    stated = {**values, **(read_json(file) if file else {})}
    defaults = generation_defaults(Fields(stated, "config.json"), has_encoder=True)
    ends = defaults.eos_ids or tuple(sorted(begun.tokenizer.eos_ids))
    if not defaults.decoder_start or not ends:
        raise TrainingError(
            "the model doesn't say what a target begins with (decoder_start_token_id) or what "
            "ends it (eos_token_id)"
        )
    pad = defaults.pad_id if defaults.pad_id is not None else ends[0]
    return Ends(defaults.decoder_start, ends[0], pad)


def read_pairs(
    begun: Start, parts: Parts, run: Seq2Seq, ends: Ends, size: int
) -> tuple[list[list[Pair]], int]:
    """The pairs of both parts, and how many were left out for being longer than `size` tokens."""
    dropped = 0
    found: list[list[Pair]] = []
    for rows, what in ((parts.train, "train"), (parts.validation, "validate")):
        columns = (run.data.source_column, run.data.target_column)
        sources, targets = (
            begun.tokenizer.encode_batch([row[column] for row in rows]) for column in columns
        )
        pairs = [
            Pair(source, target if target[-1:] == [ends.end] else [*target, ends.end])
            for source, target in zip(sources, targets, strict=True)
        ]
        kept = [pair for pair in pairs if pair.length <= size and pair.source]
        dropped += len(pairs) - len(kept)
        if not kept:
            raise TrainingError(
                f"none of the {len(pairs)} pairs to {what} on has at most {size} tokens a side; "
                "raise data.max_tokens, or give the model more positions"
            )
        found.append(kept)
    return found, dropped


def prepare(run: Seq2Seq, output: Path, cache: Path, say: Say) -> Prepared:
    """Pairs → a vocabulary for both sides, and a model → token ids."""
    say("reading the data")
    source, target = run.data.source_column, run.data.target_column
    columns = [
        Column(source, "--source-column", as_text),
        Column(target, "--target-column", as_text),
    ]
    parts = read_parts(run.data, columns, source)
    say("making the model")
    texts = (row[column] for row in parts.train for column in (source, target))
    begun = start(run, Wanted(HEAD, TRANSLATING), texts, output, cache)
    size = tokens_allowed(run.data.max_tokens, begun)
    ends = ends_of(begun)
    say("tokenizing")
    (train, validation), dropped = read_pairs(begun, parts, run, ends, size)
    task = Seq2SeqTask(run, begun, train, validation, ends)
    copied = [begun.tokenizer.decode(pair.source) for pair in validation[:MEASURED]]
    targets = [begun.tokenizer.decode(pair.target) for pair in validation[:MEASURED]]
    return Prepared(
        task=task,
        start=begun,
        tables=parts.tables,
        baseline={**error_rates(copied, targets), **word_scores(copied, targets)},
        baseline_name="the source, copied",
        facts={
            "pairs to train on": f"{len(train):,}",
            "pairs to validate on": f"{len(validation):,}",
            "pairs left out": f"{dropped:,}, of more than {size} tokens a side",
            "vocabulary": f"{begun.tokenizer.vocab_size:,} tokens, of both sides",
        },
        finish=lambda folder: finish(run, task, folder, size),
    )


def finish(run: Seq2Seq, task: Seq2SeqTask, folder: RunFolder, size: int) -> Mapping[str, float]:
    """The best checkpoint, or the mean of the last ones if that is better, becomes the result;
    its answers are compared with the targets."""
    best = folder.path(BEST)
    if best is None:
        return {}
    figures = measured(task, read_checkpoint(best, HEAD))
    last = folder.last_checkpoints(run.average)
    if len(last) > 1:
        mean = measured(task, average_checkpoints(last, HEAD))
        if mean["loss"] < figures["loss"]:
            figures = mean
            folder.write_result(f"average-of-{len(last)}", task.write)
        else:
            restore_parameters(task.model, read_checkpoint(best, HEAD))
    with evaluating(task.model):
        written, targets = answers_of(task, size - len(task.ends.start))
    return {**figures, **error_rates(written, targets), **word_scores(written, targets)}


def measured(task: Seq2SeqTask, parameters: Mapping[str, Tensor]) -> dict[str, float]:
    """The figures of the task's model with these parameters, which it has from then on."""
    restore_parameters(task.model, parameters)
    with evaluating(task.model):
        return dict(task.evaluate())


RECIPE = Recipe(Seq2Seq, prepare)
