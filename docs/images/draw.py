"""The pictures of the tour: `.venv/bin/python docs/images/draw.py` makes them again.

Needs matplotlib (the extra `load`), and MiniLM, which is fetched when it isn't there. A minute.
"""

from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from torch import Tensor
from torch.nn import functional as F

from export.catalogue import EMBEDDED, default_cache_folder
from model_core.attention import AttentionSite, Explicit, Fused, Padded
from model_core.checkpoints.load import load
from model_core.checkpoints.sources import locate
from model_core.config import (
    Activation,
    AttentionConfig,
    EmbeddingConfig,
    FeedForwardConfig,
    NormConfig,
    NormKind,
    NormPlacement,
    PositionKind,
    StackConfig,
    TransformerConfig,
)
from model_core.tokenization import Tokenizer
from model_core.transformer import Transformer

HERE = Path(__file__).parent
SENTENCES = "time flies like an arrow", "fruit flies like a banana"
DIM, VOCAB, LAYERS, STEPS, WARM_UP = 64, 100, 12, 80, 40


def draw_heads(path: Path) -> None:
    """Layer 0, head 1 on the first sentence; layer 1, head 1 on both."""
    files = locate(EMBEDDED["minilm"].source, cache=default_cache_folder())
    tokenizer = Tokenizer.from_files(files.files)
    weights: dict[int, Tensor] = {}

    def tap(site: AttentionSite, seen: dict[str, Tensor]) -> None:
        weights[site.layer] = seen["weights"][0]

    model = load(files, Explicit(tap)).model.transformer
    panels: list[tuple[Tensor, list[str], str]] = []
    one = tokenizer.encode(SENTENCES[0])
    pair = tokenizer.encode_pair(*SENTENCES)
    for token_ids, token_types, layer, title in (
        (one, [0] * len(one), 0, "layer 0, head 1: “flies” looks at “arrow”"),
        (pair.token_ids, pair.token_types, 1, "layer 1, head 1: words look at their twins"),
    ):
        rows = torch.tensor([token_ids])
        model.encode(rows, Padded.of(rows), torch.tensor([token_types]))
        words = [tokenizer.token_text(token_id) for token_id in token_ids]
        panels.append((weights[layer][1], words, title))

    figure, axes = plt.subplots(
        1, 2, figsize=(9.6, 5.4), width_ratios=[len(words) for _, words, _ in panels]
    )
    for axis, (matrix, words, title) in zip(axes, panels, strict=True):
        draw_weights(axis, matrix, words, title)
    axes[0].set(xlabel="key", ylabel="query")
    figure.savefig(path)


def draw_weights(axis: Axes, matrix: Tensor, words: list[str], title: str) -> None:
    """A row a query, a column a key; figures where there is something to see."""
    axis.imshow(matrix.tolist(), cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(words)), words, rotation=60, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(words)), words)
    axis.tick_params(length=0)
    axis.set_title(title, fontsize=10)
    for query, row in enumerate(matrix.tolist()):
        for key, weight in enumerate(row):
            if weight >= 0.1:
                colour = "white" if weight > 0.6 else "black"
                axis.text(
                    key, query, f"{weight:.2f}"[1:], ha="center", va="center", color=colour, size=7
                )


def draw_norms(path: Path) -> None:
    """Loss while a 12-layer stack learns 16 texts backwards, by the place of its norms."""
    figure, axis = plt.subplots(figsize=(7.4, 3.2))
    for placement, colour in ((NormPlacement.POST, "tab:red"), (NormPlacement.PRE, "tab:blue")):
        for warm_up, line in ((1, "-"), (WARM_UP, "--")):
            rate = f"warm-up of {warm_up} steps" if warm_up > 1 else "no warm-up"
            losses = train(placement, warm_up)
            axis.plot(losses, line, color=colour, label=f"{placement}-norm, {rate}")
    axis.set_xlabel("step")
    axis.set_ylabel("loss")
    axis.set_ylim(bottom=0)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=8, loc="outside right center")
    figure.savefig(path)


def train(placement: NormPlacement, warm_up: int) -> list[float]:
    """The loss at each step; the rate grows to 0.003 over the warm-up."""
    torch.manual_seed(0)
    attention = AttentionConfig(heads=4, kv_heads=4, head_dim=16, bias=True, output_bias=True)
    stack = StackConfig(
        embedding=EmbeddingConfig(VOCAB, PositionKind.LEARNED, max_positions=32),
        attention=(attention,) * LAYERS,
        feed_forward=FeedForwardConfig(4 * DIM, Activation.GELU, gated=False, bias=True),
        placement=placement,
        final_norm=placement is NormPlacement.PRE,
    )
    model = Transformer(
        TransformerConfig(DIM, NormConfig(NormKind.LAYER, 1e-5), encoder=stack), Fused()
    )
    for parameter in model.encoder.blocks.parameters() if model.encoder else ():
        if parameter.dim() == 2:
            torch.nn.init.xavier_uniform_(parameter)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / warm_up)
    )
    texts = torch.randint(VOCAB, (16, 16), generator=torch.Generator().manual_seed(3))
    losses: list[float] = []
    for _ in range(STEPS):
        hidden = model.encode(texts, Padded.of(texts))
        logits = hidden @ model.token_embedding.weight.T / DIM**0.5
        loss = F.cross_entropy(logits.flatten(0, 1), texts.flip(1).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return losses


if __name__ == "__main__":
    mpl.use("Agg")
    mpl.rcParams.update({"figure.dpi": 110, "figure.constrained_layout.use": True, "font.size": 9})
    draw_heads(HERE / "heads.png")
    draw_norms(HERE / "norms.png")
