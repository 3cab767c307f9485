"""MiniLM from strings on: the whole service against sentence-transformers within a process."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import torch

from export.artifact import Artifact
from export.catalogue import EMBEDDED
from loadtests.peers.comparison import Comparison, Figures, Missing
from loadtests.peers.gpu.device import Device, timed
from loadtests.peers.gpu.models import Sizes, exported
from loadtests.peers.gpu.sides import OURS, Show, Side
from loadtests.peers.stage import Run
from loadtests.service_process import serve
from loadtests.workloads import load_texts
from model_core.checkpoints.sources import locate

CLIENTS, TEXTS_A_REQUEST = 16, 32


def over_http(run: Run, device: Device, sizes: Sizes, show: Show) -> Iterator[Comparison]:
    """The whole service against sentence-transformers within a process."""
    corpus = list(load_texts())
    texts = [corpus[at % len(corpus)] for at in range(sizes.texts)]
    artifact = exported("minilm", device, run.cache)
    sides: list[Side] = []
    missing: list[Missing] = []
    try:
        sides.append(sentence_transformers(device, artifact, texts, run.cache))
    except ImportError:
        missing.append(Missing("sentence-transformers", "it isn't installed here"))
    log = run.folder / "gpu-service.log"
    with serve(["--plain", str(artifact.folder)], log=log, start_timeout_s=300) as running:
        ask = partial(embed, running.url, texts)
        ask()

        def turn() -> Figures:
            return {"texts/s": len(texts) / timed(device, ask)}

        ours = Side("ours", OURS, f"{CLIENTS} clients, {TEXTS_A_REQUEST} texts each", turn)
        yield show(
            "gpu-http",
            "minilm",
            f"MiniLM, {len(texts)} texts",
            "texts/s",
            [ours, *sides],
            missing=missing,
        )


def embed(url: str, texts: Sequence[str]) -> None:
    """All texts over HTTP, by several clients at once."""
    parts = [texts[at : at + TEXTS_A_REQUEST] for at in range(0, len(texts), TEXTS_A_REQUEST)]

    def ask(part: Sequence[str]) -> None:
        # Cut at the model's limit, as the peer cuts.
        body: Mapping[str, Any] = {"inputs": list(part), "truncate": True}
        client.post("/embed", json=body).raise_for_status()

    with httpx.Client(base_url=url, timeout=120) as client, ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(ask, parts))


def sentence_transformers(
    device: Device, artifact: Artifact, texts: Sequence[str], cache: Path
) -> Side:
    """The peer, in this process, in batches of its best size. Raises `ImportError` without it."""
    import sentence_transformers as peer  # pyright: ignore[reportMissingImports]: a peer, if there

    folder = locate(EMBEDDED["minilm"].source, cache=cache).files["config.json"].parent
    model = peer.SentenceTransformer(
        str(folder), device=device.at.type, model_kwargs={"dtype": device.dtype}
    )
    model.max_seq_length = artifact.manifest.max_tokens

    def encode(size: int) -> None:
        model.encode(list(texts), batch_size=size, show_progress_bar=False)

    sizes = (32, 64, 128, 256, 512)
    encode(sizes[-1])
    best = min(sizes, key=lambda size: timed(device, lambda: encode(size)))
    return Side(
        "sentence-transformers",
        f"{peer.__version__}, torch {torch.__version__}",
        f"batches of {best}, in the process",
        lambda: {"texts/s": len(texts) / timed(device, lambda: encode(best))},
    )
