"""A served model that can be looked into: from an inquiry to what is seen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from export.artifact import VECTORS_OF_TOKENS, Manifest, ServedOutput
from model_core.tokenization import Tokenizer
from service.engines.pooling import unit
from service.errors import EngineFailure, InvalidRequest
from service.inspection import attributions
from service.inspection.attentions import (
    SECOND,
    Attention,
    attentions_of,
    sizes,
    stacks_of,
)
from service.inspection.graphs import Array, InspectionGraphs
from service.inspection.inquiry import Inquiry, Part, require_below, require_fitting
from service.inspection.next_tokens import lens_places, logit_lens, next_tokens
from service.inspection.rollout import pattern_of, rolled_sites, rollouts
from service.inspection.sequences import Sequences, TextLimits, TokenRow, sequences_of
from service.messages import Floats, ModelCard

MOST_COMPUTED = 2**26
"""Numbers that are taken out of the graph for one inquiry, all heads of its layers: 256 MB."""


class GivenUp(Exception):
    """Nobody waits any longer for what is being computed."""


@dataclass(slots=True)
class Seen:
    """An answer: what is plain data, and the arrays by name that go with it."""

    answer: dict[str, Any]
    tensors: dict[str, Array] = field(default_factory=dict[str, Array])


@dataclass(frozen=True, slots=True)
class InspectedModel:
    """One served output of an artifact, its inspection graph and its tokenizer.

    `classes` makes probabilities of a classifier's scores [N, C].
    """

    card: ModelCard
    served: Manifest
    output: ServedOutput
    graphs: InspectionGraphs
    tokenizer: Tokenizer
    classes: Callable[[Floats], Floats]

    def look(
        self,
        inquiry: Inquiry,
        limits: TextLimits,
        most_numbers: int,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Seen:
        """What is asked for, of `most_numbers` at most. Takes up to seconds; any thread may call.

        Raises `InvalidRequest` and `TooManyTokens` before anything runs, `EngineFailure` for what
        is not finite, `GivenUp` when it is no longer `wanted`.
        """
        card, inspection = self.card, self.graphs.inspection
        require_fitting(inquiry, card.task, inspection, card.name)
        read = sequences_of(inquiry, card, self.served, self.tokenizer, limits)
        looking = Looking(self, inquiry, read, attentions_of(inquiry, read, inspection), wanted)
        looking.require_room(most_numbers)
        seen = looking.look()
        if not all(np.isfinite(tensor).all() for tensor in seen.tensors.values()):
            raise EngineFailure(f"model {card.name!r} has numbers inside that are not finite")
        return seen


@dataclass(frozen=True, slots=True)
class Looking:
    """One inquiry under way."""

    model: InspectedModel
    inquiry: Inquiry
    read: Sequences
    attentions: Sequence[Attention]
    wanted: Callable[[], bool]

    @property
    def asked(self) -> TokenRow:
        """The row whose next tokens, or attributions, are asked for."""
        return self.read.target or self.read.sources[0]

    def includes(self, *parts: Part) -> bool:
        """Whether any of `parts` is asked for."""
        return any(part in self.inquiry.include for part in parts)

    def require_room(self, most_numbers: int) -> None:
        """Raises `InvalidRequest` for what would take too much, or isn't there."""
        card, tokens = self.model.card, len(self.asked.spans)
        computed, given = sizes(self.attentions, self.inquiry)
        if self.includes(Part.ROLLOUT):
            more, shown = self.rollout_sizes()
            computed, given = computed + more, given + shown
        if self.includes(Part.ATTRIBUTIONS):
            given += tokens * len(card.labels)
        for count, most in ((given, most_numbers), (computed, MOST_COMPUTED)):
            if count > most:
                raise InvalidRequest(
                    f"layers: what is asked for is {count} numbers; at most {most} are given. Ask "
                    "for fewer layers or heads, or for a shorter text",
                    field="layers",
                )
        require_below(self.inquiry.positions, tokens, "positions", card.name)
        if self.includes(Part.LOGIT_LENS):
            self.lens_places()
        if self.includes(Part.ATTRIBUTIONS):
            attributions.require_short(tokens)
        label = self.inquiry.label
        if label is not None and label not in card.labels:
            raise InvalidRequest(
                f"label: {label[:60]!r} is not accepted; model {card.name!r} has: "
                f"{', '.join(card.labels) or 'none'}",
                field="label",
            )

    def rollout_sizes(self) -> tuple[int, int]:
        """How many numbers are computed for the rollout, and at most given."""
        most = max(len(row.spans) for row in self.read.all) ** 2 * len(self.read.sources)
        sites = [site for of in rolled_sites(self.model.graphs.inspection).values() for site in of]
        return most * sum(site.heads for site in sites), most * len(sites)

    def lens_places(self) -> tuple[list[int], list[int]]:
        """The states and positions that the logit lens reads."""
        inspection = self.model.graphs.inspection
        layers = stacks_of(inspection)[inspection.lens or ""]["layers"]
        return lens_places(self.inquiry, len(self.asked.spans), layers)

    def look(self) -> Seen:
        """The whole answer."""
        model, read = self.model, self.read
        found = self.run()
        seen = Seen(
            {
                "object": "inspection",
                "model": model.card.name,
                "task": model.card.task,
                "graph": about(model.graphs),
                "stacks": stacks_of(model.graphs.inspection),
                "texts": list(read.read),
                "sequences": [{"tokens": self.tokens(row)} for row in read.all],
                "attentions": [attention.told(self.inquiry) for attention in self.attentions],
            }
        )
        for attention in self.attentions:
            seen.tensors |= attention.tensors(self.inquiry, found[attention.run])
        if self.includes(Part.RESIDUAL_NORMS):
            for place, run in enumerate(found):
                for stack in stacks_of(model.graphs.inspection):
                    name = f"{stack}.residual_norms"
                    seen.tensors[SECOND + name if place else name] = run[name][:, 0]
        if self.includes(Part.ROLLOUT):
            for place, run in enumerate(found):
                for name, rows in rollouts(model.graphs.inspection, self.inquiry, run).items():
                    seen.tensors[SECOND + name if place else name] = rows
        self.add_next_tokens(seen, found[0])
        self.add_vectors(seen, found)
        self.add_classes(seen, found[0])
        return seen

    def run(self) -> list[dict[str, Array]]:
        """What the graph gives for each source, of what is asked for."""
        graphs = self.model.graphs
        names = {
            f"{attention.site.name}.{part}"
            for attention in self.attentions
            for part in attention.parts(self.inquiry)
        }
        if self.includes(Part.RESIDUAL_NORMS):
            names |= {f"{stack}.residual_norms" for stack in stacks_of(graphs.inspection)}
        if self.includes(Part.ROLLOUT):
            for sites in rolled_sites(graphs.inspection).values():
                names |= {pattern_of(site) for site in sites}
        if self.includes(Part.NEXT_TOKENS, Part.LOGIT_LENS):
            names.add(f"{graphs.inspection.lens}.states")
        if self.includes(Part.POOLED, Part.CLASS_SCORES, Part.ATTRIBUTIONS):
            names.add(self.model.output.output)
        if self.includes(Part.SIMILARITY):
            names.add(VECTORS_OF_TOKENS)
        order = sorted(names)
        # One after the other, so that no row is padded and every tensor is as long as its text.
        found: list[dict[str, Array]] = []
        for row in self.read.sources:
            self.go_on()
            found.append(graphs.run([row], self.read.target, order))
        return found

    def tokens(self, row: TokenRow) -> list[dict[str, Any]]:
        """The tokens of a row, each with its own text, its part of the text, and its place."""
        tokenizer = self.model.tokenizer
        return [
            {
                "id": span.token_id,
                "token": span.text if span.special else tokenizer.token_text(span.token_id),
                "text": span.text,
                "special": span.special,
                "start": span.start,
                "stop": span.stop,
                "of": text,
            }
            for span, text in zip(row.spans, row.texts, strict=True)
        ]

    def add_next_tokens(self, seen: Seen, run: Mapping[str, Array]) -> None:
        """Of a model that writes."""
        graphs, tokenizer, top = self.model.graphs, self.model.tokenizer, self.inquiry.top
        if self.includes(Part.NEXT_TOKENS):
            places = self.inquiry.positions or (len(self.asked.spans) - 1,)
            states = run[f"{graphs.inspection.lens}.states"][:, 0]
            seen.answer["next_tokens"] = next_tokens(
                graphs, tokenizer, states, places, top, self.go_on
            )
        if self.includes(Part.LOGIT_LENS):
            states = run[f"{graphs.inspection.lens}.states"][:, 0]
            told, tensors = logit_lens(
                graphs, tokenizer, states, self.lens_places(), top, self.go_on
            )
            seen.answer["logit_lens"] = told
            seen.tensors |= tensors

    def add_vectors(self, seen: Seen, runs: Sequence[Mapping[str, Array]]) -> None:
        """Of an embedding model: of a text, and of its tokens; of one alone, with itself."""
        if self.includes(Part.POOLED):
            vectors = np.concatenate([run[self.model.output.output] for run in runs])
            seen.tensors["pooled"] = vectors
            if len(vectors) == 2:
                seen.answer["cosine"] = float(np.prod(unit(vectors), axis=0).sum())
        if self.includes(Part.SIMILARITY):
            first, last = (unit(runs[place][VECTORS_OF_TOKENS]) for place in (0, -1))
            seen.tensors["similarity"] = first @ last.T

    def add_classes(self, seen: Seen, run: Mapping[str, Array]) -> None:
        """Of a classifier."""
        if not self.includes(Part.CLASS_SCORES, Part.ATTRIBUTIONS):
            return
        model, labels = self.model, self.model.card.labels
        scores: Floats = run[model.output.output]
        (probs,) = model.classes(scores)
        if self.includes(Part.CLASS_SCORES):
            seen.answer["class_scores"] = [
                {"label": label, "score": float(score), "probability": float(prob)}
                for label, score, prob in zip(labels, scores[0], probs, strict=True)
            ]
        if self.includes(Part.ATTRIBUTIONS):
            others = attributions.attributions(
                model.graphs, model.output.output, self.asked, model.classes, self.go_on
            )
            seen.answer["attributions"] = attributions.told(
                probs, others, labels, self.inquiry.label
            )
            rows = [other for other in others if other is not None]
            seen.tensors["occluded"] = np.array(rows, np.float32).reshape(-1, len(labels))

    def go_on(self) -> None:
        """Raises `GivenUp` once nobody waits."""
        if not self.wanted():
            raise GivenUp


def about(graphs: InspectionGraphs) -> dict[str, Any]:
    """How far the graph is from PyTorch, and what is served from it."""
    manifest, inspection = graphs.artifact.manifest, graphs.inspection

    def figures(receipt: Any) -> dict[str, float]:
        return receipt.model_dump(exclude_none=True, exclude={"processor"})

    return {
        "precision": manifest.precision,
        "parity": figures(manifest.parity),
        "served": {"precision": inspection.precision, "distance": figures(inspection.distance)},
    }
