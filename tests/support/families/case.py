"""A case of the parity table: a tiny configuration of a family, and the classes on it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

VOCAB = 60
LABELS = 3
LARGE_EPS = 0.02
"""What norms add wherever the configuration says: so much that another value would show."""


@dataclass(frozen=True)
class Case:
    """One configuration. `heads` maps our names of heads to the reference's classes.

    `lengths` are those of the texts in the batch it is tried on; `gain` how wide the weights of
    products are drawn (a score that is never divided by a root wants less); `exported` marks a case
    whose way through the operators is another than that of the family's first.
    """

    name: str
    family: str
    config: Callable[[], Any]
    base: type[Any]
    heads: Mapping[str, type[Any]] = field(default_factory=dict)
    lengths: tuple[int, ...] = (9, 1, 5)
    gain: float = 2.5
    first_id: int = 3
    exported: bool = False

    def __str__(self) -> str:
        return self.name

    def reference(self, head: str | None = None, seed: int = 0) -> PreTrainedModel:
        """The reference model with this head (or none), every weight drawn so that it matters."""
        config = self.config()
        if head is not None and "classifier" in head:
            config.num_labels = LABELS
        for name, value in vars(config).items():
            if "eps" in name and isinstance(value, float):
                setattr(config, name, LARGE_EPS)
        config._attn_implementation = "eager"
        model = (self.base if head is None else self.heads[head])(config)
        return draw(model, seed, self.gain)

    def token_ids(self, seed: int = 0, lengths: tuple[int, ...] | None = None) -> list[Tensor]:
        """Texts of random tokens; none of the lowest ids, which are special in some families."""
        generator = torch.Generator().manual_seed(100 + seed)
        return [
            torch.randint(self.first_id, VOCAB, (length,), generator=generator)
            for length in lengths or self.lengths
        ]


def draw(model: PreTrainedModel, seed: int, gain: float) -> PreTrainedModel:
    """Weights, biases and gains all far from what leaves no trace.

    Under a default initialisation attention is nearly uniform, biases are zero and gains one: a
    lost bias, another epsilon or a wrong mask would hardly show.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(shape: torch.Size, scale: float) -> Tensor:
        return torch.randn(shape, generator=generator) * scale

    with torch.no_grad():
        for path, module in model.named_modules():
            if "Sinusoidal" in type(module).__name__:
                continue
            for name, parameter in module.named_parameters(recurse=False):
                shape = parameter.shape
                if "Norm" in type(module).__name__:
                    # Gains lie around what they are made with: ones, or zeros as a difference.
                    centre = parameter.mean() if name == "weight" else 0.0
                    # Within heads they undo how wide the products are, so they are that wide.
                    if path.endswith(("q_norm", "k_norm")):
                        centre = centre + gain - 1.0
                    parameter.copy_(centre + normal(shape, 0.3))
                elif isinstance(module, nn.Embedding):
                    parameter.copy_(normal(shape, 1.0))
                elif parameter.dim() == 2:
                    fan_in = shape[0] if type(module).__name__ == "Conv1D" else shape[1]
                    parameter.copy_(normal(shape, gain * fan_in**-0.5))
                else:
                    parameter.copy_(normal(shape, 0.5))
            for name, buffer in module.named_buffers(recurse=False):
                if name == "final_logits_bias":
                    buffer.copy_(normal(buffer.shape, 0.5))
    return model.eval()
