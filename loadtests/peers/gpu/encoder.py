"""BERT of random weights: packed texts against rows that are padded."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import BertModel

from export.session import Session
from loadtests.peers.comparison import Comparison, Figures
from loadtests.peers.gpu.device import Device, timed
from loadtests.peers.gpu.models import (
    SEED,
    SPECIAL,
    Sizes,
    checkpoint,
    exported,
    weights_of_products,
)
from loadtests.peers.gpu.sides import OURS, PYTORCH, Show, Side
from loadtests.peers.limits import Cost
from loadtests.peers.stage import Run
from service.engines.pooling import pack


def encoders(run: Run, device: Device, sizes: Sizes, show: Show) -> Iterator[Comparison]:
    """BERT: rows of one length, and of any."""
    config = sizes.bert
    name = f"bert-random-{config.hidden_size}x{config.num_hidden_layers}"
    folder = checkpoint(run.folder / "builds" / name, lambda: BertModel(config))
    artifact = exported(str(folder), device, run.cache)
    session = Session(artifact.graph, device.provider, 1)
    (served,) = artifact.manifest.served
    # transformers' own types don't bind its methods.
    loaded: Any = BertModel.from_pretrained(folder, add_pooling_layer=False, dtype=device.dtype)
    model = loaded.to(device.at).eval()
    cost = Cost(2.0 * weights_of_products(model))
    compiled: Any = torch.compile(model) if device.at.type == "cuda" else model

    def ours(batch: list[list[int]]) -> np.ndarray:
        return session.run(pack(batch, token_types=True), [served.output])[0]

    def theirs(batch: list[list[int]]) -> np.ndarray:
        rows = nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in batch], batch_first=True)
        lengths = torch.tensor([len(ids) for ids in batch])
        mask = (torch.arange(rows.shape[1]) < lengths[:, None]).long().to(device.at)
        with torch.inference_mode():
            hidden = compiled(rows.to(device.at), attention_mask=mask).last_hidden_state
            mean = (hidden.float() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            return nn.functional.normalize(mean, dim=-1).cpu().numpy()

    draw = random.Random(SEED)
    longest = max(sizes.lengths)
    works = {
        **{str(length): [length] * sizes.batch for length in sizes.lengths},
        "mixed": [draw.randint(longest // 16, longest) for _ in range(sizes.batch)],
    }
    for variant, lengths in works.items():
        batch = [[draw.randrange(SPECIAL, config.vocab_size) for _ in range(n)] for n in lengths]
        found, expected = ours(batch), theirs(batch)  # compiled and warm from here on
        cosine = float((unit(found) * unit(expected)).sum(-1).min())

        def turn(side: Callable[..., object], batch: list[list[int]] = batch) -> Figures:
            tokens = sum(map(len, batch))
            return {"tokens/s": tokens / timed(device, lambda: side(batch))}

        yield show(
            "gpu-encoder",
            variant,
            f"BERT of base size, {len(batch)} texts of {variant} tokens",
            "tokens/s",
            [
                Side("ours", OURS, "packed", partial(turn, ours), cosine),
                Side("pytorch", PYTORCH, "compiled, fused attention", partial(turn, theirs), 1.0),
            ],
            cost,
            "smallest cosine between ours and PyTorch's at the same precision",
        )


def unit(rows: np.ndarray) -> np.ndarray:
    wide = rows.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=-1, keepdims=True)
