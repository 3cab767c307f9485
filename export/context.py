"""A model for texts of another length than its configuration states.

Positions that are computed (rotary, relative) go as far as one asks; a learned table ends.
"""

from dataclasses import replace

from model_core.config import (
    AttentionConfig,
    ConfigError,
    DynamicScaling,
    PositionKind,
    StackConfig,
    TransformerConfig,
)
from model_core.position import dynamic_theta


def for_context(config: TransformerConfig, tokens: int) -> TransformerConfig:
    """`config` for texts of up to `tokens`; raises `ConfigError` where a table ends before.

    Dynamic scaling, whose base follows the length of the text, gets the base of a text of
    `tokens`: a cache keeps keys as they were turned, and they must all have turned alike.
    """
    stacks = {name: getattr(config, name) for name in ("encoder", "decoder")}
    longer = {name: stack and stack_for(stack, tokens) for name, stack in stacks.items()}
    return replace(config, **longer)


def stack_for(stack: StackConfig, tokens: int) -> StackConfig:
    """The same of one stack."""
    embedding = stack.embedding
    if embedding.position is PositionKind.LEARNED and tokens > embedding.max_positions:
        raise ConfigError(
            f"context is {tokens}, but the positions of this model are a table of "
            f"{embedding.max_positions}"
        )
    rows = embedding.rows if embedding.position is PositionKind.LEARNED else None
    return replace(
        stack,
        # The table stays as the checkpoint has it, read to an earlier end.
        embedding=replace(embedding, max_positions=tokens, position_rows=rows),
        attention=tuple(attention_for(attention, tokens) for attention in stack.attention),
    )


def attention_for(attention: AttentionConfig, tokens: int) -> AttentionConfig:
    """The same of one attention."""
    rotary = attention.rotary
    if rotary is None or not isinstance(rotary.scaling, DynamicScaling):
        return attention
    fixed = replace(rotary, theta=dynamic_theta(rotary, rotary.scaling, tokens), scaling=None)
    return replace(attention, rotary=fixed)
