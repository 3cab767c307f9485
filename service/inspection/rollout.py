"""Attention rollout (Abnar and Zuidema 2020): how much of each input token a state would hold, if
heads were alike, values unchanged and the rest of a block a skip connection.

Half of what a block gives comes from its attention, averaged over heads, half from the stream that
it is added to. The products keep what rows and masks promise: rows sum to 1, and what no block
lets a token see it doesn't see through several.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from export.artifact import Inspection, Site
from service.inspection.graphs import Array
from service.inspection.inquiry import Inquiry, Part
from service.messages import Floats


def rollout(patterns: Sequence[Floats]) -> Floats:
    """The product of all ½A + ½I up to each block [L, S, S]; `patterns` [H, S, S] of each."""
    mixed = np.eye(patterns[0].shape[-1], dtype=np.float64)
    found: list[Floats] = []
    for pattern in patterns:
        mixed = 0.5 * (pattern.mean(0, dtype=np.float64) @ mixed) + 0.5 * mixed
        found.append(mixed.astype(np.float32))
    return np.stack(found)


def rolled_sites(inspection: Inspection) -> dict[str, list[Site]]:
    """The self-attentions of each stack, by its name, in the order in which they run."""
    found: dict[str, list[Site]] = {}
    for site in inspection.sites:
        if not site.cross:
            found.setdefault(site.stack, []).append(site)
    return found


def pattern_of(site: Site) -> str:
    """The output with the pattern of an attention."""
    return f"{site.name}.{Part.PATTERN}"


def rollouts(
    inspection: Inspection, inquiry: Inquiry, run: Mapping[str, Array]
) -> dict[str, Array]:
    """For each stack the rollout up to each of the layers that are asked for [layers, S, S]."""
    found: dict[str, Array] = {}
    for stack, sites in rolled_sites(inspection).items():
        rows = rollout([run[pattern_of(site)][0] for site in sites])
        wanted = range(len(sites)) if inquiry.layers is None else inquiry.layers
        found[f"{stack}.{Part.ROLLOUT}"] = rows[[layer for layer in wanted if layer < len(sites)]]
    return found
