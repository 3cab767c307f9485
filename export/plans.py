"""What is exported of a checkpoint: its graphs, the references to hold them to, what they serve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from export import parity
from export.artifact import (
    ENCODER_GRAPH,
    GRAPH,
    PLAIN,
    VECTORS_OF_TOKENS,
    CacheLayout,
    GenerationDefaults,
    Kind,
    Precision,
    ServedOutput,
)
from export.attention import CachedAttention, Ragged
from export.catalogue import ExtraHead, Recipe
from export.graphs import (
    GraphSpec,
    TextOutput,
    cache_names,
    cross_attention,
    cross_names,
    decoder_spec,
    encoder_spec,
    source_spec,
    writing_stack,
)
from export.quantization.preparation import quantize
from export.quantization.products import MINIMUM_COLUMNS, Products
from export.scores import read_head, score_output, scoring_of, served_scores
from model_core.attention import attend_by
from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.generation import read_generation
from model_core.checkpoints.load import Description, Loaded
from model_core.checkpoints.sentence_transformers import (
    load_sentence_embedder,
    read_sentence_config,
)
from model_core.checkpoints.sources import Located
from model_core.config import AttentionConfig, StackConfig
from model_core.heads import LanguageModelHead
from model_core.sentence_config import SentenceConfig
from model_core.tokenization import Tokenizer

SENTENCE_EMBEDDING = "sentence_embedding"
GENERATES = ("language_model", "seq2seq")
"""The heads that write text."""


@dataclass(frozen=True, slots=True)
class GraphPlan:
    """A graph to make, and what PyTorch gives for some inputs of it."""

    spec: GraphSpec
    golden: parity.Golden


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be exported: graphs by file name, which layers are in int8, and what they serve."""

    kind: Kind
    graphs: Mapping[str, GraphPlan]
    products: Products
    served: tuple[ServedOutput, ...]
    vocab_size: int
    max_tokens: int
    cache: CacheLayout | None = None
    cross: CacheLayout | None = None
    generation: GenerationDefaults = PLAIN
    sentence: SentenceConfig | None = None


def wanted_heads(description: Description, located: Located) -> tuple[str, ...]:
    """The head to load: the one that the checkpoint was saved with.

    A sentence-transformers checkpoint has none, whatever it was made of. One that says nothing (a
    GGUF file) or goes by an old name of a class is taken to write text, where its family can.
    """
    family = description.family
    if read_sentence_config(located) is not None:
        return ()
    for name, head in family.heads.items():
        if head.architecture in description.architectures:
            return (name,)
    if {family.architecture, family.encoder_architecture} & set(description.architectures):
        return ()
    return tuple(name for name in GENERATES if name in family.heads)


def default_precision(loaded: Loaded, *, cuda: bool) -> Precision:
    """fp16 on CUDA; on the CPU int8 for generation, which is bound by memory, and fp32 else."""
    if cuda:
        return Precision.FP16
    return Precision.INT8 if writes(loaded) else Precision.FP32


def writes(loaded: Loaded) -> bool:
    """Whether the checkpoint is one that generates."""
    return any(isinstance(head, LanguageModelHead) for head in loaded.model.heads.values())


def make_plan(
    recipe: Recipe,
    located: Located,
    loaded: Loaded,
    tokenizer: Tokenizer,
    precision: Precision,
    minimum_columns: int = MINIMUM_COLUMNS,
) -> Plan:
    """The plan for what the checkpoint is: one that reads texts, or that writes them.

    In int8, products of fewer than `minimum_columns` stay exact.
    """
    config = loaded.config
    if not writes(loaded):
        if len(config.stacks) > 1:
            raise CheckpointError(
                "an encoder-decoder is exported to generate; this one is "
                f"{', '.join(loaded.description.architectures) or 'without a head'}"
            )
        return plan_reader(recipe, located, loaded, tokenizer, precision, minimum_columns)
    require_operators(config.output_stack)
    if config.encoder is not None:
        return plan_encoder_decoder(recipe, located, loaded, tokenizer, precision, minimum_columns)
    return plan_decoder(recipe, loaded, tokenizer, precision, minimum_columns)


