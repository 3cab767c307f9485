"""Sequence to sequence: write a target for a source (Vaswani et al. 2017).

Label smoothing, Adam with the inverse square root of the step, dropout on what each part adds, and
the mean of the last checkpoints' weights, as in the paper.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.generation import GenerationDefaults, generation_defaults
from model_core.checkpoints.load import read_json
from model_core.checkpoints.save import write_json
from model_core.heads import LanguageModelHead
from model_core.reference_decoding import Rules
from model_core.training.answers import (
    Decoding,
    Question,
    examine_answers,
    questions_of,
    scores,
)
from model_core.training.averaging import average_checkpoints, restore_best
from model_core.training.crew import ALONE, Crew
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
from model_core.training.run_folder import RunFolder, restore_parameters
from model_core.training.runs import Seq2Seq
from model_core.training.starting_point import Start, Wanted, start
from model_core.training.tables import Column, Row, as_text
from model_core.training.vocabulary import TRANSLATING

HEAD: Final = "seq2seq"


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

    def batch(self, number: int, crew: Crew = ALONE) -> Translation:
        return self.translation([self.train[index] for index in crew.share(self.batches[number])])

    def translation(self, pairs: Sequence[Pair]) -> Translation:
        """Pairs as one batch: what is said at a position is what is read at the next."""
        read = [[*self.ends.start, *pair.target[:-1]] for pair in pairs]
        # Nothing is to be said of a start that has several tokens until it is over.
        before = len(self.ends.start) - 1
        said = [token for pair in pairs for token in (*[-100] * before, *pair.target)]
        return Translation(
            Rows.of([pair.source for pair in pairs], self.device, self.ends.pad),
            Rows.of(read, self.device, self.ends.pad),
            torch.tensor(said, dtype=torch.long, device=self.device),
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


# --- data -----------------------------------------------------------------------------------------


def generation_of(begun: Start, run: Seq2Seq) -> GenerationDefaults:
    """How texts are generated as the checkpoint says, and the run where it says nothing.

    `TrainingError` if it doesn't say what targets begin with.
    """
    values = begun.description.values
    file = begun.files.get("generation_config.json")
    stated = {"num_beams": run.beams, **values, **(read_json(file) if file else {})}
    defaults = generation_defaults(Fields(stated, "config.json"), has_encoder=True)
    ends = defaults.eos_ids or tuple(sorted(begun.tokenizer.eos_ids))
    if not defaults.decoder_start or not ends:
        raise TrainingError(
            "the model doesn't say what a target begins with (decoder_start_token_id) or what "
            "ends it (eos_token_id)"
        )
    return replace(defaults, eos_ids=ends)


def ends_of(defaults: GenerationDefaults) -> Ends:
    """What targets begin and end with."""
    end = defaults.eos_ids[0]
    pad = defaults.pad_id if defaults.pad_id is not None else end
    return Ends(defaults.decoder_start, end, pad)


def decoding_of(defaults: GenerationDefaults, beams: int | None, size: int) -> Decoding:
    """How answers of at most `size` tokens are written: as the result will be served, but for the
    `beams`, if given."""
    return Decoding(
        start=defaults.decoder_start,
        steps=size - len(defaults.decoder_start),
        beams=beams or defaults.beams,
        rules=Rules(
            defaults.eos_ids,
            defaults.forced_first,
            defaults.forced_last,
            defaults.suppressed,
            defaults.renormalize,
        ),
        length_penalty=defaults.length_penalty,
        early_stopping=defaults.early_stopping,
    )


@dataclass(frozen=True, slots=True)
class Part:
    """Pairs as token ids, and the rows that they were."""

    pairs: Sequence[Pair]
    rows: Sequence[Row]


def read_pairs(
    begun: Start, parts: Parts, run: Seq2Seq, ends: Ends, size: int
) -> tuple[list[Part], int]:
    """The pairs of both parts, and how many were left out for being longer than `size` tokens."""
    dropped = 0
    found: list[Part] = []
    for rows, what in ((parts.train, "train"), (parts.validation, "validate")):
        columns = (run.data.source_column, run.data.target_column)
        sources, targets = (
            begun.tokenizer.encode_batch([row[column] for row in rows]) for column in columns
        )
        pairs = [
            Pair(source, target if target[-1:] == [ends.end] else [*target, ends.end])
            for source, target in zip(sources, targets, strict=True)
        ]
        kept = [place for place, pair in enumerate(pairs) if pair.length <= size and pair.source]
        dropped += len(pairs) - len(kept)
        if not kept:
            raise TrainingError(
                f"none of the {len(pairs)} pairs to {what} on has at most {size} tokens a side; "
                "raise data.max_tokens, or give the model more positions"
            )
        found.append(Part([pairs[place] for place in kept], [rows[place] for place in kept]))
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
    defaults = generation_of(begun, run)
    ends = ends_of(defaults)
    decoding = decoding_of(defaults, run.evaluation.beams, size)
    say("tokenizing")
    (train, validation), dropped = read_pairs(begun, parts, run, ends, size)
    task = Seq2SeqTask(run, begun, train.pairs, validation.pairs, ends)
    questions = questions_of(
        [row[source] for row in validation.rows],
        [pair.source for pair in validation.pairs],
        [row[target] for row in validation.rows],
        run.evaluation.sources,
    )

    def examine() -> Mapping[str, float]:
        with evaluating(task.model):
            return examine_answers(
                task.model, HEAD, begun.tokenizer, questions, decoding, ends.pad, say
            )

    return Prepared(
        task=task,
        start=begun,
        tables=parts.tables,
        baseline=scores([question.text for question in questions], questions),
        baseline_name="the source, copied",
        facts={
            "pairs to train on": f"{len(train.pairs):,}",
            "pairs to validate on": f"{len(validation.pairs):,}",
            "pairs left out": f"{dropped:,}, of more than {size} tokens a side",
            "sources answered": f"{len(questions):,}, with {decoding.beams} beams",
            "targets of a source": f"{mean_targets(questions):.2f}, of which the nearest counts",
            "vocabulary": f"{begun.tokenizer.vocab_size:,} tokens, of both sides",
        },
        finish=lambda folder: finish(run, task, folder),
        examine=examine,
    )


def mean_targets(questions: Sequence[Question]) -> float:
    """How many targets a source has on average."""
    return sum(len(question.targets) for question in questions) / len(questions)


def finish(run: Seq2Seq, task: Seq2SeqTask, folder: RunFolder) -> Mapping[str, float]:
    """The mean of the last checkpoints becomes the result, if it is better than the best."""
    figures = measured(task)
    last = folder.last_checkpoints(run.average)
    if len(last) > 1:
        restore_parameters(task.model, average_checkpoints(last, HEAD))
        mean = measured(task)
        if mean["loss"] < figures["loss"]:
            folder.write_result(f"average-of-{len(last)}", task.write)
            return mean
        restore_best(task.begun, folder)
    return figures


def measured(task: Seq2SeqTask) -> dict[str, float]:
    """The figures of the task's model as it is."""
    with evaluating(task.model):
        return dict(task.evaluate())


RECIPE = Recipe(Seq2Seq, prepare)
