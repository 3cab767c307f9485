"""Source → artifact, top to bottom.

located files → config and key rules of the family → `Transformer` with every tensor accounted
for → the task's graph → `torch.onnx.export` → passes → parity against PyTorch → artifact.
"""

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from safetensors.torch import load_file
from torch import nn

from export import calibration, parity
from export.artifact import (
    FORMAT_VERSION,
    GOLDEN,
    GRAPH,
    GRAPH_DATA,
    CacheLayout,
    Kind,
    Manifest,
    Precision,
    ServedOutput,
    digests,
    write_manifest,
    writing,
)
from export.attention import TRANSLATIONS, CachedAttention, Ragged
from export.catalogue import ExtraHead, Recipe, artifact_folder
from export.graphs import (
    SENTENCE_EMBEDDING,
    EncoderOutput,
    GraphSpec,
    cache_names,
    decoder_spec,
    encoder_spec,
)
from export.passes.int8 import quantize_products
from export.passes.merge import merge_products
from export.smoothing import smooth
from model_core.attention import Explicit, attend_by
from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.gguf_metadata import read_gguf_metadata
from model_core.checkpoints.load import Description, Loaded, describe, load, read_json
from model_core.checkpoints.sentence_transformers import SentencePooling, read_pooling
from model_core.checkpoints.sources import Located, locate
from model_core.heads import PoolingMode, SequenceClassifier
from model_core.tokenization import Tokenizer

OPSET = 24
EXACT_PRODUCTS: Mapping[Kind, tuple[str, ...]] = {
    Kind.ENCODER: (),
    # What int8 activations cost SmolLM2 most: its queries and keys, the second feed-forward
    # product (one column in a thousand is 100 times the others) and the head, where near-ties are
    # decided. Teacher-forced top-1 agreement with these in float32 is 97%, without them 92%.
    Kind.DECODER: ("attention.query", "feed_forward.down", "head."),
}
Report = Callable[[str, float], None]
"""Told what is being done, and which share of the whole was done before (0 to 1)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be exported: the graph, the reference to hold it to, and what it serves."""

    kind: Kind
    spec: GraphSpec
    golden: parity.Golden
    served: tuple[ServedOutput, ...]
    max_tokens: int
    cache: CacheLayout | None = None
    pooling: SentencePooling | None = None


def export(recipe: Recipe, cache: Path, report: Report, output: Path | None = None) -> Path:
    """Make the artifact of `recipe` in `cache` (or at `output`) and return its folder.

    Raises `SourceError`, `CheckpointError`, `ConfigError`, `ParityError`; nothing is left behind.
    """
    report(f"finding {recipe.name}", 0.0)
    located = locate(recipe.source, cache=cache)
    tokenizer = read_tokenizer(located)
    report("reading weights", 0.2)
    description = describe(located)
    loaded = load(located, Explicit(), wanted_heads(description, located))
    precision = recipe.precision or default_precision(loaded, cuda=recipe.cuda)
    plan = make_plan(recipe, located, loaded, tokenizer, precision)

    target = output or artifact_folder(recipe, cache)
    with writing(target) as folder:
        report("tracing the graph", 0.4)
        model = trace(plan.spec)
        report(f"rewriting it for {precision}", 0.6)
        apply_passes(model, plan.kind, precision)
        ir.save(model, folder / GRAPH, external_data=GRAPH_DATA)
        report("comparing it with PyTorch", 0.75)
        receipt, found = parity.check(folder / GRAPH, plan.golden, precision)
        expected = {f"expected_{name}": array for name, array in found.items()}
        np.savez_compressed(folder / GOLDEN, **plan.golden.feeds, **expected)
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


def read_tokenizer(located: Located) -> Tokenizer:
    """The tokenizer that comes with the checkpoint."""
    if located.gguf is not None:
        return Tokenizer.from_gguf(read_gguf_metadata(located.gguf))
    return Tokenizer.from_files(located.files)


def wanted_heads(description: Description, located: Located) -> tuple[str, ...]:
    """The heads to load: a language model's for a decoder, a classifier's where it is trained."""
    if "language_model" in description.family.heads:
        return ("language_model",)
    architectures: list[str] = description.fields.values.get("architectures") or []
    classifies = any(name.endswith("ForSequenceClassification") for name in architectures)
    return ("sequence_classifier",) if classifies else ()


def default_precision(loaded: Loaded, *, cuda: bool) -> Precision:
    """fp16 on CUDA; on the CPU int8 for generation, which is bound by memory, and fp32 else."""
    if cuda:
        return Precision.FP16
    return Precision.INT8 if loaded.config.decoder is not None else Precision.FP32


