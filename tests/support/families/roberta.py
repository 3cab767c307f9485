"""RoBERTa, XLM-R and CamemBERT."""

from typing import Any

from transformers import (
    CamembertConfig,
    CamembertForMaskedLM,
    CamembertModel,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
    RobertaForTokenClassification,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
    XLMRobertaForSequenceClassification,
    XLMRobertaForTokenClassification,
    XLMRobertaModel,
)

from tests.support.families.case import VOCAB, Case

SMALL = {
    "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 34, "type_vocab_size": 1,
    "layer_norm_eps": 1e-2,
}  # fmt: skip


def config(**changes: Any) -> RobertaConfig:
    return RobertaConfig(**{**SMALL, **changes})


HEADS = {
    "masked_lm": RobertaForMaskedLM,
    "sequence_classifier": RobertaForSequenceClassification,
    "token_classifier": RobertaForTokenClassification,
}
XLM_HEADS = {
    "masked_lm": XLMRobertaForMaskedLM,
    "sequence_classifier": XLMRobertaForSequenceClassification,
    "token_classifier": XLMRobertaForTokenClassification,
}

CASES = (
    Case("RoBERTa", "roberta", config, RobertaModel, HEADS),
    Case("RoBERTa, ReLU, untied, padding is 0", "roberta",
         lambda: config(hidden_act="relu", tie_word_embeddings=False, pad_token_id=0),
         RobertaModel, HEADS),
    Case("XLM-R, the longest text", "xlm-roberta", lambda: XLMRobertaConfig(**SMALL),
         XLMRobertaModel, XLM_HEADS, lengths=(32, 1), gain=3.0),
    Case("CamemBERT", "camembert", lambda: CamembertConfig(**SMALL), CamembertModel,
         {"masked_lm": CamembertForMaskedLM}),
)  # fmt: skip
