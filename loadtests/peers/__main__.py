"""`python -m loadtests.peers encoder | decoder`: ours against a peer on the same work, in one run.

A peer is installed on first use into an environment of its own under the cache folder, runs as a
process beside ours, and both take turns. The weights are the embedded models' own.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from export.catalogue import EMBEDDED, default_cache_folder
from loadtests.peers.comparison import (
    OURS,
    THEIRS,
    Comparison,
    alternate,
    as_markdown,
    as_table,
    ratio_line,
    row,
)
from loadtests.peers.environments import PEERS, interpreter_of, script_of
from loadtests.peers.worker_process import Worker, worker
from loadtests.workloads import load_texts
from model_core.checkpoints.sources import Located, locate

MAX_TOKENS = 256
MAX_COSINE_GAP = 0.01  # int8's own goal; anything beyond is other work, not other precision


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


app = typer.Typer(no_args_is_help=True, add_completion=False)
console = Console()
errors = Console(stderr=True)

Rounds = Annotated[int, typer.Option(min=1, help="Rounds, each side once a round.")]
Folder = Annotated[
    Path,
    typer.Option(
        help="Where peers are installed and weights fetched.", default_factory=default_cache_folder
    ),
]
Output = Annotated[Path | None, typer.Option(help="Also write the table there, as markdown.")]
Threads = Annotated[
    int, typer.Option(min=1, help="Threads of our session.", default_factory=core_count)
]


@app.command()
def encoder(
    cache: Folder,
    threads: Threads,
    rounds: Rounds = 5,
    precision: Annotated[str, typer.Option(help="Ours: fp32 or int8.")] = "fp32",
    texts: Annotated[int, typer.Option(min=1, help="How many of the corpus.")] = 512,
    output: Output = None,
) -> None:
    """MiniLM over the corpus, texts/s: ours against sentence-transformers on torch, fp32."""
    corpus = list(load_texts(count=texts))
    located = fetch("minilm", cache)
    folder = located.files["config.json"].parent
    with contenders("encoder", cache, precision, threads, [str(folder), str(MAX_TOKENS)]) as pair:
        described = {name: side.ask("prepare", texts=corpus) for name, side in pair.items()}
        check_same_vectors(pair, corpus[:8])
        runs = {
            name: lambda side=side: len(corpus) / side.ask("embed", texts=corpus)["seconds"]
            for name, side in pair.items()
        }
        speeds = alternate(runs, rounds, errors.print)
    show(
        Comparison(
            f"MiniLM, {len(corpus)} texts cut at {MAX_TOKENS} tokens, {core_count()} cores",
            "texts/s",
            row(described[OURS], speeds[OURS]),
            row(described[THEIRS], speeds[THEIRS]),
        ),
        output,
    )


@app.command()
def decoder(
    cache: Folder,
    threads: Threads,
    rounds: Rounds = 5,
    precision: Annotated[str, typer.Option(help="Ours: fp32 or int8.")] = "int8",
    rows: Annotated[int, typer.Option(min=1, help="Prompts that are decoded together.")] = 8,
    context: Annotated[int, typer.Option(min=1, help="Tokens of each prompt.")] = 256,
    steps: Annotated[int, typer.Option(min=1, help="Tokens decoded in each row.")] = 64,
    output: Output = None,
) -> None:
    """SmolLM2-135M, decoded tokens/s over all rows: ours against onnxruntime-genai, int4."""
    gguf = fetch("smollm2", cache).gguf
    if gguf is None:
        raise typer.BadParameter("smollm2's source has no GGUF file")
    build_folder = cache / "peers" / "onnxruntime-genai-smollm2"
    with contenders("decoder", cache, precision, threads, [str(gguf), str(build_folder)]) as pair:
        text = " ".join(load_texts())
        cut = pair[THEIRS].ask("windows", text=text, rows=rows, length=context)
        prompts = cut["prompts"]
        described = {name: side.ask("prepare", prompts=prompts) for name, side in pair.items()}
        runs = {
            name: lambda side=side: (
                rows * steps / side.ask("decode", prompts=prompts, steps=steps)["seconds"]
            )
            for name, side in pair.items()
        }
        speeds = alternate(runs, rounds, errors.print)
    show(
        Comparison(
            f"SmolLM2-135M, {rows} rows of {context} tokens, {steps} steps, {core_count()} cores",
            "decoded tokens/s",
            row(described[OURS], speeds[OURS]),
            row(described[THEIRS], speeds[THEIRS]),
        ),
        output,
    )


def fetch(model: str, cache: Path) -> Located:
    return locate(EMBEDDED[model].source, cache=cache)


@contextmanager
def contenders(
    kind: str, cache: Path, precision: str, threads: int, arguments: list[str]
) -> Iterator[dict[str, Worker]]:
    """Both sides, started; their logs are in the cache folder."""
    peer = PEERS[kind]
    folder = cache / "peers"
    folder.mkdir(parents=True, exist_ok=True)
    errors.print(f"installing {peer.name} unless it is there …")
    python = interpreter_of(peer, folder)
    ours = [sys.executable, "-m", "loadtests.peers.ours", kind, precision, str(threads)]
    theirs = [str(python), str(script_of(peer)), *arguments]
    with (
        worker(ours, log=folder / f"{kind}-ours.log") as our_side,
        worker(theirs, log=folder / f"{kind}-theirs.log") as their_side,
    ):
        yield {OURS: our_side, THEIRS: their_side}


def check_same_vectors(pair: dict[str, Worker], texts: list[str]) -> None:
    """Both sides have to agree on a few texts: a fast answer to another question is no lead."""
    ours, theirs = (side.ask("vectors", texts=texts)["vectors"] for side in pair.values())
    for text, mine, other in zip(texts, ours, theirs, strict=True):
        cosine = sum(a * b for a, b in zip(mine, other, strict=True))  # both have length 1
        if cosine < 1 - MAX_COSINE_GAP:
            raise SystemExit(f"the sides disagree (cosine {cosine:.4f}) about {text[:60]!r}")


def show(found: Comparison, output: Path | None) -> None:
    console.print(as_table(found))
    console.print(ratio_line(found))
    if output is not None:
        output.write_text(as_markdown(found), encoding="utf-8")


if __name__ == "__main__":
    app()
