"""Texts that are longer than a model takes, read in windows whose vectors are averaged."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model_core.tokenization import Tokenizer
from service.engines.pooling import unit
from service.errors import TooManyTokens
from service.messages import Floats, TokenIds

UNIT_TOLERANCE = 1e-2
"""How far from 1 the length of a vector of length 1 is at most, in any precision."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A text's tokens: those that stand in every window, before and behind, and its own.

    What stands before is a model's [CLS] and the prompt that goes before every text.
    """

    before: TokenIds
    own: TokenIds
    behind: TokenIds


@dataclass(frozen=True, slots=True)
class Chunked:
    """Windows of several texts, one after the other.

    `chunks` says how many each text has, `weights` how many of a text's own tokens each window,
    `names` what the request calls the text of each, for errors.
    """

    windows: list[TokenIds]
    chunks: list[int]
    weights: list[int]
    names: Sequence[str] = ()

    @property
    def tokens(self) -> int:
        """Of all windows together, which is what the model reads."""
        return sum(map(len, self.windows))


def parts_of(
    tokenizer: Tokenizer, item: str | TokenIds, prompt: str, most: int, *, field: str
) -> Parts:
    """A text's tokens, or token ids, by where they stand. Raises `TooManyTokens` beyond `most`."""
    token_ids = tokenizer.encode(prompt + item) if isinstance(item, str) else item
    if len(token_ids) > most:
        raise TooManyTokens(
            f"{field} has {len(token_ids)} tokens; at most {most} are accepted in one request",
            field=field,
        )
    if isinstance(item, str) and prompt:
        return parts_of_text(item, tokenizer, prompt)
    return parts_of_ids(token_ids, tokenizer)


def parts_of_text(text: str, tokenizer: Tokenizer, prompt: str) -> Parts:
    """A text's tokens, told from those that frame it and those of the prompt before it."""
    before: TokenIds = []
    own: TokenIds = []
    behind: TokenIds = []
    for span in tokenizer.spans(prompt + text):
        if span.start is None:
            (behind if own else before).append(span.token_id)
        else:
            (own if span.start >= len(prompt) else before).append(span.token_id)
    return Parts(before, own, behind)


def parts_of_ids(token_ids: TokenIds, tokenizer: Tokenizer) -> Parts:
    """The same of token ids, which the client framed or didn't."""
    before, behind = tokenizer.frame_of(token_ids)
    end = len(token_ids) - behind
    return Parts(token_ids[:before], token_ids[before:end], token_ids[end:])


def windows_of(parts: Parts, limit: int, overlap: int) -> list[TokenIds]:
    """Windows of at most `limit` tokens, whose neighbours share `overlap` of the text's own.

    A text that fits is a window. `limit` leaves room for more than `overlap` tokens.
    """
    room = limit - len(parts.before) - len(parts.behind)
    if len(parts.own) <= room:
        return [[*parts.before, *parts.own, *parts.behind]]
    step = room - overlap
    starts = range(0, len(parts.own) - overlap, step)
    return [[*parts.before, *parts.own[at : at + room], *parts.behind] for at in starts]


def chunked(texts: Sequence[Parts], limit: int, overlap: int) -> Chunked:
    """The windows of `texts`."""
    windows: list[TokenIds] = []
    chunks: list[int] = []
    weights: list[int] = []
    for parts in texts:
        found = windows_of(parts, limit, overlap)
        frame = len(parts.before) + len(parts.behind)
        windows += found
        chunks.append(len(found))
        weights += [max(1, len(window) - frame) for window in found]
    return Chunked(windows, chunks, weights)


def averaged(vectors: Floats, found: Chunked) -> Floats:
    """A vector for each text [N, D] of those of all windows [W, D].

    The mean of a text's windows, weighted by how many of its tokens are in each; of length 1 where
    those of the windows are. A text of one window has that one's, as it is.
    """
    normalises = bool(np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=UNIT_TOLERANCE))
    rows: list[Floats] = []
    at = 0
    for count in found.chunks:
        part = vectors[at : at + count]
        if count == 1:
            rows.append(part[0])
        else:
            mean = np.average(part, axis=0, weights=found.weights[at : at + count])
            mean = mean.astype(np.float32)
            rows.append(unit(mean[None])[0] if normalises else mean)
        at += count
    return np.stack(rows)
