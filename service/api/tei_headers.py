"""Headers of text-embeddings-inference's answers: what a request took, and what was read for it."""

from service.api.exchange import Exchange
from service.messages import Inputs


def compute_headers(exchange: Exchange, total_s: float) -> dict[str, str]:
    """What a request took, in whole milliseconds, and how much of it there was."""
    timings = exchange.timings
    seconds = {
        "x-compute-time": total_s,
        "x-total-time": total_s,
        "x-tokenization-time": timings.get("tokenize", 0.0),
        "x-queue-time": timings.get("queue", 0.0),
        "x-inference-time": timings.get("run", 0.0),
    }
    headers = {name: str(round(value * 1000)) for name, value in seconds.items()}
    counts = {f"x-compute-{what}": str(count) for what, count in exchange.compute.items()}
    return headers | counts


def note_compute(exchange: Exchange, inputs: Inputs, characters: int) -> None:
    """How much was read, for the headers."""
    exchange.compute = {"characters": characters, "tokens": inputs.tokens}
