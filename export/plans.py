"""What is exported of a checkpoint: its graph, the reference to hold it to, what it serves."""

from dataclasses import dataclass

from torch import nn

from export import calibration, parity
from export.artifact import CacheLayout, Kind, Precision, ServedOutput
from export.attention import CachedAttention, Ragged
from export.catalogue import ExtraHead, Recipe
from export.graphs import (
    SENTENCE_EMBEDDING,
    EncoderOutput,
    GraphSpec,
    cache_names,
    decoder_spec,
    encoder_spec,
)
from export.smoothing import smooth
from model_core.attention import attend_by
from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.load import Description, Loaded, read_json
from model_core.checkpoints.readers import SafetensorsReader
from model_core.checkpoints.sentence_transformers import SentencePooling, read_pooling
from model_core.checkpoints.sources import Located
from model_core.heads import PoolingMode, SequenceClassifier
from model_core.tokenization import Tokenizer

CLASS_SCORES = "class_scores"


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


def wanted_heads(description: Description) -> tuple[str, ...]:
    """The heads to load: a language model for a decoder, a classifier where one is trained."""
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
        outputs = [EncoderOutput(CLASS_SCORES, PoolingMode.CLS, False, classifier)]
        served = [served_classifier(recipe.name, loaded.description)]
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


def served_classifier(name: str, description: Description) -> ServedOutput:
    """A checkpoint's own classifier with the labels of its config."""
    if not description.labels:
        raise CheckpointError("the checkpoint is a classifier, but config.json has no id2label")
    return ServedOutput(
        name=name,
        output=CLASS_SCORES,
        labels=description.labels,
        multi_label=description.multi_label,
    )


def read_head(extra: ExtraHead, dim: int) -> tuple[nn.Module, tuple[str, ...]]:
    """A head trained on frozen embeddings, and its labels."""
    labels = tuple(read_json(extra.folder / "head.json")["labels"])
    head = SequenceClassifier(dim, len(labels), tanh_pooler=False)
    tensors = SafetensorsReader({"model.safetensors": extra.folder / "head.safetensors"})
    head.load_state_dict({name: tensors.read(name) for name in tensors.names()})
    return head.eval(), labels


def as_computed(model: nn.Module, precision: Precision) -> None:
    """Weights in the type that the graph computes in; int8 comes later, as a pass."""
    if precision is Precision.FP16:
        model.half()
