"""What a vocabulary is, wherever it was read from.

Folders are read by `huggingface_vocabularies.py`, GGUF files by `gguf_vocabularies.py`; encoding
and decoding are `tokenization.py`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend


class TokenizationError(Exception):
    """A text or a vocabulary that can't be used; the message names the position or the key."""


@dataclass(frozen=True)
class SpecialTokens:
    """The tokens with a role. `texts` has them as chat templates call them: "bos_token", …"""

    bos_id: int | None
    eos_ids: frozenset[int]
    pad_id: int | None
    texts: Mapping[str, str]


class Marker(StrEnum):
    """Which language's token a text to be translated bears, and where.

    Models that mark the source have the target's token forced as the first of the answer.
    """

    SOURCE_FIRST = "source_first"
    SOURCE_LAST = "source_last"
    TARGET_FIRST = "target_first"


@dataclass(frozen=True)
class Languages:
    """The languages of a translation model.

    `ids` are token ids by the model's own codes ("de_DE", "deu_Latn", "de", "deu"). `source` is
    the language that texts count as unless said otherwise; None where texts name the target.
    """

    ids: Mapping[str, int]
    marker: Marker
    source: str | None


@dataclass(frozen=True)
class Listed:
    """Ids that come from a list of texts, not from the model that cuts text into pieces.

    Pieces that aren't in the list have ids from `begin` on: they count as `unk_id`. What the model
    doesn't know may be in the list all the same: texts of the list that the model never makes are
    in the backend behind a space.
    """

    begin: int
    unk_id: int


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer of the library, and what the library has no place for.

    `target` is the vocabulary of answers, where that isn't the one of questions.
    """

    backend: Backend
    special: SpecialTokens
    chat_template: str | None
    languages: Languages | None = None
    listed: Listed | None = None
    target: Backend | None = None


def add_tokens(backend: Backend, texts: Sequence[str | AddedToken], *, special: bool) -> None:
    """Have `texts` kept whole wherever they are written; special ones are skipped in decoding."""
    tokens = [
        AddedToken(text, special=special, normalized=False) if isinstance(text, str) else text
        for text in texts
    ]
    add = backend.add_special_tokens if special else backend.add_tokens  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    add(tokens)
