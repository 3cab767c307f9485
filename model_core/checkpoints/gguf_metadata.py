"""The head of a GGUF file: its metadata and where its tensors lie. No tensor is read.

Written from the format's specification rather than over the `gguf` package's reader, so that a
truncated file is refused with the name of the key or tensor it breaks at, that a vocabulary of
50,000 tokens is read in a fraction of the time, and that tokenization needs no numpy.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from model_core.checkpoints.errors import CheckpointError

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
DEFAULT_ALIGNMENT: Final = 32
# ggml's own limit; more can only be damage.
MAX_DIMENSIONS: Final = 4

STRING: Final = 8
ARRAY: Final = 9
BOOL: Final = 7
SCALARS: Final[Mapping[int, str]] = MappingProxyType(
    {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", BOOL: "?", 10: "Q", 11: "q", 12: "d"}
)


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """One tensor of the file: `shape` in row-major order, `type_id` as ggml numbers its types.

    `offset` is in bytes from the beginning of the file.
    """

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int


@dataclass(frozen=True, slots=True)
class GgufHead:
    """All that precedes the tensors' data. Arrays in `metadata` are lists."""

    metadata: Mapping[str, object]
    tensors: tuple[TensorPlace, ...]
    file_bytes: int


class _Cursor:
    """Reads forward through a buffer; going past its end is a `CheckpointError`."""

    def __init__(self, buffer: mmap.mmap, path: Path) -> None:
        self.buffer = buffer
        self.path = path
        self.position = 0
        self.reading = "the header"

    def take(self, count: int, item_bytes: int = 1) -> int:
        """Step over `count` items; returns where they begin."""
        begin = self.position
        end = begin + count * item_bytes
        if end > len(self.buffer):
            raise CheckpointError(
                f"{self.path} is truncated or corrupt: {self.reading} needs {end} bytes, "
                f"the file has {len(self.buffer)}"
            )
        self.position = end
        return begin

    def scalars(self, code: str, count: int = 1) -> tuple[int | float | bool, ...]:
        layout = f"<{count}{code}"
        begin = self.take(count, struct.calcsize(f"<{code}"))
        return struct.unpack_from(layout, self.buffer, begin)

    def integer(self, code: str) -> int:
        return int(self.scalars(code)[0])

    def string(self) -> str:
        length = self.integer("Q")
        begin = self.take(length)
        try:
            return self.buffer[begin : begin + length].decode("utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(
                f"{self.path} is corrupt: {self.reading} is not UTF-8 ({error.reason})"
            ) from error

    def value(self, type_id: int) -> object:
        if type_id == STRING:
            return self.string()
        if type_id == ARRAY:
            return self.array()
        if type_id in SCALARS:
            return self.scalars(SCALARS[type_id])[0]
        raise CheckpointError(
            f"{self.path} is corrupt: {self.reading} has the unknown value type {type_id}"
        )

    def array(self) -> list[object]:
        item_type = self.integer("I")
        count = self.integer("Q")
        if item_type in SCALARS:
            return list(self.scalars(SCALARS[item_type], count))
        if item_type != STRING:
            raise CheckpointError(
                f"{self.path}: {self.reading} is an array of the unsupported type {item_type}"
            )
        return [self.string() for _ in range(count)]


def read_gguf_head(path: Path) -> GgufHead:
    """The metadata and tensor table of a GGUF file (versions 2 and 3, little-endian).

    Raises `CheckpointError` naming the file, and the key or tensor at which it breaks.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return _parse(_Cursor(view, path))
    except (OSError, ValueError) as error:  # ValueError: an empty file can't be mapped
        raise CheckpointError(f"{path} can't be read: {error}") from error


def read_gguf_metadata(path: Path) -> Mapping[str, object]:
    """The metadata of a GGUF file: numbers, booleans, strings and lists of them."""
    return read_gguf_head(path).metadata


def _parse(cursor: _Cursor) -> GgufHead:
    magic = cursor.buffer[cursor.take(len(MAGIC)) : cursor.position]
    if magic != MAGIC:
        raise CheckpointError(f"{cursor.path} is not a GGUF file: it begins with {magic!r}")
    version = cursor.integer("I")
    if version not in VERSIONS:
        raise CheckpointError(
            f"{cursor.path} has GGUF version {version}; accepted: 2 and 3, little-endian"
        )
    tensor_count, key_count = cursor.integer("Q"), cursor.integer("Q")

    metadata: dict[str, object] = {}
    for number in range(key_count):
        cursor.reading = f"metadata key {number + 1} of {key_count}"
        key = cursor.string()
        cursor.reading = f"metadata {key!r}"
        metadata[key] = cursor.value(cursor.integer("I"))

    tensors: dict[str, TensorPlace] = {}
    for number in range(tensor_count):
        cursor.reading = f"the table entry of tensor {number + 1} of {tensor_count}"
        place = _parse_place(cursor)
        if place.name in tensors:
            raise CheckpointError(f"{cursor.path} is corrupt: it has {place.name!r} twice")
        tensors[place.name] = place

    begin = _align(cursor.position, metadata.get("general.alignment"), cursor.path)
    return GgufHead(
        metadata=metadata,
        tensors=tuple(
            TensorPlace(place.name, place.shape, place.type_id, begin + place.offset)
            for place in tensors.values()
        ),
        file_bytes=len(cursor.buffer),
    )


def _parse_place(cursor: _Cursor) -> TensorPlace:
    name = cursor.string()
    cursor.reading = f"the table entry of tensor {name!r}"
    dimensions = cursor.integer("I")
    if dimensions > MAX_DIMENSIONS:
        raise CheckpointError(
            f"{cursor.path} is corrupt: tensor {name!r} has {dimensions} dimensions, "
            f"at most {MAX_DIMENSIONS} are possible"
        )
    # ggml counts dimensions from the fastest one.
    shape = tuple(int(size) for size in reversed(cursor.scalars("Q", dimensions)))
    if 0 in shape:
        raise CheckpointError(f"{cursor.path} is corrupt: tensor {name!r} has the shape {shape}")
    return TensorPlace(name, shape, type_id=cursor.integer("I"), offset=cursor.integer("Q"))


def _align(position: int, alignment: object, path: Path) -> int:
    if alignment is None:
        alignment = DEFAULT_ALIGNMENT
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise CheckpointError(
            f"{path} is corrupt: 'general.alignment' is {alignment!r}, expected a power of two"
        )
    return -(-position // alignment) * alignment
