"""What well-behaved clients ask: a task each, bodies and answers as `service.client` knows them."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.http_load import Request, encode_post
from loadtests.service_process import HOST
from service.client.calls import (
    Call,
    body_of,
    chat_call,
    classify_call,
    embedding_call,
    rerank_call,
)

TEXT_CHARACTERS = 400
"""Of any text here fewer than the 256 tokens that minilm takes."""
QUERY_CHARACTERS, DOCUMENTS, DOCUMENT_CHARACTERS = 100, 8, 200
PROMPT_CHARACTERS, ANSWER_TOKENS = 400, 64


@dataclass(frozen=True, slots=True)
class Material:
    """What requests are made of: chance, texts, and the names of the models."""

    chance: random.Random
    texts: Sequence[str]
    embedder: str = "minilm"
    classifier: str = "supersense"
    generator: str = "smollm2"

    def text(self, characters: int) -> str:
        return self.chance.choice(self.texts)[:characters]


@dataclass(frozen=True, slots=True)
class Task:
    """`share` is how often it comes in the mix, `streams` whether the answer is streamed."""

    name: str
    share: int
    call: Callable[[Material], Call[Any]]
    streams: bool = False

    def body(self, call: Call[Any]) -> Mapping[str, Any]:
        return body_of(call, stream=self.streams) or {}

    def request(self, of: Material) -> Request:
        """A whole request, for the generators that write their own HTTP."""
        return self.request_of(self.call(of))

    def request_of(self, call: Call[Any]) -> Request:
        return Request(self.name, encode_post(call.path, HOST, self.body(call)), self.streams)


def embed(of: Material) -> Call[Any]:
    return embedding_call(of.embedder, [of.text(TEXT_CHARACTERS)], {})


def classify(of: Material) -> Call[Any]:
    return classify_call([of.text(TEXT_CHARACTERS)], of.classifier, {})


def rerank(of: Material) -> Call[Any]:
    documents = [of.text(DOCUMENT_CHARACTERS) for _ in range(DOCUMENTS)]
    return rerank_call(of.text(QUERY_CHARACTERS), documents, None, {})


def chat(of: Material) -> Call[Any]:
    messages = [{"role": "user", "content": of.text(PROMPT_CHARACTERS)}]
    return chat_call(of.generator, messages, {"max_tokens": ANSWER_TOKENS, "temperature": 0})


EMBEDDINGS = Task("embeddings", 8, embed)
CLASSIFICATION = Task("classification", 4, classify)
RERANK = Task("rerank", 2, rerank)
CHAT = Task("chat", 1, chat, streams=True)
TASKS: Mapping[str, Task] = {task.name: task for task in (EMBEDDINGS, CLASSIFICATION, RERANK, CHAT)}


def mixed(of: Material, tasks: Sequence[Task] = tuple(TASKS.values())) -> Iterator[Task]:
    """Tasks in random order, each as often as its share says."""
    shares = [task.share for task in tasks]
    while True:
        yield of.chance.choices(tasks, shares)[0]
