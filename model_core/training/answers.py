"""Targets that a model writes for sources, and how near they are to those that it should write.

Many sources at once: each has a beam search of its own, and all that are live run as one batch.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

import torch

from model_core.attention import Padded
from model_core.heads import LanguageModelHead, TransformerWithHeads
from model_core.reference_decoding import BeamSearch, Rules
from model_core.tokenization import Tokenizer
from model_core.training.order import in_order
from model_core.training.rows import Rows
from model_core.training.translation_metrics import error_rates, word_scores

AT_ONCE: Final = 256
"""Beams that run together."""


@dataclass(frozen=True, slots=True)
class Question:
    """A source, as text and as the tokenizer frames it, and all its targets."""

    text: str
    source: Sequence[int]
    targets: Sequence[str]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are written: what they begin with, how long they may be, and the search."""

    start: tuple[int, ...]
    steps: int
    beams: int
    rules: Rules
    length_penalty: float = 1.0
    early_stopping: bool = False

    def search(self) -> BeamSearch:
        """A search that hasn't begun."""
        return BeamSearch(
            self.steps,
            self.beams,
            self.rules,
            length_penalty=self.length_penalty,
            early_stopping=self.early_stopping,
        )


def questions_of(
    texts: Sequence[str],
    sources: Sequence[Sequence[int]],
    targets: Sequence[str],
    most: int | None,
) -> list[Question]:
    """Each source once, with all targets that it has; of more than `most` those that a digest
    chooses, so that they are of all kinds and always the same."""
    accepted: dict[str, list[str]] = {}
    for text, target in zip(texts, targets, strict=True):
        accepted.setdefault(text, []).append(target)
    ids = dict(zip(texts, sources, strict=True))
    chosen = list(accepted)
    if most is not None and most < len(chosen):
        chosen = sorted(chosen, key=digest)[:most]
    return [Question(text, ids[text], accepted[text]) for text in chosen]


def digest(text: str) -> bytes:
    """What puts texts in an order that has nothing to do with them."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


@torch.no_grad()
def write_answers(
    model: TransformerWithHeads,
    head: str,
    sources: Sequence[Sequence[int]],
    decoding: Decoding,
    pad: int,
) -> list[list[int]]:
    """The tokens of the best answer to each source, without what it begins with and its end.

    Targets run again from their beginning at every step; the engine that serves keeps a cache.
    """
    transformer = model.transformer
    device = transformer.token_embedding.weight.device
    rows = Rows.of(sources, device, pad)
    memory = transformer.project_memory(transformer.encode(rows.token_ids, rows.layout()))
    searches = [decoding.search() for _ in sources]
    while going := [(place, each) for place, each in enumerate(searches) if not each.is_over]:
        place_R = torch.tensor([place for place, each in going for _ in each.live], device=device)
        written = [[*decoding.start, *beam.tokens] for _, each in going for beam in each.live]
        written_RT = torch.tensor(written, device=device)
        asked = Rows(rows.token_ids[place_R], rows.lengths[place_R])
        layout = Padded.of(written_RT, memory=asked.layout())
        hidden_RTE = transformer.decode(written_RT, layout, memory.of_rows(place_R))
        logits_RV = cast("LanguageModelHead", model.heads[head])(hidden_RTE[:, -1]).cpu()
        counts = [len(each.live) for _, each in going]
        for (_, each), logits_KV in zip(going, logits_RV.split(counts), strict=True):
            each.advance(logits_KV)
    found = [search.found for search in searches]
    return [ids[:-1] if ids[-1] in decoding.rules.ends else ids for ids in found]


def examine_answers(
    model: TransformerWithHeads,
    head: str,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    decoding: Decoding,
    pad: int,
    say: Callable[[str], None],
) -> Mapping[str, float]:
    """How near the answers to all questions are to their targets."""
    written = [""] * len(questions)
    done = 0
    lengths = [len(question.source) for question in questions]
    for places in in_order(lengths, rows=max(1, AT_ONCE // decoding.beams)):
        say(f"answering, {done:,} of {len(questions):,}")
        sources = [questions[place].source for place in places]
        answers = write_answers(model, head, sources, decoding, pad)
        for place, ids in zip(places, answers, strict=True):
            written[place] = tokenizer.decode(ids)
        done += len(places)
    return scores(written, questions)


def scores(answers: Sequence[str], questions: Sequence[Question]) -> dict[str, float]:
    """Error rates, BLEU and chrF of answers; each against the targets of its question."""
    targets = [question.targets for question in questions]
    return {**error_rates(answers, targets), **word_scores(answers, targets)}
