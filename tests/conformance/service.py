"""The service that clients are tried on, and what it answers to a request without any client.

It wants a key, runs two generations at a time and lets none wait, so that each client meets 401
and 429.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx

KEY = "sk-anatomy-conformance"
SETTINGS = {"ANATOMY_SLOTS": "2", "ANATOMY_MAX_QUEUE_REQUESTS": "0"}
TIMEOUT_S = 60.0

TEXTS = ["Time flies like an arrow.", "Fruit flies like a banana."]
DEFINITION = "a domesticated animal that barks"
QUESTION = "What do insects eat?"
LONG = "time flies " * 400
"""More tokens than minilm reads."""


@dataclass(frozen=True, slots=True)
class Service:
    """A running service, as a client is told of it."""

    url: str
    key: str = KEY

    @property
    def openai_url(self) -> str:
        """What OpenAI's clients call the base URL."""
        return f"{self.url}/v1"

    def post(self, path: str, body: Any) -> Any:
        """What is answered, without a client in between."""
        headers = {"authorization": f"Bearer {self.key}"}
        answer = httpx.post(self.url + path, json=body, headers=headers, timeout=TIMEOUT_S)
        return answer.raise_for_status().json()

    def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        """The embedding of each of `texts`."""
        return self.post("/embed", {"inputs": list(texts)})

    def completion(self, prompt: str, max_tokens: int) -> str:
        """The greedy continuation."""
        body = {"model": "smollm2", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
        return self.post("/v1/completions", body)["choices"][0]["text"]

    def answer(self, question: str, max_tokens: int) -> str:
        """The greedy answer of the chat model."""
        messages = [{"role": "user", "content": question}]
        body = {"model": "smollm2", "messages": messages, "temperature": 0}
        found = self.post("/v1/chat/completions", body | {"max_tokens": max_tokens})
        return found["choices"][0]["message"]["content"]

    def refusals(self) -> float:
        """How many requests were refused because there was no room."""
        headers = {"authorization": f"Bearer {self.key}"}
        text = httpx.get(f"{self.url}/metrics", headers=headers, timeout=TIMEOUT_S).text
        counts = [
            float(line.split()[-1])
            for line in text.splitlines()
            if line.startswith("anatomy_refusals_total") and "rate_limit_exceeded" in line
        ]
        return sum(counts)

    @contextmanager
    def without_room(self) -> Iterator[None]:
        """Both slots are taken by long stories until the block ends."""
        body = {"model": "smollm2", "prompt": "Once", "max_tokens": 2000, "ignore_eos": True}
        streams = body | {"stream": True, "n": 2}
        headers = {"authorization": f"Bearer {self.key}"}
        with httpx.stream(
            "POST", f"{self.openai_url}/completions", json=streams, headers=headers, timeout=60
        ) as answer:
            answer.raise_for_status()
            # Held until the end: the answer is closed with its iterator.
            pieces = answer.iter_bytes()
            next(pieces)
            yield


@contextmanager
def started(models: Sequence[str], folder: Path) -> Iterator[Service]:
    """`anatomy serve --plain` with `models` until the block ends; its log is in `folder`."""
    # The clients' environment has no service: it is told the address of one.
    from loadtests.service_process import serve

    keys = folder / "keys.txt"
    keys.write_text(f"conformance {sha256(KEY.encode()).hexdigest()}\n")
    settings = SETTINGS | {"ANATOMY_API_KEYS_FILE": str(keys)}
    with serve([*models, "--plain"], log=folder / "service.log", settings=settings) as running:
        yield Service(running.url)
