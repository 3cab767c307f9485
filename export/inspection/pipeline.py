"""The inspection graph of a served artifact: the same module on the same weights, in float32, with
everything that `model_core/inspection.py` sees as outputs.

An artifact of its own beside the served one, so that what is served stays as it was, byte by byte.
What it holds:

- `model.onnx`: padded rows to what each attention saw (`{site}.q`, `.k`, `.v`, `.scores`,
  `.pattern`, `.value_norms`, `.bias` where there is one), `{stack}.residual_norms`,
  `{stack}.states` where a head reads them as logits, and what the served graph gives of a text.
- `lens.onnx`, where there is such a head: states [N, E] to logits [N, V].
"""

import json
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from torch import nn

from export import parity
from export.artifact import (
    FORMAT_VERSION,
    GRAPH,
    LENS_GRAPH,
    MANIFEST,
    Arrays,
    Artifact,
    Inspection,
    Kind,
    Manifest,
    Parity,
    Precision,
    digests,
    sha256,
    write_golden,
    write_manifest,
    writing,
)
from export.catalogue import EMBEDDED, ExtraHead, inspection_folder
from export.context import for_context
from export.graphs import TextOutput
from export.inspection.golden import distance_from, eagerly, golden_feeds
from export.inspection.graphs import (
    InspectionGraph,
    inspection_spec,
    lens_spec,
    named_stacks,
    sites_of,
)
from export.pipeline import Report, save_graph, trace
from export.plans import text_outputs, wanted_heads, writes
from model_core.attention import Explicit
from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.load import Loaded, describe, load
from model_core.checkpoints.sentence_transformers import read_sentence_config
from model_core.checkpoints.sources import Located, locate
from model_core.config import TransformerConfig
from model_core.heads import LanguageModelHead, MaskedLanguageModelHead
from model_core.sentence_config import SentenceConfig


def export_inspection(artifact: Artifact, cache: Path, report: Report) -> Path:
    """Make the inspection graph of `artifact` in `cache` and return its folder.

    Reads the checkpoint again that the artifact was made of. Raises `SourceError`,
    `CheckpointError`, `ConfigError`; `ParityError` where the graph isn't PyTorch's, or the
    checkpoint's weights no longer those that are served. Nothing is left behind.
    """
    served = artifact.manifest
    report(f"finding {served.source}", 0.0)
    located = locate(served.source, cache=cache)
    report("reading weights", 0.1)
    loaded = load_as_served(served, located)
    transformer = loaded.model.transformer
    outputs = [] if writes(loaded) else outputs_of(served, located, loaded)
    head = unembedding(loaded)
    name, stack = named_stacks(transformer)[-1]
    graph = InspectionGraph(transformer, outputs, name if head else None)
    specs = {GRAPH: inspection_spec(graph.eval())}
    if head is not None:
        specs[LENS_GRAPH] = lens_spec(stack, head, loaded.config.dim)

    target = inspection_folder(artifact, cache)
    with writing(target) as folder:
        receipts: list[Parity] = []
        golden: dict[str, tuple[Arrays, Arrays]] = {}
        feeds = golden_feeds(artifact, graph)
        for place, (file, spec) in enumerate(specs.items()):
            report(f"tracing {file}", 0.2 + 0.3 * place)
            save_graph(trace(spec), folder, file)
            report(f"comparing {file} with PyTorch", 0.4 + 0.3 * place)
            expected = eagerly(spec, feeds)
            receipt, found = parity.check(
                folder / file, parity.Golden(feeds, expected), Precision.FP32
            )
            receipts.append(receipt)
            golden[file] = (feeds, found)
            if head is not None and file == GRAPH:
                feeds = {"states": found[f"{name}.states"][-1, 0]}
        report("comparing it with what is served", 0.9)
        distance = distance_from(artifact, graph, folder)
        parity.require(
            distance,
            served.precision,
            f"{served.source} is no longer what {artifact.folder} was made of, or its graph "
            "differs from the served one",
        )
        write_golden(folder, golden)
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            name=served.name,
            kind=Kind.INSPECTION,
            family=served.family,
            config=loaded.config.to_dict(),
            precision=Precision.FP32,
            inputs=tuple(specs[GRAPH].inputs),
            outputs=specs[GRAPH].outputs,
            served=served.served,
            vocab_size=served.vocab_size,
            max_tokens=served.max_tokens,
            inspection=Inspection(
                of=sha256(artifact.folder / MANIFEST),
                sites=sites_of(transformer),
                lens=graph.lens,
                precision=served.precision,
                distance=distance,
            ),
            source=located.source,
            licence=located.licence,
            created=int(time.time()),
            tools={name: version(name) for name in served.tools},
            parity=parity.worst(receipts),
            files=digests(folder),
        )
        write_manifest(folder, manifest)
    report("done", 1.0)
    return target


def load_as_served(served: Manifest, located: Located) -> Loaded:
    """The checkpoint in the shape in which it was exported, whatever context that was for."""
    description = describe(located)
    heads = wanted_heads(description, located)
    loaded = load(located, Explicit(), heads)
    if plain(loaded.config) == served.config:
        return loaded
    name = "encoder" if loaded.config.encoder is not None else "decoder"
    stated = cast("Any", served.config)[name]
    if stated is not None:
        tokens: int = stated["embedding"]["max_positions"]
        loaded = load(located, Explicit(), heads, partial(for_context, tokens=tokens))
    if plain(loaded.config) != served.config:
        raise CheckpointError(
            f"{located.source} has another configuration than the artifact that was made of it; "
            "export the model again"
        )
    return loaded


def plain(config: TransformerConfig) -> Any:
    """A configuration as a manifest has it."""
    return json.loads(json.dumps(config.to_dict()))


def outputs_of(served: Manifest, located: Located, loaded: Loaded) -> list[TextOutput]:
    """What the served graph gives of a text, under the same names."""
    sentence = read_sentence_config(located) or SentenceConfig()
    outputs, _ = text_outputs(served.name, riders_of(served), sentence, located, loaded)
    return outputs


def riders_of(served: Manifest) -> tuple[ExtraHead, ...]:
    """The heads that ride on an embedded model, as far as the artifact has them."""
    names = {output.name for output in served.served}
    for embedded in EMBEDDED.values():
        if embedded.source == served.source:
            return tuple(head for head in embedded.heads if head.name in names)
    return ()


def unembedding(loaded: Loaded) -> nn.Module | None:
    """The head that makes logits over the vocabulary of any state, if the model has one."""
    for head in loaded.model.heads.values():
        if isinstance(head, LanguageModelHead | MaskedLanguageModelHead):
            return head
    return None
