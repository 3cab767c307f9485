"""Source → artifact, top to bottom.

located files → config and key rules of the family → `Transformer` with every tensor accounted
for → the task's graph → `torch.onnx.export` → passes → parity against PyTorch → artifact.
"""

import logging
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import onnx_ir as ir
import torch
from torch import nn

from export import parity
from export.artifact import (
    FORMAT_VERSION,
    GRAPH,
    Arrays,
    Manifest,
    Parity,
    Precision,
    Sentence,
    digests,
    write_golden,
    write_manifest,
    writing,
)
from export.attention import TRANSLATIONS
from export.catalogue import Recipe, artifact_folder
from export.context import for_context
from export.graphs import GraphSpec
from export.passes.int8 import quantize_products
from export.passes.merge import merge_projections
from export.plans import default_precision, make_plan, wanted_heads
from export.quantization.products import Int8Product, Products
from model_core.attention import Explicit
from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.gguf_metadata import read_gguf_metadata
from model_core.checkpoints.load import describe, load
from model_core.checkpoints.sentence_transformers import read_sentence_config
from model_core.checkpoints.sources import Located, locate
from model_core.sentence_config import SentenceConfig
from model_core.tokenization import Tokenizer

OPSET = 24
Report = Callable[[str, float], None]
"""Told what is being done, and which share of the whole was done before (0 to 1)."""


def export(recipe: Recipe, cache: Path, report: Report, output: Path | None = None) -> Path:
    """Make the artifact of `recipe` in `cache` (or at `output`) and return its folder.

    Raises `SourceError`, `CheckpointError`, `ConfigError`, `ParityError`; nothing is left behind.
    """
    report(f"finding {recipe.name}", 0.0)
    located = locate(recipe.source, cache=cache)
    tokenizer = read_tokenizer(located)
    # What a text is like before it is tokenized, an embedding model's authors may say.
    sentence = read_sentence_config(located)
    if sentence is not None and sentence.lowercase:
        tokenizer = tokenizer.lowercased()
    report("reading weights", 0.2)
    description = describe(located)
    context = partial(for_context, tokens=recipe.context) if recipe.context else None
    loaded = load(located, Explicit(), wanted_heads(description, located), context)
    reading = loaded.config.stacks[0].embedding.vocab_size
    if tokenizer.vocab_size > reading:
        raise CheckpointError(
            f"the tokenizer of {located.source} has {tokenizer.vocab_size} tokens, the model only "
            f"{reading} embeddings; do they belong together?"
        )
    precision = recipe.precision or default_precision(loaded, cuda=recipe.cuda)
    report("choosing how to round" if precision is Precision.INT8 else "planning", 0.25)
    plan = make_plan(recipe, located, loaded, tokenizer, precision)

    target = output or artifact_folder(recipe, cache)
    with writing(target) as folder:
        receipts: list[Parity] = []
        golden: dict[str, tuple[Arrays, Arrays]] = {}
        for place, (file, graph) in enumerate(plan.graphs.items()):

            def step(what: str, done: float, place: int = place) -> None:
                report(what, 0.3 + (place + done) / len(plan.graphs) * 0.6)

            step("tracing the graph", 0.0)
            model = trace(graph.spec)
            step(f"rewriting it for {precision}", 0.3)
            apply_passes(model, graph.spec.module, plan.products)
            save_graph(model, folder, file)
            step("comparing it with PyTorch", 0.6)
            receipt, found = parity.check(folder / file, graph.golden, precision)
            receipts.append(receipt)
            golden[file] = (graph.golden.feeds, found)
        write_golden(folder, golden)
        tokenizer.save(folder)
        report("writing the manifest", 0.95)
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            name=recipe.name,
            kind=plan.kind,
            family=description.family.names[0],
            config=loaded.config.to_dict(),
            precision=precision,
            inputs=tuple(plan.graphs[GRAPH].spec.inputs),
            outputs=plan.graphs[GRAPH].spec.outputs,
            served=plan.served,
            vocab_size=plan.vocab_size,
            max_tokens=plan.max_tokens,
            cache=plan.cache,
            cross=plan.cross,
            generation=plan.generation,
            sentence=sentence_of(plan.sentence),
            source=located.source,
            licence=located.licence,
            created=int(time.time()),
            tools={name: version(name) for name in ("torch", "onnxscript", "onnxruntime-gpu")},
            parity=parity.worst(receipts),
            files=digests(folder),
        )
        write_manifest(folder, manifest)
    report("done", 1.0)
    return target


def sentence_of(config: SentenceConfig | None) -> Sentence | None:
    """What the manifest says of an embedding model's vectors."""
    if config is None:
        return None
    return Sentence(
        pooling=config.pooling,
        prompts=dict(config.prompts),
        default_prompt=config.default_prompt,
        similarity=config.similarity,
    )


def save_graph(model: ir.Model, folder: Path, file: str) -> None:
    """The graph, with its weights in a file that the runtime maps rather than copies."""
    cast("Any", ir).save(model, folder / file, external_data=f"{file}.data")


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
    """Without the exporter's remarks on packages that are absent, axes that share a name and what
    it leaves to the runtime."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def apply_passes(model: ir.Model, module: nn.Module, products: Products) -> None:
    """Rewrite the graph of `module` in place: projections packed, `products` in int8."""
    rounded = named(products, module)
    merge_projections(model, rounded)
    if rounded:
        quantize_products(model, rounded)


def named(products: Products, module: nn.Module) -> dict[str, Int8Product]:
    """The products that are layers of `module`, by their names there."""
    modules = cast("Iterator[tuple[str, nn.Module]]", module.named_modules(remove_duplicate=False))
    return {name: products[layer] for name, layer in modules if layer in products}