def make_plan(
    recipe: Recipe, located: Located, loaded: Loaded, tokenizer: Tokenizer, precision: Precision
) -> Plan:
    """The plan for what the checkpoint is: an encoder or a decoder."""
    config = loaded.config
    if config.encoder is not None and config.decoder is not None:
        raise CheckpointError("encoder-decoder checkpoints can't be exported yet")
    if config.encoder is None:
        return plan_decoder(recipe, loaded, tokenizer, precision)
    return plan_encoder(recipe, located, loaded, tokenizer, precision)


def plan_decoder(
    recipe: Recipe, loaded: Loaded, tokenizer: Tokenizer, precision: Precision
) -> Plan:
    """A generating model."""
    transformer, head = loaded.model.transformer, loaded.model.heads["language_model"]
    decoder = transformer.config.stacks[-1]
    layout = CacheLayout(
        names=cache_names(decoder.layers),
        kv_heads=decoder.attention.kv_heads,
        head_dim=decoder.attention.head_dim,
        dtype="float16" if precision is Precision.FP16 else "float32",
    )
    prompt = [token for text in parity.PROBES for token in tokenizer.encode(text)]
    parity.vocabulary_bound(loaded.config, [prompt])
    prompt = prompt[: loaded.config.embedding.max_positions]
    golden = parity.decoder_golden(transformer, head, prompt, layout)
    if precision is Precision.INT8:
        smooth(transformer, [tokenizer.encode(text) for text in calibration.TEXTS])
    attend_by(transformer, CachedAttention())
    as_computed(loaded.model, precision)
    return Plan(
        kind=Kind.DECODER,
        spec=decoder_spec(transformer, head),
        golden=golden,
        served=(ServedOutput(name=recipe.name, output="logits"),),
        max_tokens=transformer.config.embedding.max_positions,
        cache=layout,
    )


def plan_encoder(
    recipe: Recipe,
    located: Located,
    loaded: Loaded,
    tokenizer: Tokenizer,
    precision: Precision,
) -> Plan:
    """An embedding model with the heads that ride on it, or a classifier."""
    transformer = loaded.model.transformer
    pooling = read_pooling(located) or SentencePooling()
    if "sequence_classifier" in loaded.model.heads:
        classifier = loaded.model.heads["sequence_classifier"]
        outputs = [EncoderOutput(recipe.name, PoolingMode.CLS, False, classifier)]
        served = [served_classifier(recipe.name, recipe.name, loaded.description)]
    else:
        outputs = [EncoderOutput(SENTENCE_EMBEDDING, pooling.mode, pooling.normalize)]
        served = [ServedOutput(name=recipe.name, output=SENTENCE_EMBEDDING)]
    for extra in recipe.heads:
        head, labels = read_head(extra, loaded.config.dim)
        outputs.append(EncoderOutput(extra.name, pooling.mode, pooling.normalize, head))
        served.append(ServedOutput(name=extra.name, output=extra.name, labels=labels))

    positions = transformer.config.embedding.max_positions
    max_tokens = min(pooling.max_tokens or positions, positions)
    texts = [tokenizer.encode(text)[:max_tokens] for text in parity.PROBES]
    parity.vocabulary_bound(loaded.config, texts)
    golden = parity.encoder_golden(transformer, outputs, texts)
    attend_by(transformer, Ragged())
    as_computed(loaded.model, precision)
    return Plan(
        kind=Kind.ENCODER,
        spec=encoder_spec(transformer, outputs),
        golden=golden,
        served=tuple(served),
        max_tokens=max_tokens,
        pooling=pooling,
    )


def served_classifier(name: str, output: str, description: Description) -> ServedOutput:
    """A checkpoint's own classifier with the labels of its config."""
    if not description.labels:
        raise CheckpointError("the checkpoint is a classifier, but config.json has no id2label")
    return ServedOutput(
        name=name, output=output, labels=description.labels, multi_label=description.multi_label
    )


def read_head(extra: ExtraHead, dim: int) -> tuple[nn.Module, tuple[str, ...]]:
    """A head trained on frozen embeddings, and its labels."""
    labels = tuple(read_json(extra.folder / "head.json")["labels"])
    head = SequenceClassifier(dim, len(labels), tanh_pooler=False)
    head.load_state_dict(load_file(extra.folder / "head.safetensors"))
    return head.eval(), labels


def as_computed(model: nn.Module, precision: Precision) -> None:
    """Weights in the type that the graph computes in; int8 comes later, as a pass."""
    if precision is Precision.FP16:
        model.half()


def trace(spec: GraphSpec) -> ir.Model:
    """The graph of `spec.module`."""
    with torch.inference_mode(), quiet():
        program = torch.onnx.export(
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
def quiet() -> Iterator[None]:
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

