"""Source → artifact, top to bottom.

located files → config and key rules of the family → `Transformer` with every tensor accounted
for → the task's graph → `torch.onnx.export` → passes → parity against PyTorch → artifact.
"""

import logging
import time
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from export import parity
from export.artifact import (
    FORMAT_VERSION,
    GOLDEN,
    GRAPH,
    GRAPH_DATA,
    Kind,
    Manifest,
    Precision,
    digests,
    write_manifest,
    writing,
)
from export.attention import TRANSLATIONS
from export.catalogue import Recipe, artifact_folder
from export.graphs import GraphSpec
from export.passes.int8 import quantize_products
from export.passes.merge import merge_products
from export.plans import default_precision, make_plan, wanted_heads
from model_core.attention import Explicit
from model_core.checkpoints.gguf_metadata import read_gguf_metadata
from model_core.checkpoints.load import describe, load
from model_core.checkpoints.sources import Located, locate
from model_core.tokenization import Tokenizer

OPSET = 24
EXACT_PRODUCTS: Mapping[Kind, tuple[str, ...]] = {
    # Short texts have few tokens to average errors over: of 232 texts, most of a word or two, the
    # worst cosine of MiniLM is 0.994 with these in float32, 0.982 without.
    Kind.ENCODER: ("attention.value", "feed_forward.down"),
    # What int8 activations cost SmolLM2 most: its queries and keys, the second feed-forward
    # product (one column in a thousand is 100 times the others) and the head, where near-ties are
    # decided. Teacher-forced top-1 agreement with these in float32 is 97%, without them 92%.
    Kind.DECODER: ("attention.query", "feed_forward.down", "head."),
}
Report = Callable[[str, float], None]
"""Told what is being done, and which share of the whole was done before (0 to 1)."""


def export(recipe: Recipe, cache: Path, report: Report, output: Path | None = None) -> Path:
    """Make the artifact of `recipe` in `cache` (or at `output`) and return its folder.

    Raises `SourceError`, `CheckpointError`, `ConfigError`, `ParityError`; nothing is left behind.
    """
    report(f"finding {recipe.name}", 0.0)
    located = locate(recipe.source, cache=cache)
    tokenizer = read_tokenizer(located)
    report("reading weights", 0.2)
    description = describe(located)
    loaded = load(located, Explicit(), wanted_heads(description))
    precision = recipe.precision or default_precision(loaded, cuda=recipe.cuda)
    plan = make_plan(recipe, located, loaded, tokenizer, precision)

    target = output or artifact_folder(recipe, cache)
    with writing(target) as folder:
        report("tracing the graph", 0.4)
        model = trace(plan.spec)
        report(f"rewriting it for {precision}", 0.6)
        apply_passes(model, plan.kind, precision)
        save_graph(model, folder)
        report("comparing it with PyTorch", 0.75)
        receipt, found = parity.check(folder / GRAPH, plan.golden, precision)
        expected = {f"expected_{name}": array for name, array in found.items()}
        write_golden(folder, plan.golden.feeds | expected)
        tokenizer.save(folder)
        report("writing the manifest", 0.95)
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            name=recipe.name,
            kind=plan.kind,
            family=description.family.names[0],
            config=loaded.config.to_dict(),
            precision=precision,
            inputs=tuple(plan.spec.inputs),
            outputs=plan.spec.outputs,
            served=plan.served,
            vocab_size=loaded.config.embedding.vocab_size,
            max_tokens=plan.max_tokens,
            cache=plan.cache,
            pooling=plan.pooling.mode if plan.pooling else None,
            normalized=plan.pooling.normalize if plan.pooling else False,
            source=located.source,
            licence=located.licence,
            created=int(time.time()),
            tools={name: version(name) for name in ("torch", "onnxscript", "onnxruntime-gpu")},
            parity=receipt,
            files=digests(folder),
        )
        write_manifest(folder, manifest)
    report("done", 1.0)
    return target


def save_graph(model: ir.Model, folder: Path) -> None:
    """The graph, with its weights in a file that the runtime maps rather than copies."""
    cast("Any", ir).save(model, folder / GRAPH, external_data=GRAPH_DATA)


def write_golden(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """The golden inputs and outputs, which a replica reproduces before it is ready."""
    save: Any = np.savez_compressed
    save(folder / GOLDEN, **arrays)


def read_tokenizer(located: Located) -> Tokenizer:
    """The tokenizer that comes with the checkpoint."""
    if located.gguf is not None:
        return Tokenizer.from_gguf(read_gguf_metadata(located.gguf))
    return Tokenizer.from_files(located.files)


def trace(spec: GraphSpec) -> ir.Model:
    """The graph of `spec.module`."""
    with torch.inference_mode(), quiet():
        program = cast("Any", torch.onnx).export(
            spec.module.eval(),
            tuple(spec.inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            custom_translation_table=TRANSLATIONS,
            dynamic_shapes=spec.axes,
            input_names=list(spec.inputs),
            output_names=list(spec.outputs),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    return program.model


@contextmanager
def quiet() -> Generator[None]:
    """Without the exporter's remarks on packages that are absent and axes that share a name."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def apply_passes(model: ir.Model, kind: Kind, precision: Precision) -> None:
    """What the kind and the precision ask of the graph, in place."""
    if kind is Kind.DECODER:
        merge_products(model)
    if precision is Precision.INT8:
        quantize_products(model, exact=EXACT_PRODUCTS[kind])
