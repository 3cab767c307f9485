"""Which tokens a class hangs on: what its probability loses when each is left out (Zeiler and
Fergus 2014, occlusion). Needs no gradient, and says what really happens without the token."""

from collections.abc import Callable, Sequence
from typing import Any

from service.errors import InvalidRequest
from service.inspection.graphs import InspectionGraphs
from service.inspection.sequences import TokenRow
from service.messages import Floats

MOST_TOKENS = 128
"""Of a text that has attributions: each of them is a run of the whole text."""
RUN_TOKENS = 512
"""Of the texts that run together."""


def require_short(tokens: int) -> None:
    """Raises `InvalidRequest` for a text of more tokens than are left out."""
    if tokens > MOST_TOKENS:
        raise InvalidRequest(
            f"include: attributions run the text without each of its {tokens} tokens; texts of "
            f"at most {MOST_TOKENS} have them",
            field="include",
        )


def attributions(
    graphs: InspectionGraphs,
    output: str,
    row: TokenRow,
    classes: Callable[[Floats], Floats],
    go_on: Callable[[], None],
) -> list[Floats | None]:
    """For each token the probabilities [C] of the text without it; None for what frames the text.

    `classes` makes probabilities of scores; `go_on` is called between runs, and may raise.
    """
    found: list[Floats | None] = [None] * len(row.spans)
    places = [place for place, span in enumerate(row.spans) if not span.special]
    if len(row.spans) == 1:
        return found
    together = max(1, RUN_TOKENS // len(row.spans))
    for start in range(0, len(places), together):
        go_on()
        some = places[start : start + together]
        seen = graphs.run([without(row, place) for place in some], None, [output])
        for place, probs in zip(some, classes(seen[output]), strict=True):
            found[place] = probs
    return found


def told(
    probs: Floats, others: Sequence[Floats | None], labels: Sequence[str], label: str | None
) -> dict[str, Any]:
    """What an answer says of the class `label`, or of the likeliest."""
    place = int(probs.argmax()) if label is None else labels.index(label)
    drops = [None if other is None else float(probs[place] - other[place]) for other in others]
    return {
        "method": "occlusion: what the probability loses when a token is left out",
        "label": labels[place],
        "probability": float(probs[place]),
        "drops": drops,
        "positions": [place for place, other in enumerate(others) if other is not None],
    }


def without(row: TokenRow, place: int) -> TokenRow:
    """The row with one token left out."""
    return TokenRow(
        (*row.spans[:place], *row.spans[place + 1 :]),
        (*row.texts[:place], *row.texts[place + 1 :]),
        (*row.types[:place], *row.types[place + 1 :]),
    )
