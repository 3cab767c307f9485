"""A checkpoint on its way to int8: rotated where it can be, and calibrated on our texts."""

from collections.abc import Sequence

import torch

from export import calibration
from export.artifact import Precision
from export.quantization.forms import READING, WRITING
from export.quantization.products import Products, int8_products
from export.quantization.rotation import can_rotate, rotate
from model_core.attention import Fused, Padded, attend_by
from model_core.checkpoints.load import Loaded
from model_core.heads import LanguageModelHead
from model_core.tokenization import Tokenizer


def quantize(
    loaded: Loaded,
    tokenizer: Tokenizer,
    precision: Precision,
    start: Sequence[int],
    minimum_columns: int,
) -> Products:
    """The layers in int8, if any are to be, calibrated on our texts.

    A stream that can be is rotated first. `start` begins what an encoder-decoder writes: the text
    itself, for want of a translation.
    """
    if precision is not Precision.INT8:
        return {}
    transformer = loaded.model.transformer
    heads = [head for head in loaded.model.heads.values() if isinstance(head, LanguageModelHead)]
    if heads and can_rotate(transformer):
        rotate(transformer, heads[0])
    first, last = transformer.config.stacks[0], transformer.config.stacks[-1]
    attend_by(transformer, Fused())

    def read(token_ids: list[int]) -> None:
        rows = torch.tensor([token_ids])
        layout = Padded.of(rows)
        if transformer.encoder is None:
            hidden = transformer.decode(rows, layout)
        else:
            hidden = transformer.encode(rows, layout)
        if transformer.encoder is not None and transformer.decoder is not None:
            target = torch.tensor([[*start, *token_ids][: last.embedding.max_positions]])
            target = target % last.embedding.vocab_size
            hidden = transformer.decode(target, Padded.of(target, memory=layout), hidden)
        for head in heads:
            head(hidden)

    encoded = [tokenizer.encode(text) for text in calibration.texts()]
    if not heads:
        # What is read may be a word or nothing at all, and inner values are then at their largest.
        encoded += [tokenizer.encode(word) for word in ("", *calibration.words())]
    known = [[token for token in ids if token < first.embedding.vocab_size] for ids in encoded]
    texts = [ids[: first.embedding.max_positions] for ids in known if ids]
    policy = WRITING if heads else READING
    return int8_products(loaded.model, read, texts, policy, minimum_columns)
