"""How cost grows: with a text's length, texts in a request, context, and models in a process."""

import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop
from pydantic import TypeAdapter

from loadtests.abuse.process import holding_of
from loadtests.http_load import LoadResult, Request, drive, encode_post
from loadtests.machine import Machine, this_machine
from loadtests.service_process import HOST, Running, serve

PREFIX = "growth-"
LENGTHS = (8, 16, 32, 64, 128, 256)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
BATCH_TOKENS = 32
CONTEXTS = (16, 64, 256, 512, 1024, 1900)
CONTEXT_ANSWER = 16
CONTEXT_PROMPTS = 2
MODELS = (1, 2, 4, 8)
MODEL_TOKENS = 32
CONNECTIONS = 16
WORD = "time "
SPECIAL_TOKENS = 2
TOKEN_ID = 1000


@dataclass(frozen=True, slots=True)
class Point:
    """At one place of the axis: figures by their unit."""

    at: int
    figures: dict[str, float]


@dataclass(frozen=True, slots=True)
class Growth:
    """One axis. `settings` says what was asked of what."""

    machine: Machine
    subject: str
    title: str
    axis: str
    settings: str
    points: tuple[Point, ...]


def text_of(tokens: int) -> str:
    """A text of so many of minilm's tokens, those at its ends counted: the words don't matter."""
    return (WORD * (tokens - SPECIAL_TOKENS)).strip()


def embedding(texts: Sequence[str], model: str = "minilm") -> Request:
    body = {"model": model, "input": list(texts), "encoding_format": "base64"}
    return Request("embeddings", encode_post("/v1/embeddings", HOST, body))


def closed(
    service: Running, requests: Sequence[Request], connections: int, seconds: float
) -> LoadResult:
    """A closed loop, after a short one that doesn't count."""
    for length in (min(1.0, seconds), seconds):
        result = uvloop.run(
            drive(HOST, service.port, requests, connections=connections, seconds=length)
        )
        if result.refused or not result.answered:
            raise SystemExit(f"{service.url} answered {result.refused or 'nothing'}")
    return result


def by_length(service: Running, seconds: float) -> Growth:
    points: list[Point] = []
    for tokens in LENGTHS:
        rate = closed(service, [embedding([text_of(tokens)])], CONNECTIONS, seconds).requests_per_s
        points.append(Point(tokens, {"texts/s": rate, "tokens/s": rate * tokens}))
    return growth("length", "A text's length", "tokens of a text",
                  f"minilm, a text a request, {CONNECTIONS} connections", points)  # fmt: skip


def by_batch(service: Running, seconds: float) -> Growth:
    points: list[Point] = []
    for texts in BATCHES:
        result = closed(service, [embedding([text_of(BATCH_TOKENS)] * texts)], 1, seconds)
        rate = result.requests_per_s
        points.append(Point(texts, {"texts/s": rate * texts, "ms a request": 1000 / rate}))
    return growth("batch", "Texts in a request", "texts in a request",
                  f"minilm, texts of {BATCH_TOKENS} tokens, one connection", points)  # fmt: skip


def by_context(service: Running) -> Growth:
    points: list[Point] = []
    for tokens in CONTEXTS:
        # Prompts that begin apart: one that begins like an earlier one would not be read again.
        prompts = [[TOKEN_ID + tokens + turn] + [TOKEN_ID] * (tokens - 1)
                   for turn in range(CONTEXT_PROMPTS)]  # fmt: skip
        rows = [row for prompt in prompts for row in one_completion(service, prompt).answered]
        firsts = [row.first_token_s for row in rows if row.first_token_s is not None]
        each = [s for row in rows if (s := row.time_per_output_token_s) is not None]
        points.append(
            Point(
                tokens,
                {
                    "ms to the first token": statistics.median(firsts) * 1000,
                    "ms a token": statistics.median(each) * 1000,
                },
            )
        )
    return growth("context", "Context", "tokens of the prompt",
                  f"smollm2, one stream of {CONTEXT_ANSWER} tokens at a time", points)  # fmt: skip


def one_completion(service: Running, prompt: list[int]) -> LoadResult:
    body = {"model": "smollm2", "prompt": prompt, "max_tokens": CONTEXT_ANSWER, "temperature": 0,
            "ignore_eos": True, "logprobs": 0, "stream": True}  # fmt: skip
    request = Request("completion", encode_post("/v1/completions", HOST, body), streams=True)
    # The first request begins before the time is over, and is the only one.
    result = uvloop.run(drive(HOST, service.port, [request], connections=1, seconds=1e-3))
    if result.refused:
        raise SystemExit(f"a completion of {len(prompt)} tokens: {result.rows[0]}")
    return result


def by_models(seconds: float, report: Callable[[str], None]) -> Growth:
    """So many models of their own in one process, each asked in its turn."""
    points: list[Point] = []
    for count in MODELS:
        names = [f"m{number}" for number in range(count)]
        models = [{"source": "minilm", "name": name} for name in names]
        config = {"groups": [{"name": "encoders", "models": models}]}
        report(f"{count} models …")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "groups.yaml"
            file.write_text(json.dumps(config))  # JSON is YAML
            arguments = ("--config", str(file), "--plain")
            with serve(arguments, log=Path(folder) / "log") as service:
                requests = [embedding([text_of(MODEL_TOKENS)], name) for name in names]
                rate = closed(service, requests, CONNECTIONS, seconds).requests_per_s
                held = holding_of(service.process_id or 0)
        points.append(
            Point(
                count,
                {"texts/s": rate, "MiB of its own": (held.own_bytes or 0) / 2**20},
            )
        )
    return growth("models", "Models in a process", "models",
                  f"minilm under several names, texts of {MODEL_TOKENS} tokens, each model in its "
                  f"turn, {CONNECTIONS} connections", points)  # fmt: skip


def growth(subject: str, title: str, axis: str, settings: str, points: Sequence[Point]) -> Growth:
    return Growth(this_machine(), subject, title, axis, settings, tuple(points))


def read_all(folder: Path) -> list[Growth]:
    files = sorted(folder.glob(f"{PREFIX}*.json"))
    return [TypeAdapter(Growth).validate_json(path.read_bytes()) for path in files]


def write(found: Growth, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{PREFIX}{found.subject}.json"
    path.write_bytes(TypeAdapter(Growth).dump_json(found, indent=1) + b"\n")
    return path
