"""What a model would say next, and what each state of its stream would, read as the last one."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from model_core.tokenization import Tokenizer
from service.errors import InvalidRequest
from service.inspection.graphs import Array, InspectionGraphs, likeliest
from service.inspection.inquiry import Inquiry
from service.messages import Floats

TEMPERATURES = tuple(round(0.1 * step, 1) for step in range(1, 21))
"""At which the weight of the tokens that aren't listed is told, so that whoever shows the listed
ones at another temperature needs no other logits."""
MOST_STATES = 4096
"""States that are read as logits for one inquiry: each costs as much as a token's own logits."""


def lens_places(inquiry: Inquiry, tokens: int, layers: int) -> tuple[list[int], list[int]]:
    """The states that the logit lens reads (0 is the embeddings, n what layer n - 1 leaves), and
    the positions. Raises `InvalidRequest` where they are too many."""
    wanted = inquiry.layers
    states = [0] if wanted is None else []
    states += [layer + 1 for layer in range(layers) if wanted is None or layer in wanted]
    places = list(range(tokens)) if inquiry.positions is None else list(inquiry.positions)
    if len(states) * len(places) > MOST_STATES:
        raise InvalidRequest(
            f"positions: the logit lens would read {len(states) * len(places)} states; at most "
            f"{MOST_STATES} are read. Ask for fewer positions or layers",
            field="positions",
        )
    return states, places


def next_tokens(
    graphs: InspectionGraphs,
    tokenizer: Tokenizer,
    states: Array,
    places: Sequence[int],
    top: int,
    go_on: Callable[[], None],
) -> list[dict[str, Any]]:
    """The likeliest tokens after each of `places`, and what weight the others have; `states`
    [states, tokens, E]. `go_on` is called between places, and may raise."""
    found: list[dict[str, Any]] = []
    for place in places:
        go_on()
        # One by one: a row is as wide as the vocabulary, and the lens runs in blocks anyway.
        logits = graphs.logits(states[-1, place])
        ids, probs = likeliest(logits[None], top)
        tokens = [
            {
                "id": token,
                "text": tokenizer.token_text(token),
                "logit": float(logits[token]),
                "probability": prob,
                "special": tokenizer.is_special(token),
                "ends": token in tokenizer.eos_ids,
            }
            for token, prob in zip(ids[0].tolist(), probs[0].tolist(), strict=True)
        ]
        rest = np.delete(logits, ids[0])
        found.append({"position": place, "tokens": tokens, "rest": rest_of(rest, probs)})
    return found


def rest_of(logits: Floats, probs: Floats) -> dict[str, Any]:
    """What is told of the tokens that aren't listed; `probs` are of those that are."""
    temperatures = TEMPERATURES if logits.size else ()
    return {
        "tokens": logits.size,
        "probability": max(0.0, 1.0 - float(probs.sum(dtype=np.float64))),
        "temperatures": list(temperatures),
        "log_sums": [log_sum(logits / temperature) for temperature in temperatures],
    }


def log_sum(logits: Floats) -> float:
    """log Σ exp of `logits` [N], N at least 1."""
    highest = float(logits.max())
    return highest + float(np.log(np.exp(logits - highest).sum()))


def logit_lens(
    graphs: InspectionGraphs,
    tokenizer: Tokenizer,
    states: Array,
    chosen: tuple[list[int], list[int]],
    top: int,
    go_on: Callable[[], None],
) -> tuple[dict[str, Any], dict[str, Array]]:
    """The same of each of the `chosen` states and places, as `lens_places` gives them; `go_on` is
    called between runs, and may raise."""
    asked = states[np.ix_(*chosen)]
    ids, probs = graphs.likeliest(asked.reshape(-1, asked.shape[-1]), top, go_on)
    shape = (*asked.shape[:2], ids.shape[1])
    told = {
        "states": chosen[0],
        "positions": chosen[1],
        "texts": {str(token): tokenizer.token_text(token) for token in np.unique(ids).tolist()},
    }
    return told, {
        "logit_lens.ids": ids.reshape(shape),
        "logit_lens.probabilities": probs.reshape(shape),
    }
