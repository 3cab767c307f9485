"""The two parts of a run's data: what is learned from, and what it is measured on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_core.tokenization import Tokenizer
from model_core.training.errors import TrainingError
from model_core.training.runs import DataSection
from model_core.training.tables import Column, Row, Table, read_table, split_by_digest

MANY: Final = 100
"""From so many texts on, whole texts are held out; of fewer, the end of each."""
AT_ONCE: Final = 1_000
"""Texts that are tokenized together."""

Tokens = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Parts:
    """Rows to train on and rows to validate on, and the tables they come from."""

    train: Sequence[Row]
    validation: Sequence[Row]
    tables: Sequence[Table]


def read_parts(data: DataSection, columns: Sequence[Column], key: str) -> Parts:
    """Both parts; without a file for validation, rows are held out by a digest of column `key`.

    Raises `TrainingError` where a part has nothing in it.
    """
    table = read_table(data.train, columns)
    if data.validation is not None:
        other = read_table(data.validation, columns)
        return Parts(table.rows, other.rows, (table, other))
    train, validation = split_by_digest(table.rows, key, data.validation_share)
    for rows, name in ((train, "train"), (validation, "validate")):
        if not rows:
            raise TrainingError(
                f"of the {len(table.rows)} rows of {data.train} none is left to {name} on; name a "
                "file with --validation, or set data.validation_share"
            )
    return Parts(train, validation, (table,))


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts to train on and texts to validate on, and the tables they come from."""

    train: Sequence[str]
    validation: Sequence[str]
    tables: Sequence[Table]


def read_corpus(data: DataSection, column: Column) -> Corpus:
    """Texts for language modelling. Without a file for validation, texts are held out as in
    `read_parts`; of fewer than a hundred texts, the last lines of each."""
    table = read_table(data.train, [column])
    texts = [row[column.name] for row in table.rows]
    if data.validation is None and len(texts) < MANY:
        cuts = [end_of_training(text, data.validation_share) for text in texts]
        train = [text[:cut] for text, cut in zip(texts, cuts, strict=True)]
        held_out = [text[cut:] for text, cut in zip(texts, cuts, strict=True)]
        return Corpus(train, [text for text in held_out if text.strip()], (table,))
    parts = read_parts(data, [column], column.name)
    train, validation = (
        [row[column.name] for row in rows] for rows in (parts.train, parts.validation)
    )
    return Corpus(train, validation, parts.tables)


def end_of_training(text: str, share: float) -> int:
    """Where the last `share` of a text begins: at the line that is nearest before it."""
    place = int(len(text) * (1 - share))
    return text.rfind("\n", 0, place) + 1 or place


def tokenize(
    tokenizer: Tokenizer, texts: Sequence[str], end: int | None, *, special_tokens: bool
) -> Tokens:
    """All texts in one sequence, each with the token `end` behind it, if any; `special_tokens`
    frames each as the tokenizer does."""
    pieces: list[Tokens] = []
    for place in range(0, len(texts), AT_ONCE):
        some = texts[place : place + AT_ONCE]
        for ids in tokenizer.encode_batch(some, special_tokens=special_tokens):
            is_open = end is not None and (not ids or ids[-1] != end)
            pieces.append(np.array([*ids, *([end] if is_open else [])], np.int32))
    return np.concatenate(pieces) if pieces else np.empty(0, np.int32)


def cut_blocks(tokens: Tokens, size: int, overlap: int, what: str) -> Tokens:
    """[N, size] blocks of a sequence, each beginning with the last `overlap` tokens of the one
    before it; what is left at the end is dropped.

    Raises `TrainingError` where there isn't one.
    """
    stride = size - overlap
    count = (len(tokens) - overlap) // stride
    if count < 1:
        raise TrainingError(
            f"the {what} texts have {len(tokens)} tokens in all, too few for one block of "
            f"{stride}; use more text, or a smaller data.max_tokens"
        )
    starts = np.arange(count)[:, None] * stride
    return tokens[starts + np.arange(size)]