def require_operators(decoder: StackConfig) -> None:
    """Refuse, by name, a shape that the operators of cached attention don't take."""
    for layer, attention in enumerate(decoder.attention):
        if attention.head_dim % 8:
            raise CheckpointError(
                f"head_dim is {attention.head_dim} in layer {layer}; GroupQueryAttention, which "
                "attends to a cache, takes multiples of 8"
            )


def plan_decoder(
    recipe: Recipe,
    loaded: Loaded,
    tokenizer: Tokenizer,
    precision: Precision,
    minimum_columns: int,
) -> Plan:
    """A model that continues a prompt."""
    transformer, head = loaded.model.transformer, language_model(loaded)
    decoder = writing_stack(transformer)
    cache = cache_layout(cache_names(decoder.layers), decoder.attention[0], precision)
    max_tokens = decoder.embedding.max_positions
    prompt = [token for text in parity.PROBES for token in tokenizer.encode(text)]
    parity.require_vocabulary(decoder, [prompt])
    golden = parity.decoder_golden(transformer, head, prompt[:max_tokens], cache)
    products = quantize(loaded, tokenizer, precision, (), minimum_columns)
    attend_by(transformer, CachedAttention())
    as_computed(loaded.model, precision)
    return Plan(
        kind=Kind.DECODER,
        graphs={GRAPH: GraphPlan(decoder_spec(transformer, head), golden)},
        products=products,
        served=(ServedOutput(name=recipe.name, output="logits"),),
        vocab_size=decoder.embedding.vocab_size,
        max_tokens=max_tokens,
        cache=cache,
    )


def plan_encoder_decoder(
    recipe: Recipe,
    located: Located,
    loaded: Loaded,
    tokenizer: Tokenizer,
    precision: Precision,
    minimum_columns: int,
) -> Plan:
    """A model that reads a source and writes a target: two graphs, of one set of weights each."""
    transformer, head = loaded.model.transformer, language_model(loaded)
    encoder, decoder = transformer.config.stacks
    cache = cache_layout(cache_names(decoder.layers), decoder.attention[0], precision)
    cross = cache_layout(cross_names(decoder.layers), cross_attention(decoder), precision)
    generation = generation_of(located, encoder, decoder.embedding.vocab_size)
    texts = [tokenizer.encode(text)[: generation.max_source_tokens] for text in parity.PROBES]
    parity.require_vocabulary(encoder, texts)
    longest = max(texts, key=len)
    # The target's tokens only have to be many: what they say doesn't matter to the comparison.
    target = [token % decoder.embedding.vocab_size for token in reversed(longest)]
    target = [*generation.decoder_start, *target][: decoder.embedding.max_positions]
    sources = parity.source_golden(transformer, texts, cross)
    targets = parity.target_golden(transformer, head, longest, target, cache, cross)
    start = generation.decoder_start
    products = quantize(loaded, tokenizer, precision, start, minimum_columns)
    as_computed(loaded.model, precision)
    attend_by(transformer.get_submodule("encoder"), Ragged())
    attend_by(transformer.get_submodule("decoder"), CachedAttention())
    return Plan(
        kind=Kind.ENCODER_DECODER,
        graphs={
            ENCODER_GRAPH: GraphPlan(source_spec(transformer), sources),
            GRAPH: GraphPlan(decoder_spec(transformer, head), targets),
        },
        products=products,
        served=(ServedOutput(name=recipe.name, output="logits"),),
        vocab_size=decoder.embedding.vocab_size,
        max_tokens=decoder.embedding.max_positions,
        cache=cache,
        cross=cross,
        generation=generation,
    )


