"""Servers as contenders: one is started, warmed up, measured and stopped at a time.

The load comes from wrk, a generator in C that takes little of the machine that it measures.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from export.artifact import Artifact
from export.session import find_hardware, usable_cores
from loadtests.peers.comparison import MILLISECONDS, Figures
from loadtests.peers.contenders import Contender
from loadtests.peers.ours_encoder import BatchedEncoder
from loadtests.peers.stage import WORKERS, Run, command_of, environment_of
from loadtests.peers.worker_process import WorkerFailed
from loadtests.service_process import (
    HOST,
    Running,
    ServiceDidNotStart,
    free_port,
    serve,
    stop,
    wait_until_ready,
)
from loadtests.workloads import cut_to_fit
from service.exporting import artifact_of
from service.messages import Floats
from service.settings import ServiceSettings

MODEL = "minilm"
PATH = "/v1/embeddings"
PEERS_READY = "/v1/models"
SCRIPT = "server_requests.lua"

WARM_UP_S = 2
SECONDS = 6
START_TIMEOUT_S = 180.0
ANSWER_TIMEOUT_S = 30  # wrk's own 2 s would count slow answers as errors

CHECKED_TEXTS = 8
SAME_VECTORS = 0.98  # int8 and bf16 are in it; anything below is other work


def measure(
    contender: Contender, run: Run, texts: Sequence[str], connections: Sequence[int]
) -> tuple[Mapping[str, Any], dict[int, Figures]]:
    """What `prepare` would say, and figures for each number of connections.

    Raises `WorkerFailed`.
    """
    fitting, expected = work_of(tuple(texts), run.cache)
    bodies = run.folder / "http-bodies.jsonl"
    lines = [json.dumps({"model": MODEL, "input": text}) for text in fitting]
    bodies.write_text("\n".join(lines) + "\n")
    with started(contender, run) as server:
        check_vectors(server, fitting, expected)
        figures: dict[int, Figures] = {}
        for count in connections:
            drive(server, bodies, count, WARM_UP_S)
            figures[count] = drive(server, bodies, count, SECONDS)
    return describe(contender, run), figures


@lru_cache(maxsize=1)
def work_of(texts: tuple[str, ...], cache: Path) -> tuple[tuple[str, ...], Floats]:
    """The texts, cut to what every server takes, and what the first of them should give."""
    artifact = Artifact.open(folder_of("fp32", cache))
    encoder = BatchedEncoder(artifact, usable_cores())
    try:
        fitting = cut_to_fit(texts, encoder.tokenizer, encoder.max_tokens)
        return fitting, encoder.embed(list(fitting[:CHECKED_TEXTS]))
    finally:
        encoder.batcher.close()


def folder_of(precision: str, cache: Path) -> Path:
    """Our artifact, exported first where it isn't cached."""
    settings = ServiceSettings.model_validate({"precision": precision, "cache_folder": cache})
    return artifact_of(MODEL, settings, find_hardware())


@contextmanager
def started(contender: Contender, run: Run) -> Generator[Running]:
    """The server, ready for requests, until the block ends. Raises `WorkerFailed`."""
    log = run.folder / f"{contender.name}.log"
    try:
        if contender.is_ours:
            arguments = [str(folder_of(contender.precision, run.cache)), *contender.arguments]
            with serve(arguments, log=log) as server:
                yield server
        else:
            with peer(contender, run, log) as server:
                yield server
    except ServiceDidNotStart as error:
        # Its first line says what happened, the last of the log that follows most often why.
        first, *rest = str(error).splitlines()
        raise WorkerFailed(" ".join([first, *rest[-1:]])) from error


@contextmanager
def peer(contender: Contender, run: Run, log: Path) -> Generator[Running]:
    port = free_port()
    try:
        command = [*command_of(contender, run), str(port)]
    except (OSError, subprocess.CalledProcessError) as error:
        raise WorkerFailed(f"its installation failed: {error}") from error
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment_of(run),
            start_new_session=True,
        )
    try:
        server = Running(port)
        wait_until_ready(process, server.url + PEERS_READY, log, START_TIMEOUT_S)
        yield server
    finally:
        stop(process)


def check_vectors(server: Running, texts: Sequence[str], expected: Floats) -> None:
    """A fast answer to another question is no lead."""
    for text, vector in zip(texts, expected, strict=False):
        body = {"model": MODEL, "input": text}
        answer = httpx.post(server.url + PATH, json=body, timeout=ANSWER_TIMEOUT_S)
        if answer.status_code != 200:
            raise WorkerFailed(f"it answered {answer.status_code}: {answer.text[:200]}")
        found = np.array(answer.json()["data"][0]["embedding"])
        cosine = float(found @ vector / np.linalg.norm(found) / np.linalg.norm(vector))
        if cosine < SAME_VECTORS:
            raise WorkerFailed(f"its vectors are others (cosine {cosine:.4f}): {text[:60]!r}")


def drive(server: Running, bodies: Path, connections: int, seconds: int) -> Figures:
    """Closed loops over so many connections: each sends when its last request was answered."""
    program = shutil.which("wrk")
    if program is None:
        raise WorkerFailed("wrk is not installed; make setup-tools installs it")
    command = [program, "--threads", "1", "--connections", str(connections)]
    command += ["--duration", f"{seconds}s", "--timeout", f"{ANSWER_TIMEOUT_S}s"]
    command += ["--script", str(WORKERS / SCRIPT), f"http://{HOST}:{server.port}{PATH}"]
    done = subprocess.run(
        [*command, "--", str(bodies)], capture_output=True, text=True, check=False, env=os.environ
    )
    if done.returncode != 0:
        raise WorkerFailed(f"wrk ended with status {done.returncode}: {done.stderr[-300:]}")
    return read_figures(done.stdout)


def read_figures(output: str) -> Figures:
    """The figures in the last line of wrk's output. Raises `WorkerFailed` if requests failed."""
    found: dict[str, float] = json.loads(output.strip().splitlines()[-1])
    if found["errors"]:
        raise WorkerFailed(f"{found['errors']} of {found['requests']} requests failed")
    return {
        "requests/s": found["requests"] / found["seconds"],
        "p50" + MILLISECONDS: found["p50_ms"],
        "p99" + MILLISECONDS: found["p99_ms"],
    }


def describe(contender: Contender, run: Run) -> dict[str, Any]:
    """Its versions and settings; a peer's are asked of its own environment."""
    if contender.is_ours:
        packages = ("onnxruntime-gpu", "uvicorn", "ray")
        versions = ", ".join(f"{name} {version(name)}" for name in packages)
        return {
            "name": contender.name,
            "versions": versions,
            "settings": " ".join(["anatomy serve", MODEL, *contender.arguments]),
        }
    python, *_ = command_of(contender, run)
    script = "from importlib.metadata import version; print(version('infinity-emb'))"
    said = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    engine, precision = contender.arguments[-2:]
    return {
        "name": contender.name,
        "versions": f"infinity-emb {said.stdout.strip()}",
        "settings": f"engine {engine}, {precision}",
    }
