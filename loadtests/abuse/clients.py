"""Requests as clients send them on good days and on bad ones, and what each has to get.

A kind is what is sent, how the client behaves, and the statuses that are right for it.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from loadtests.http_load import encode_post
from loadtests.service_process import HOST


class Behaviour(StrEnum):
    """What a client does with its connection."""

    WHOLE = "reads the whole answer"
    LEAVES = "closes its connection while the answer is being made"
    READS_SOME = "reads the beginning of a stream and closes its connection"
    SENDS_HALF = "closes its connection in the middle of its request"


@dataclass(frozen=True, slots=True)
class Material:
    """What requests are made of."""

    chance: random.Random
    texts: Sequence[str]

    def text(self, characters: int) -> str:
        return self.chance.choice(self.texts)[:characters]


@dataclass(frozen=True, slots=True)
class Kind:
    """`weight` is how often it comes beside the others; `statuses` are what it may get."""

    name: str
    weight: int
    make: Callable[[Material], bytes]
    statuses: frozenset[int]
    behaviour: Behaviour = Behaviour.WHOLE


def embed(of: Material) -> bytes:
    inputs = [of.text(200) for _ in range(of.chance.randint(1, 2))]
    return post("/v1/embeddings", {"model": "minilm", "input": inputs})


def classify(of: Material) -> bytes:
    return post("/v1/classify", {"model": "supersense", "input": of.text(200)})


def chat(of: Material, **fields: Any) -> bytes:
    body = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": of.text(40)}],
        "max_tokens": of.chance.randint(1, 6),
        "temperature": 1,
    }
    return post("/v1/chat/completions", body | fields)


def stream(of: Material) -> bytes:
    return chat(of, stream=True, max_tokens=100, ignore_eos=True)


def wrong_field(of: Material) -> bytes:
    faults = [{"input": None}, {"input": [1, "a"]}, {"input": []}, {"dimensions": -1}, {"no": 1}]
    return post(
        "/v1/embeddings", {"model": "minilm", "input": of.text(400)} | of.chance.choice(faults)
    )


def too_long(of: Material) -> bytes:
    words = "word " * of.chance.randint(300, 1500)
    return post("/v1/embeddings", {"model": "minilm", "input": words})


def pathological(of: Material) -> bytes:
    text = of.chance.choice("_ a\N{COMBINING ACUTE ACCENT}") * 50_000
    return post("/v1/embeddings", {"model": "minilm", "input": text})


def not_json(of: Material) -> bytes:
    bodies = [b"{", b"[" * 50_000, b"\xff\xfe", b'{"a": NaN}', b'"\\ud800"']
    return raw_post("/v1/completions", of.chance.choice(bodies))


def unknown_route(of: Material) -> bytes:
    return post(f"/v1/{of.chance.getrandbits(64):x}", {})


def unknown_model(of: Material) -> bytes:
    return post("/v1/embeddings", {"model": f"m{of.chance.getrandbits(64):x}", "input": "a"})


def oversized(of: Material) -> bytes:
    head = "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    size = 2 ** of.chance.randint(24, 60)
    return f"{head}Content-Length: {size}\r\n\r\n".encode() + b" " * 1000


def not_http(of: Material) -> bytes:
    return of.chance.randbytes(of.chance.randint(20, 2000)) + b"\r\n\r\n"


def post(path: str, body: object) -> bytes:
    return encode_post(path, HOST, body)


def raw_post(path: str, payload: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(payload) + payload


OK, BAD, LOST, LARGE = frozenset({200}), frozenset({400}), frozenset({404}), frozenset({413})
ANY = frozenset[int]()
"""The client is gone before there is a status."""

KINDS: tuple[Kind, ...] = (
    Kind("embeddings", 15, embed, OK),
    Kind("classification", 10, classify, OK),
    Kind("a short chat", 4, chat, OK),
    Kind("embeddings, the client leaves", 8, embed, ANY, Behaviour.LEAVES),
    Kind("a stream, the client leaves in its middle", 3, stream, OK, Behaviour.READS_SOME),
    Kind("a chat, the client leaves before the answer", 2, chat, ANY, Behaviour.LEAVES),
    Kind("half a request", 10, embed, ANY, Behaviour.SENDS_HALF),
    Kind("a wrong field", 10, wrong_field, BAD),
    Kind("more tokens than the model takes", 5, too_long, BAD),
    Kind("50,000 characters that tokenizers hate", 4, pathological, BAD),
    Kind("a body that is no JSON", 10, not_json, BAD),
    Kind("an unknown route", 5, unknown_route, LOST),
    Kind("an unknown model", 5, unknown_model, LOST),
    Kind("a body of 16 MiB to an EiB, announced", 4, oversized, LARGE),
    Kind("bytes that are no HTTP", 5, not_http, BAD),
)