def generation_of(located: Located, encoder: StackConfig, vocab_size: int) -> GenerationDefaults:
    """How the authors have it generate, as the engine takes it."""
    read = read_generation(located)
    special = {
        "decoder_start_token_id": read.decoder_start,
        "forced_bos_token_id": () if read.forced_first is None else (read.forced_first,),
        "forced_eos_token_id": () if read.forced_last is None else (read.forced_last,),
        "eos_token_id": read.eos_ids,
        "bad_words_ids": read.suppressed,
    }
    for name, token_ids in special.items():
        if any(not 0 <= token_id < vocab_size for token_id in token_ids):
            raise CheckpointError(
                f"{located.source}: {name} has {list(token_ids)}; the decoder has tokens 0 to "
                f"{vocab_size - 1}"
            )
    if not read.decoder_start:
        raise CheckpointError(
            f"{located.source}: neither generation_config.json nor config.json has a "
            "decoder_start_token_id or bos_token_id, with which a target begins"
        )
    return GenerationDefaults(
        decoder_start=read.decoder_start,
        forced_first=read.forced_first,
        forced_last=read.forced_last,
        suppressed=read.suppressed,
        beams=read.beams,
        length_penalty=read.length_penalty,
        early_stopping=read.early_stopping,
        renormalize=read.renormalize,
        not_applied=read.not_applied,
        max_source_tokens=encoder.embedding.max_positions,
    )


def language_model(loaded: Loaded) -> LanguageModelHead:
    """The head that writes."""
    for head in loaded.model.heads.values():
        if isinstance(head, LanguageModelHead):
            return head
    raise TypeError("this checkpoint has no language-model head")


def cache_layout(
    names: tuple[str, ...], attention: AttentionConfig, precision: Precision
) -> CacheLayout:
    """Buffers of `names` for what `attention` keeps."""
    return CacheLayout(
        names=names,
        kv_heads=attention.kv_heads,
        head_dim=attention.head_dim,
        dtype="float16" if precision is Precision.FP16 else "float32",
    )


def plan_reader(
    recipe: Recipe,
    located: Located,
    loaded: Loaded,
    tokenizer: Tokenizer,
    precision: Precision,
    minimum_columns: int,
) -> Plan:
    """An embedding model with the heads that ride on it, or a model with the head it came with."""
    transformer = loaded.model.transformer
    (stack,) = loaded.config.stacks
    sentence = read_sentence_config(located) or SentenceConfig()
    outputs, served = text_outputs(recipe.name, recipe.heads, sentence, located, loaded)
    has_head = bool(loaded.model.heads)
    positions = stack.embedding.max_positions
    max_tokens = min(sentence.max_tokens or positions, positions)
    texts = [tokenizer.encode(text)[:max_tokens] for text in parity.PROBES]
    parity.require_vocabulary(stack, texts)
    golden = parity.encoder_golden(transformer, outputs, texts)
    products = quantize(loaded, tokenizer, precision, (), minimum_columns)
    attend_by(transformer, Ragged())
    as_computed(loaded.model, precision)
    for output in outputs:
        as_computed(output, precision)
    return Plan(
        kind=Kind.ENCODER,
        graphs={GRAPH: GraphPlan(encoder_spec(transformer, outputs), golden)},
        products=products,
        served=served,
        vocab_size=stack.embedding.vocab_size,
        max_tokens=max_tokens,
        sentence=None if has_head else sentence,
    )


def text_outputs(
    name: str,
    riders: Sequence[ExtraHead],
    sentence: SentenceConfig,
    located: Located,
    loaded: Loaded,
) -> tuple[list[TextOutput], tuple[ServedOutput, ...]]:
    """What a graph gives of texts that are read, and what of it is served under which name."""
    embedder = load_sentence_embedder(located, sentence, loaded.config.dim)
    head = next(iter(loaded.model.heads.values()), None)
    if head is None:
        outputs = [
            TextOutput(SENTENCE_EMBEDDING, embedder, None),
            TextOutput(VECTORS_OF_TOKENS, None, None),
        ]
        width = sentence.vector_dim(loaded.config.dim)
        served = [ServedOutput(name=name, output=SENTENCE_EMBEDDING, dim=width)]
    else:
        outputs = [score_output(head)]
        scoring = scoring_of(loaded.description, located)
        served = [served_scores(name, outputs[0], loaded.description, scoring)]
    for extra in riders:
        rider, labels = read_head(extra, sentence.vector_dim(loaded.config.dim))
        outputs.append(TextOutput(extra.name, embedder, rider))
        served.append(ServedOutput(name=extra.name, output=extra.name, labels=labels))
    return outputs, tuple(served)


def as_computed(model: nn.Module, precision: Precision) -> None:
    """Weights in the type that the graph computes in; int8 comes later, as a pass."""
    if precision is Precision.FP16:
        model.half()
