"""RoBERTa (Liu et al. 2019) and what has its shape: XLM-R, CamemBERT. BERT's encoder, whose
positions begin after that of the padding token."""

from collections.abc import Sequence

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import Drop, KeyRule, Rename
from model_core.checkpoints.readers import TensorReader
from model_core.config import Activation, TransformerConfig
from model_core.families.bert import (
    embedding_config,
    encoder_config,
    encoder_rules,
    masked_lm_head,
    sequence_classifier,
    token_classifier,
    token_score_rules,
)
from model_core.families.family import Family, Head
from model_core.heads import MaskedLanguageModelHead
from model_core.transformer import Transformer


def config(fields: Fields, _tensors: TensorReader) -> TransformerConfig:
    """From `config.json`, whose number of positions counts those before the first token's."""
    first = fields.take("pad_token_id", int, 1) + 1
    built = encoder_config(fields, embedding_config(fields, position_offset=first))
    fields.finish()
    return built


def rules(shape: TransformerConfig) -> Sequence[KeyRule]:
    """The names in a `Roberta…` model with a head."""
    return (
        *encoder_rules("roberta."),
        Rename("lm_head.dense", "heads.masked_lm.transform"),
        Rename("lm_head.layer_norm", "heads.masked_lm.norm"),
        *token_score_rules("lm_head", shape),
        Rename("classifier.dense", "heads.sequence_classifier.hidden"),
        Rename("classifier.out_proj", "heads.sequence_classifier.output"),
        Rename("classifier", "heads.token_classifier.output"),
        Drop("roberta.pooler.dense", "of next-sentence prediction, which RoBERTa gave up"),
    )


def masked_lm(transformer: Transformer, _labels: int) -> MaskedLanguageModelHead:
    """`RobertaForMaskedLM`'s head: GELU, whatever the blocks have."""
    return masked_lm_head(transformer, Activation.GELU)


def family(name: str, title: str, stem: str) -> Family:
    """One that differs in the names of its classes alone."""
    return Family(
        names=(name,),
        title=title,
        config=config,
        rules=rules,
        architecture=f"{stem}Model",
        prefix="roberta.",
        heads={
            "masked_lm": Head(f"{stem}ForMaskedLM", masked_lm),
            "sequence_classifier": Head(f"{stem}ForSequenceClassification", sequence_classifier),
            "token_classifier": Head(f"{stem}ForTokenClassification", token_classifier),
        },
    )


ROBERTA = family("roberta", "RoBERTa", "Roberta")
XLM_ROBERTA = family("xlm-roberta", "XLM-R", "XLMRoberta")
CAMEMBERT = family("camembert", "CamemBERT", "Camembert")
