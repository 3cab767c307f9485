"""What inspection graphs are held to: PyTorch, and the golden texts of what is served."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export import parity
from export.artifact import ENCODER_GRAPH, GRAPH, LENS_GRAPH, Arrays, Artifact, Kind, Parity
from export.graphs import GraphSpec
from export.inspection.graphs import InspectionGraph
from export.session import Provider, Session, usable_cores

GOLDEN_TOKENS = 24
"""Of the text on which the graphs are held to PyTorch: outputs grow with its square."""


def golden_feeds(artifact: Artifact, graph: InspectionGraph) -> Arrays:
    """One text, of those that the served graph was held to."""
    source, target = texts_of(artifact)[0]
    return feeds_of(graph, [source[:GOLDEN_TOKENS]], target[:GOLDEN_TOKENS] if target else None)


def texts_of(artifact: Artifact) -> list[tuple[list[int], list[int] | None]]:
    """The golden texts of an artifact, each with its target where it has one."""
    kind = artifact.manifest.kind
    if kind is Kind.DECODER:
        feeds, _ = artifact.golden()
        return [(feeds["input_ids"][0].tolist(), None)]
    feeds, _ = artifact.golden(ENCODER_GRAPH if kind is Kind.ENCODER_DECODER else GRAPH)
    borders = np.cumsum(feeds["lengths"])[:-1]
    texts: list[list[int]] = [part.tolist() for part in np.split(feeds["input_ids"], borders)]
    if kind is Kind.ENCODER:
        return [(text, None) for text in texts]
    # The target was made of the longest source (`plans.plan_encoder_decoder`).
    target, _ = artifact.golden(GRAPH)
    return [(max(texts, key=len), target["input_ids"][0].tolist())]


def feeds_of(
    graph: InspectionGraph, texts: Sequence[Sequence[int]], target: Sequence[int] | None = None
) -> Arrays:
    """Texts as padded rows, all without token types; `target` is that of the only one."""
    rows, mask = parity.padded(texts)
    feeds: Arrays = {"input_ids": rows.numpy(), "lengths": mask.sum(1).numpy()}
    if graph.types:
        feeds["token_type_ids"] = np.zeros_like(feeds["input_ids"])
    if target is not None:
        feeds["target_ids"] = np.array([list(target)])
    return feeds


def eagerly(spec: GraphSpec, feeds: Arrays) -> Arrays:
    """What PyTorch gives."""
    arrays = [torch.tensor(feeds[name]) for name in spec.inputs]
    with torch.inference_mode():
        found: Any = spec.module(*arrays)
    tensors: tuple[Tensor, ...] = (found,) if isinstance(found, Tensor) else found
    return {name: x.numpy() for name, x in zip(spec.outputs, tensors, strict=True)}


def distance_from(artifact: Artifact, graph: InspectionGraph, folder: Path) -> Parity:
    """How far what is served is from the new graphs, on the inputs that it was held to itself."""
    session = Session(folder / GRAPH, Provider.CPU, usable_cores())
    texts = texts_of(artifact)
    _, expected = artifact.golden()
    if artifact.manifest.kind is Kind.ENCODER:
        sources = [source for source, _ in texts]
        feeds = feeds_of(graph, sources)
        names = list(expected)
        found = dict(zip(names, session.run(feeds, names), strict=True))
        _, real = parity.padded(sources)
        for name, array in found.items():
            if len(array) == real.numel():
                found[name] = array[real.flatten().numpy()]
        return parity.receipt_of(expected, found)
    ((source, target),) = texts
    (states,) = session.run(feeds_of(graph, [source], target), [f"{graph.lens}.states"])
    lens = Session(folder / LENS_GRAPH, Provider.CPU, usable_cores())
    (logits,) = lens.run({"states": states[-1, 0]}, ["logits"])
    return parity.receipt_of({"logits": expected["logits"]}, {"logits": logits})
