"""A client of the service: sync and async, typed, with retries, streams and batches of any size.

What is sent and how an answer is read is said once (`calls.py`); `Client` and `AsyncClient` differ
in how they wait, and `bar.py` shows how far a large batch is. Other clients (openai, cohere, …)
work as well: this one needs httpx alone.
"""

from service.client.blocking import Client
from service.client.calls import (
    Called,
    Classified,
    Entity,
    Ranked,
    Retries,
    ServiceError,
    StreamCut,
    Text,
)
from service.client.concurrent import AsyncClient

__all__ = [
    "AsyncClient",
    "Called",
    "Classified",
    "Client",
    "Entity",
    "Ranked",
    "Retries",
    "ServiceError",
    "StreamCut",
    "Text",
]
