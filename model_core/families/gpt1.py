"""GPT (Radford et al. 2018): GPT-2's parts, but each is followed by its norm, and none is last."""

from collections.abc import Mapping, Sequence

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import KeyRule, Rename
from model_core.checkpoints.readers import TensorReader
from model_core.config import Activation, NormPlacement, TransformerConfig
from model_core.families.decoder_heads import language_model, sequence_classifier
from model_core.families.family import Family, Head
from model_core.families.gpt2 import BLOCKS, EMBEDDINGS, decoder_config, read_attention

ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": Activation.GELU_TANH,  # GPT's own, from before the exact one had the name
    "relu": Activation.RELU,
    "silu": Activation.SILU,
    "swish": Activation.SILU,
}


def config(fields: Fields, _tensors: TensorReader) -> TransformerConfig:
    """From `config.json`."""
    fields.require("n_inner", 4 * fields.take("n_embd", int))
    built = decoder_config(
        fields,
        attention=(read_attention(fields),) * fields.take("n_layer", int),
        activation=fields.choose("afn", ACTIVATIONS, "gelu"),
        placement=NormPlacement.POST,
    )
    fields.finish()
    return built


RULES: Sequence[KeyRule] = (
    Rename("transformer.tokens_embed", f"{EMBEDDINGS}.token"),
    Rename("transformer.positions_embed", f"{EMBEDDINGS}.position"),
    Rename("lm_head", "heads.language_model.output"),
    Rename("score", "heads.sequence_classifier.output"),
    *BLOCKS,
)

GPT1 = Family(
    names=("openai-gpt",),
    title="GPT",
    config=config,
    rules=lambda _: RULES,
    architecture="OpenAIGPTModel",
    prefix="transformer.",
    heads={
        "language_model": Head("OpenAIGPTLMHeadModel", language_model),
        "sequence_classifier": Head("OpenAIGPTForSequenceClassification", sequence_classifier),
    },
)
