"""The attentions that an inquiry asks for, on the rows they work on: their size, their outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from export.artifact import Inspection, Site
from service.inspection.graphs import Array
from service.inspection.inquiry import Inquiry, Part, chosen_heads, chosen_sites
from service.inspection.sequences import Sequences

SECOND = "second."
"""Stands before the names of what is seen in an embedding model's second text."""


@dataclass(frozen=True, slots=True)
class Attention:
    """One attention: the sequence `query` looks at the sequence `key`, by their numbers.

    `run` is the number of the graph's run that it is part of; `tokens` how many it has of either.
    """

    site: Site
    run: int
    query: int
    key: int
    tokens: tuple[int, int]

    @property
    def name(self) -> str:
        """What stands before its tensors in an answer."""
        return SECOND + self.site.name if self.run else self.site.name

    def parts(self, inquiry: Inquiry) -> list[Part]:
        """What is asked for and there: not every attention of a model has a bias."""
        return [part for part in inquiry.of_attention if part is not Part.BIAS or self.site.bias]

    def size(self, part: Part) -> int:
        """How many numbers a part has, of all heads."""
        site, (queries, keys) = self.site, self.tokens
        match part:
            case Part.Q:
                return site.heads * queries * site.head_dim
            case Part.K | Part.V:
                return site.kv_heads * keys * site.head_dim
            case Part.VALUE_NORMS:
                return site.kv_heads * keys
            case _:
                return site.heads * queries * keys

    def told(self, inquiry: Inquiry) -> dict[str, Any]:
        """What an answer says of it: which heads its tensors have, and how they are computed."""
        site, heads, kv_heads = self.site, *self.heads(inquiry)
        return {
            "name": self.name,
            "stack": site.stack,
            "kind": "cross" if site.cross else "self",
            "layer": site.layer,
            "queries": self.query,
            "keys": self.key,
            "heads": heads,
            "kv_heads": kv_heads,
            "kv_head_of": [kv_heads.index(head // self.group) for head in heads],
            "scale": site.scale,
            "cap": site.cap,
            "bias": site.bias,
            "causal": site.causal,
            "window": site.window,
        }

    def tensors(self, inquiry: Inquiry, seen: Mapping[str, Array]) -> dict[str, Array]:
        """What is asked for of the heads that are asked for, by name."""
        heads, kv_heads = self.heads(inquiry)
        rows: dict[Part, list[int]] = dict.fromkeys((Part.K, Part.V, Part.VALUE_NORMS), kv_heads)
        return {
            f"{self.name}.{part}": seen[f"{self.site.name}.{part}"][0][rows.get(part, heads)]
            for part in self.parts(inquiry)
        }

    def heads(self, inquiry: Inquiry) -> tuple[list[int], list[int]]:
        """The heads that are asked for, and the key-value heads that they read."""
        heads = chosen_heads(inquiry, self.site)
        return heads, sorted({head // self.group for head in heads})

    @property
    def group(self) -> int:
        """How many query heads read one key-value head."""
        return self.site.heads // self.site.kv_heads


def attentions_of(inquiry: Inquiry, read: Sequences, inspection: Inspection) -> list[Attention]:
    """Every attention of the layers that are asked for, run by run; none if nothing of them is."""
    sites = chosen_sites(inquiry, inspection) if inquiry.of_attention else []
    counts = [len(row.spans) for row in read.all]
    if read.target is None:
        return [
            Attention(site, run, run, run, (counts[run], counts[run]))
            for run in range(len(counts))
            for site in sites
        ]
    found: list[Attention] = []
    for site in sites:
        query = 0 if site.stack == "encoder" else 1
        key = 0 if site.cross else query
        found.append(Attention(site, 0, query, key, (counts[query], counts[key])))
    return found


def stacks_of(inspection: Inspection) -> dict[str, dict[str, int]]:
    """The layers and heads of each stack, by its name."""
    return {
        site.stack: {
            "layers": site.layer + 1,
            "heads": site.heads,
            "kv_heads": site.kv_heads,
            "head_dim": site.head_dim,
        }
        for site in inspection.sites
    }


def sizes(attentions: Sequence[Attention], inquiry: Inquiry) -> tuple[int, int]:
    """How many numbers are computed for what is asked, and how many of them are given."""
    computed = given = 0
    for attention in attentions:
        heads = len(chosen_heads(inquiry, attention.site))
        for part in attention.parts(inquiry):
            size = attention.size(part)
            computed += size
            given += size * heads // attention.site.heads
    return computed, given
