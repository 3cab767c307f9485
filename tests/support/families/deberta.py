"""DeBERTa v2 and v3."""

from typing import Any

from transformers import (
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    DebertaV2ForSequenceClassification,
    DebertaV2ForTokenClassification,
    DebertaV2Model,
)

from tests.support.families.case import VOCAB, Case


def config(**changes: Any) -> DebertaV2Config:
    """Of the third version: distances from 4 on in logarithmic steps, up to 63."""
    return DebertaV2Config(**{
        "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 48, "max_position_embeddings": 64, "relative_attention": True,
        "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True,
        "pos_att_type": "p2c|c2p", "position_biased_input": False, "max_relative_positions": -1,
        **changes,
    })  # fmt: skip


HEADS = {
    "masked_lm": DebertaV2ForMaskedLM,
    "sequence_classifier": DebertaV2ForSequenceClassification,
    "token_classifier": DebertaV2ForTokenClassification,
}
ABSOLUTE = {"position_biased_input": True, "type_vocab_size": 2, "norm_rel_ebd": "none"}

CASES = (
    Case("DeBERTa", "deberta-v2", config, DebertaV2Model, HEADS, lengths=(60, 1, 9)),
    Case("DeBERTa, absolute positions, narrow embeddings", "deberta-v2",
         lambda: config(**ABSOLUTE, embedding_size=12, pooler_hidden_act="tanh", hidden_act="relu",
                        pos_att_type=["c2p", "p2c"], layer_norm_eps=1e-2),
         DebertaV2Model, HEADS, lengths=(60, 1, 9)),
    Case("DeBERTa, beyond the farthest distance", "deberta-v2",
         lambda: config(max_relative_positions=16, max_position_embeddings=64), DebertaV2Model,
         HEADS, lengths=(60, 1, 9)),
    Case("DeBERTa, its own names", "deberta-v2", lambda: config(legacy=False), DebertaV2Model,
         {"masked_lm": DebertaV2ForMaskedLM}, lengths=(30, 1, 9)),
)  # fmt: skip
