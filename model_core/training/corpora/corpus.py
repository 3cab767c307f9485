"""A corpus: rows in parts that share nothing, written as JSON lines with an account of them."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from model_core.training.tables import Row

ACCOUNT_FILE: Final = "corpus.json"
TRAIN: Final = "train"
"""The part that is learned from; all others are held out."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Rows by the names of their parts, `train` first; where they come from, on what terms, and
    what was left out."""

    parts: Mapping[str, Sequence[Row]]
    source: str
    licence: str
    split_by: str
    left_out: Mapping[str, int]


def place_of(text: str) -> float:
    """Where a text falls between 0 and 1, by its digest: the same every time."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def some_of(rows: Iterable[Row], key: str, limit: int | None) -> list[Row]:
    """At most `limit` rows, chosen by a digest of the column `key`, in their order."""
    every = list(rows)
    if limit is None or len(every) <= limit:
        return every
    ranked = sorted(range(len(every)), key=lambda index: place_of(str(every[index][key])))
    return [every[index] for index in sorted(ranked[:limit])]


def write_corpus(corpus: Corpus, folder: Path) -> dict[str, Any]:
    """A `.jsonl` file a part and the account into `folder`, which is made; returns the account."""
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[str, Any] = {}
    for name, rows in corpus.parts.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        counts[name] = {"rows": len(rows), "sha256": hashlib.sha256(lines.encode()).hexdigest()}
    account = {
        "source": corpus.source,
        "licence": corpus.licence,
        "split_by": corpus.split_by,
        "parts": counts,
        "left_out": dict(corpus.left_out),
    }
    text = json.dumps(account, indent=1, ensure_ascii=False) + "\n"
    (folder / ACCOUNT_FILE).write_text(text, encoding="utf-8")
    return account
