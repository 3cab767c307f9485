"""DistilBERT (Sanh et al. 2019): BERT's encoder without token types."""

from collections.abc import Sequence

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import Drop, KeyRule, Rename
from model_core.checkpoints.readers import TensorReader
from model_core.config import Activation, PoolingMode, TransformerConfig
from model_core.families.bert import (
    embedding_config,
    encoder_config,
    masked_lm,
    token_classifier,
)
from model_core.families.family import Family, Head
from model_core.heads import Classifier
from model_core.transformer import Transformer

# Its own names for BERT's fields. Newer checkpoints have the second name of some too.
FIELDS = {
    "dim": "hidden_size",
    "n_heads": "num_attention_heads",
    "n_layers": "num_hidden_layers",
    "hidden_dim": "intermediate_size",
    "activation": "hidden_act",
}


def config(fields: Fields, _tensors: TensorReader) -> TransformerConfig:
    """From `config.json`."""
    named = {FIELDS.get(name, name): value for name, value in fields.values.items()}
    fields = Fields(named, f"{fields.origin} (in the names of BERT's)")
    fields.require("layer_norm_eps", 1e-12)
    # Whether positions began as sinusoids; they are a table in the checkpoint either way.
    fields.ignore("sinusoidal_pos_embds")
    fields.ignore("dropout", "qa_dropout", "seq_classif_dropout", "tie_weights_")
    built = encoder_config(fields, embedding_config(fields, token_types=0))
    fields.finish()
    return built


EMBEDDINGS, THEIR_EMBEDDINGS = "transformer.encoder.embeddings", "distilbert.embeddings"
BLOCK, LAYER = "transformer.encoder.blocks.{layer}", "distilbert.transformer.layer.{layer}"
RULES: Sequence[KeyRule] = (
    Rename(f"{THEIR_EMBEDDINGS}.word_embeddings", f"{EMBEDDINGS}.token"),
    Rename(f"{THEIR_EMBEDDINGS}.position_embeddings", f"{EMBEDDINGS}.position"),
    Rename(f"{THEIR_EMBEDDINGS}.LayerNorm", f"{EMBEDDINGS}.norm"),
    Rename(f"{LAYER}.attention.q_lin", f"{BLOCK}.attention.query"),
    Rename(f"{LAYER}.attention.k_lin", f"{BLOCK}.attention.key"),
    Rename(f"{LAYER}.attention.v_lin", f"{BLOCK}.attention.value"),
    Rename(f"{LAYER}.attention.out_lin", f"{BLOCK}.attention.output"),
    Rename(f"{LAYER}.sa_layer_norm", f"{BLOCK}.attention_norm"),
    Rename(f"{LAYER}.ffn.lin1", f"{BLOCK}.feed_forward.up"),
    Rename(f"{LAYER}.ffn.lin2", f"{BLOCK}.feed_forward.down"),
    Rename(f"{LAYER}.output_layer_norm", f"{BLOCK}.feed_forward_norm"),
    Rename("vocab_transform", "heads.masked_lm.transform"),
    Rename("vocab_layer_norm", "heads.masked_lm.norm"),
    Rename("vocab_projector", "heads.masked_lm.output"),
    Rename("pre_classifier", "heads.sequence_classifier.hidden"),
    Rename("classifier", "heads.sequence_classifier.output"),
    Rename("classifier", "heads.token_classifier.output"),
    Drop(f"{THEIR_EMBEDDINGS}.position_ids", "0, 1, 2, … saved by old versions"),
)


def sequence_classifier(transformer: Transformer, labels: int) -> Classifier:
    """`DistilBertForSequenceClassification`'s head: BERT's with another activation."""
    return Classifier(
        transformer.config.dim, labels, pooling=PoolingMode.CLS, hidden=Activation.RELU
    )


DISTILBERT = Family(
    names=("distilbert",),
    title="DistilBERT",
    config=config,
    rules=lambda _: RULES,
    architecture="DistilBertModel",
    prefix="distilbert.",
    heads={
        "masked_lm": Head("DistilBertForMaskedLM", masked_lm),
        "sequence_classifier": Head("DistilBertForSequenceClassification", sequence_classifier),
        "token_classifier": Head("DistilBertForTokenClassification", token_classifier),
    },
)
