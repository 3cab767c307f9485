"""What encoder-decoders have in common: which of their matrices are one, and their heads."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from model_core.checkpoints.key_rules import Drop, KeyRule, Rename
from model_core.checkpoints.readers import TensorReader
from model_core.config import Activation, TransformerConfig
from model_core.heads import Classifier, LanguageModelHead
from model_core.pooling import PoolingMode
from model_core.transformer import Transformer


@dataclass(frozen=True, slots=True)
class Sharing:
    """Whether encoder and decoder have one token `embedding`, and whether the `head` is that of
    the decoder."""

    embedding: bool
    head: bool


def read_sharing(tensors: TensorReader, prefix: str, *, tied: bool) -> Sharing:
    """From a checkpoint's tensors: flags are wrong at times.

    T5 v1.1 and mT5 have a head of their own, and transformers 5 saves them as tied. What is absent
    is shared; what is there twice is shared where the flag (`tied`) says so and the values agree.
    """
    found = {name.removeprefix(prefix).removesuffix(".weight"): name for name in tensors.names()}

    def first_of(*modules: str) -> str | None:
        return next((found[module] for module in modules if module in found), None)

    def is_one(one: str | None, other: str | None) -> bool:
        if one is None or other is None or one == other:
            return True
        if not tied or tensors.shape(one) != tensors.shape(other):
            return False
        return torch.equal(tensors.read(one), tensors.read(other))

    encoder = first_of("encoder.embed_tokens", "shared")
    decoder = first_of("decoder.embed_tokens", "shared")
    return Sharing(is_one(encoder, decoder), is_one(first_of("lm_head"), decoder))


def embedding_rules(shape: TransformerConfig, prefix: str) -> Sequence[KeyRule]:
    """The token embeddings: `shared`, and often again under each stack's name."""
    encoder, decoder = (f"transformer.{side}.embeddings.token" for side in ("encoder", "decoder"))
    shared: KeyRule = (
        Rename(f"{prefix}shared", encoder)
        if shape.shared_embedding
        else Drop(f"{prefix}shared", "each stack has an embedding of its own")
    )
    return (
        shared,
        Rename(f"{prefix}encoder.embed_tokens", encoder),
        Rename(f"{prefix}decoder.embed_tokens", decoder),
    )


def seq2seq(transformer: Transformer, _labels: int) -> LanguageModelHead:
    """The head of a `…ForConditionalGeneration`: scores the next token of the target."""
    shape = transformer.config
    return LanguageModelHead(shape.dim, shape.language_model, transformer.token_embedding)


def sequence_classifier(transformer: Transformer, labels: int) -> Classifier:
    """The head of a `…ForSequenceClassification`.

    The text, which ends with its end token, goes to the encoder, and shifted right behind the
    start token to the decoder, whose last hidden state is classified.
    """
    return Classifier(
        transformer.config.dim, labels, pooling=PoolingMode.LAST, hidden=Activation.TANH
    )
