"""What is seen, as JSON or as one binary file in the layout of safetensors.

That layout is eight bytes with the header's length (little-endian), a JSON header that names each
tensor's `dtype`, `shape` and `data_offsets`, and the tensors' bytes: a browser reads it with
`JSON.parse` and typed arrays over one buffer.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from service.inspection.inquiry import Part
from service.inspection.model import Seen

Array = NDArray[Any]

BINARY = "application/octet-stream"
LARGEST_HALF = 65504.0
NAMES = {"float32": "F32", "float16": "F16", "uint8": "U8", "int32": "I32"}


class NumberType(StrEnum):
    """How numbers are written in a binary answer."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    UINT8 = "uint8"  # patterns as round(255 · weight), all else as float16


def as_json(seen: Seen) -> bytes:
    """One object; `tensors` are nested lists by name."""
    tensors = {name: np.ascontiguousarray(array) for name, array in seen.tensors.items()}
    return orjson.dumps(seen.answer | {"tensors": tensors}, option=orjson.OPT_SERIALIZE_NUMPY)


def as_safetensors(seen: Seen, kind: NumberType) -> bytes:
    """The tensors, and the rest of the answer as JSON in the metadata, under `answer`."""
    tensors = {name: narrowed(name, array, kind) for name, array in seen.tensors.items()}
    metadata = {"format": "anatomy", "answer": orjson.dumps(seen.answer).decode()}
    return safetensors(tensors, metadata)


def narrowed(name: str, array: Array, kind: NumberType) -> Array:
    """An array in the type that was asked for, as far as its numbers fit."""
    if not np.issubdtype(array.dtype, np.floating) or kind is NumberType.FLOAT32:
        return array
    if kind is NumberType.UINT8 and name.endswith(f".{Part.PATTERN}"):
        return np.rint(array * 255).astype(np.uint8)
    if array.size and np.abs(array).max() > LARGEST_HALF:
        return array
    return array.astype(np.float16)


def safetensors(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """A file of that layout. Wide types come first, so that each tensor is aligned to its own."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    order = sorted(tensors, key=lambda name: -tensors[name].itemsize)
    place, parts = 0, list[bytes]()
    for name in order:
        array = tensors[name]
        parts.append(np.ascontiguousarray(array).tobytes())
        header[name] = {
            "dtype": NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [place, place + array.nbytes],
        }
        place += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(parts)
