"""Token ids of several texts as one padded batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model_core.attention import Padded


@dataclass(frozen=True, slots=True)
class Rows:
    """Right-padded token ids [B, S] and how many of each row are real [B]."""

    token_ids: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]], device: torch.device, pad: int = 0) -> "Rows":
        """`texts` as rows on `device`; what is padded with doesn't matter to the real ones."""
        rows = [torch.tensor(ids, dtype=torch.long) for ids in texts]
        if not rows:
            return cls(torch.empty(0, 1).long().to(device), torch.empty(0).long().to(device))
        padded_BS = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
        lengths_B = torch.tensor([len(ids) for ids in texts])
        return cls(padded_BS.to(device), lengths_B.to(device))

    @property
    def real(self) -> Tensor:
        """Which positions hold a token."""
        places = torch.arange(self.token_ids.shape[1], device=self.token_ids.device)
        return places < self.lengths[:, None]

    def layout(self, memory: Padded | None = None) -> Padded:
        """What attention is told; `memory` is the layout of the encoder's rows."""
        # No mask where nothing is padded: the kernel without one is the faster.
        is_even = bool((self.lengths == self.token_ids.shape[1]).all())
        return Padded.of(self.token_ids, None if is_even else self.real, memory)

    @property
    def tokens(self) -> int:
        """How many tokens are real."""
        return int(self.lengths.sum())
