"""SentencePiece's model files: pieces, scores, and how text is made normal before they apply.

Read from the protocol buffer's bytes by field number, so that neither SentencePiece nor protobuf
is needed. Cutting text by a model is `subwords.py`'s.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, TypeAlias

from model_core.vocabularies import TokenizationError

# Wire types of protocol buffers.
VARINT: Final = 0
BYTES_8: Final = 1
LENGTH_DELIMITED: Final = 2
BYTES_4: Final = 5

Fields: TypeAlias = Mapping[int, tuple[str, type[int] | type[bytes], Callable[[Any], Any]]]


class Algorithm(IntEnum):
    """How a model cuts text, by sentencepiece_model.proto's numbers."""

    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


class PieceKind(IntEnum):
    """What a piece is for. Only normal, user-defined and unused ones occur in text."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry of a model; its place in the list is its id."""

    text: str = ""
    score: float = 0.0
    kind: PieceKind = PieceKind.NORMAL


@dataclass(frozen=True, slots=True)
class SentencePieces:
    """A model. The defaults are those of sentencepiece_model.proto.

    `charsmap` is a table of replacements in SentencePiece's compiled form, empty for none;
    `adds_prefix`: a text begins with a space mark of its own; `squeezes`: runs of spaces count as
    one, spaces at both ends don't count; `suffixes`: the mark ends a word instead of beginning it.
    """

    pieces: tuple[Piece, ...]
    algorithm: Algorithm = Algorithm.UNIGRAM
    byte_fallback: bool = False
    charsmap: bytes = b""
    adds_prefix: bool = True
    squeezes: bool = True
    suffixes: bool = False
    marks_spaces: bool = True


def read_sentence_pieces(path: Path) -> SentencePieces:
    """The model in a file (`spiece.model`, `tokenizer.model`, `source.spm`, …).

    Raises `TokenizationError` naming a file that is damaged or no such model.
    """
    try:
        parsed = _parse_model(path.read_bytes())
    except (OSError, ValueError, IndexError, struct.error) as error:
        raise TokenizationError(f"{path} is not a SentencePiece model: {error}") from error
    if not parsed.pieces:
        raise TokenizationError(f"{path} is not a SentencePiece model: it has no pieces")
    return parsed


def _text(value: bytes) -> str:
    return value.decode("utf-8")


def _float(value: bytes) -> float:
    return struct.unpack("<f", value)[0]


# By field number: our name, the type on the wire, and what makes a value of it.
PIECE_FIELDS: Final[Fields] = {
    1: ("text", bytes, _text),
    2: ("score", bytes, _float),
    3: ("kind", int, PieceKind),
}
TRAINER_FIELDS: Final[Fields] = {
    3: ("algorithm", int, Algorithm),
    24: ("suffixes", int, bool),
    35: ("byte_fallback", int, bool),
}
NORMALIZER_FIELDS: Final[Fields] = {
    2: ("charsmap", bytes, bytes),
    3: ("adds_prefix", int, bool),
    4: ("squeezes", int, bool),
    5: ("marks_spaces", int, bool),
}
MODEL_FIELDS: Final[Fields] = {
    1: ("piece", bytes, lambda value: Piece(**dict(_parse(value, PIECE_FIELDS)))),
    2: ("options", bytes, lambda value: dict(_parse(value, TRAINER_FIELDS))),
    3: ("options", bytes, lambda value: dict(_parse(value, NORMALIZER_FIELDS))),
}


def _parse_model(data: bytes) -> SentencePieces:
    pieces: list[Piece] = []
    options: dict[str, Any] = {}
    for name, value in _parse(data, MODEL_FIELDS):
        if name == "piece":
            pieces.append(value)
        else:
            options |= value
    return SentencePieces(tuple(pieces), **options)


def _parse(data: bytes, fields: Fields) -> Iterator[tuple[str, Any]]:
    """The fields of interest of a message, by name."""
    for number, value in _split(data):
        if number not in fields:
            continue
        name, kind, read = fields[number]
        if not isinstance(value, kind):
            raise ValueError(f"field {number} ({name}) has the wrong type")
        yield name, read(value)


def _split(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The (number, value) of each field of a message: an int for varints, else its bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == LENGTH_DELIMITED:
            size, at = _varint(data, at)
        elif wire in (BYTES_4, BYTES_8):
            size = 4 if wire == BYTES_4 else 8
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at + size > len(data):
            raise ValueError(f"a field of {size} bytes at byte {at} of {len(data)}")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in base 128, lowest digits first, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
