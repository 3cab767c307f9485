"""What training adds to a model and takes off again: dropout, and blocks computed twice for memory.

The model's own code knows neither: it is the one that is exported.
"""

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import checkpoint

from model_core.blocks import Block
from model_core.embeddings import Embeddings


@contextmanager
def dropout(model: nn.Module, share: float) -> Generator[None]:
    """Zero a `share` of what each part of a block adds to the stream, and of the embeddings.

    Where Vaswani et al. 2017 have it (section 5.4). Only in training mode.
    """

    def drop(module: nn.Module, _arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        return F.dropout(output, share, module.training)

    parts = dropped_parts(model) if share else []
    handles = [part.register_forward_hook(drop) for part in parts]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def dropped_parts(model: nn.Module) -> list[nn.Module]:
    """The embeddings of every stack, the attentions and the feed-forward part of every block."""
    parts: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, Embeddings):
            parts.append(module)
        elif isinstance(module, Block):
            inner = (module.attention, module.cross_attention, module.feed_forward)
            parts.extend(part for part in inner if part is not None)
    return parts


@contextmanager
def computed_twice(model: nn.Module, wanted: bool) -> Generator[None]:
    """Blocks keep their input alone, and run again for their gradients (Chen et al. 2016).

    Memory no longer grows with what is inside a block; a step takes a third longer.
    """
    blocks = [module for module in model.modules() if isinstance(module, Block)] if wanted else []
    recompute = cast("Any", checkpoint).checkpoint
    for block in blocks:
        block.forward = partial(recompute, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward
