"""What a model would say next, and what each state of its stream would, read as the last one."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from model_core.tokenization import Tokenizer
from service.errors import InvalidRequest
from service.inspection.graphs import Array, InspectionGraphs
from service.inspection.inquiry import Inquiry

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
    graphs: InspectionGraphs, tokenizer: Tokenizer, states: Array, places: Sequence[int], top: int
) -> list[dict[str, Any]]:
    """The likeliest tokens after each of `places`; `states` [states, tokens, E]."""
    ids, probs = graphs.likeliest(states[-1, list(places)], top)
    return [
        {
            "position": place,
            "tokens": [
                {"id": token, "text": tokenizer.token_text(token), "probability": prob}
                for token, prob in zip(row.tolist(), likely.tolist(), strict=True)
            ],
        }
        for place, row, likely in zip(places, ids, probs, strict=True)
    ]


def logit_lens(
    graphs: InspectionGraphs,
    tokenizer: Tokenizer,
    states: Array,
    chosen: tuple[list[int], list[int]],
    top: int,
) -> tuple[dict[str, Any], dict[str, Array]]:
    """The same of each of the `chosen` states and places, as `lens_places` gives them."""
    asked = states[np.ix_(*chosen)]
    ids, probs = graphs.likeliest(asked.reshape(-1, asked.shape[-1]), top)
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
