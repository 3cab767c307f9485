"""The heads that decoders have: next tokens, and classes of a text or of its tokens."""

from model_core.families.family import Head
from model_core.heads import Classifier, LanguageModelHead
from model_core.pooling import PoolingMode
from model_core.transformer import Transformer


def language_model(transformer: Transformer, _labels: int) -> LanguageModelHead:
    """The head of a `…ForCausalLM`."""
    shape = transformer.config
    return LanguageModelHead(shape.dim, shape.language_model, transformer.token_embedding)


def sequence_classifier(transformer: Transformer, labels: int) -> Classifier:
    """The head of a `…ForSequenceClassification`: the last token's hidden state, no bias."""
    return Classifier(transformer.config.dim, labels, pooling=PoolingMode.LAST, bias=False)


def token_classifier(transformer: Transformer, labels: int) -> Classifier:
    """The head of a `…ForTokenClassification`."""
    return Classifier(transformer.config.dim, labels)


def decoder_heads(name: str) -> dict[str, Head]:
    """All three, of a family whose classes are called `name`."""
    return {
        "language_model": Head(f"{name}ForCausalLM", language_model),
        "sequence_classifier": Head(f"{name}ForSequenceClassification", sequence_classifier),
        "token_classifier": Head(f"{name}ForTokenClassification", token_classifier),
    }
