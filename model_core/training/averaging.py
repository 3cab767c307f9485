"""A checkpoint's weights, and the mean of several, which is steadier (Vaswani et al. 2017)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from model_core.attention import Fused
from model_core.checkpoints.load import load
from model_core.checkpoints.sources import locate
from model_core.training.errors import TrainingError
from model_core.training.low_rank import merge
from model_core.training.run_folder import BEST, RunFolder, parameters_of, restore_parameters
from model_core.training.starting_point import Start


def read_checkpoint(folder: Path, head: str | None) -> Mapping[str, Tensor]:
    """The parameters of a checkpoint of ours, by our names."""
    heads = () if head is None else (head,)
    loaded = load(locate(str(folder), cache=folder), Fused(), heads)
    return parameters_of(loaded.model)


def restore_best(begun: Start, folder: RunFolder) -> None:
    """Give the model the parameters of the run's best checkpoint, adapters merged.

    Raises `TrainingError` where there is none yet.
    """
    best = folder.path(BEST)
    if best is None:
        raise TrainingError(f"{folder.folder} has no {BEST} checkpoint yet")
    merge(begun.model)
    restore_parameters(begun.model, read_checkpoint(best, begun.head))


def average_checkpoints(folders: Sequence[Path], head: str | None) -> Mapping[str, Tensor]:
    """The mean of each parameter of the checkpoints, which have the same shape, by our names.

    One checkpoint is in memory at a time, beside the sums.
    """
    sums: dict[str, Tensor] = {}
    for folder in folders:
        for name, value in read_checkpoint(folder, head).items():
            sums[name] = sums[name] + value.double() if name in sums else value.double()
    return {name: (value / len(folders)).to(torch.float32) for name, value in sums.items()}
