"""Readers: a checkpoint's tensors by name, one at a time, from memory-mapped files.

What the names mean is the families' business (key rules); so is whether the values are finite.
"""

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, Final, Protocol, cast

import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.gguf_metadata import TensorPlace, read_gguf_head
from model_core.checkpoints.sources import Located

SINGLE_FILE: Final = "model.safetensors"
INDEX_FILE: Final = "model.safetensors.index.json"

# What `gguf.quants` can turn into float32.
READABLE_TYPES: Final = frozenset(
    {
        GGMLQuantizationType.F32,
        GGMLQuantizationType.F16,
        GGMLQuantizationType.BF16,
        GGMLQuantizationType.Q4_0,
        GGMLQuantizationType.Q4_1,
        GGMLQuantizationType.Q5_0,
        GGMLQuantizationType.Q5_1,
        GGMLQuantizationType.Q8_0,
        GGMLQuantizationType.Q2_K,
        GGMLQuantizationType.Q3_K,
        GGMLQuantizationType.Q4_K,
        GGMLQuantizationType.Q5_K,
        GGMLQuantizationType.Q6_K,
    }
)


class TensorReader(Protocol):
    """Tensors by name. Unknown names and damaged data are `CheckpointError`s."""

    def names(self) -> list[str]:
        """All tensors' names, in the order of the files."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, row-major as in PyTorch ([out, in] for a projection)."""
        ...

    def read(self, name: str) -> torch.Tensor:
        """A tensor: in its own type from safetensors, in float32 from GGUF."""
        ...


class SafetensorsReader:
    """Tensors of one safetensors file, or of the shards that an index names.

    Raises `CheckpointError` for a missing or damaged file and for a tensor that the index
    promises and its shard lacks.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        if SINGLE_FILE in files:
            shards = {SINGLE_FILE: None}
        elif INDEX_FILE in files:
            shards = _shards(files[INDEX_FILE])
        else:
            single = [name for name in files if name.endswith(".safetensors") and "/" not in name]
            if len(single) != 1:
                found = ", ".join(single) or "neither"
                raise CheckpointError(f"expected {SINGLE_FILE} or {INDEX_FILE}, found {found}")
            shards = {single[0]: None}

        self._paths: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for shard, promised in shards.items():
            if shard not in files:
                raise CheckpointError(f"{shard} is missing: {INDEX_FILE} names it")
            handle = _open_safetensors(files[shard])
            held = cast("list[str]", list(handle.keys()))
            if promised is not None and (lacking := sorted(promised - set(held))):
                raise CheckpointError(f"{files[shard]} lacks {', '.join(lacking)}")
            for name in held:
                self._paths[name] = files[shard]
                self._shapes[name] = tuple(handle.get_slice(name).get_shape())

    def names(self) -> list[str]:
        """All tensors' names, shard by shard."""
        return list(self._paths)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; its values aren't read."""
        return self._shapes[self._known(name)]

    def read(self, name: str) -> torch.Tensor:
        """A tensor in the type it is stored in."""
        path = self._paths[self._known(name)]
        try:
            # Mapped anew for each tensor, so that the pages of one that was converted (from
            # bfloat16, say) are given back before the next is read.
            with _open_safetensors(path) as handle:
                return handle.get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(f"{path}: {name}: {error}") from error

    def _known(self, name: str) -> str:
        if name not in self._paths:
            raise CheckpointError(f"the checkpoint has no tensor {name!r}")
        return name


class GgufReader:
    """Tensors of a GGUF file, dequantised to float32 one at a time.

    A tensor that lies beyond the file's end or is of a type that can't be dequantised is a
    `CheckpointError` naming it, when the file is opened.
    """

    def __init__(self, path: Path) -> None:
        head = read_gguf_head(path)
        if (parts := head.metadata.get("split.count", 1)) not in (0, 1):
            raise CheckpointError(
                f"{path} is one of {parts} parts; join them into one file first "
                "(llama.cpp's gguf-split --merge does)"
            )
        self.metadata = head.metadata
        self._path = path
        self._places = {place.name: place for place in head.tensors}
        for place in head.tensors:
            end = place.offset + _stored_bytes(place, path)
            if end > head.file_bytes:
                raise CheckpointError(
                    f"{path} is truncated: tensor {place.name!r} ends at byte {end}, "
                    f"the file has {head.file_bytes}"
                )
        self._data: NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")

    def names(self) -> list[str]:
        """All tensors' names, in the order of the file's table."""
        return list(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor in PyTorch's order, which is GGUF's reversed."""
        return self._place(name).shape

    def read(self, name: str) -> torch.Tensor:
        """A tensor as float32, whatever it is stored as."""
        place = self._place(name)
        kind = GGMLQuantizationType(place.type_id)
        stored = self._data[place.offset : place.offset + _stored_bytes(place, self._path)]
        rows = stored.reshape(-1, _row_bytes(place, kind)) if place.shape else stored
        # A copy: dequantising F32 gives a view of the read-only file.
        values = np.array(dequantize(rows, kind), dtype=np.float32)
        return torch.from_numpy(values.reshape(place.shape))  # pyright: ignore[reportUnknownMemberType]

    def _place(self, name: str) -> TensorPlace:
        if name not in self._places:
            raise CheckpointError(f"{self._path} has no tensor {name!r}")
        return self._places[name]


def open_tensors(located: Located) -> TensorReader:
    """The reader for what `located` holds: its GGUF file, else its safetensors files."""
    if located.gguf is not None:
        return GgufReader(located.gguf)
    return SafetensorsReader(located.files)


def _shards(index: Path) -> dict[str, set[str]]:
    """Which tensors an index promises in which shard."""
    try:
        weight_map: object = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{index} is not a safetensors index: {error!r}") from error
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: 'weight_map' has to name a file for each tensor")
    shards: dict[str, set[str]] = {}
    for name, shard in cast("dict[str, object]", weight_map).items():
        shards.setdefault(str(shard), set()).add(name)
    return shards


def _open_safetensors(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error


def _row_bytes(place: TensorPlace, kind: GGMLQuantizationType) -> int:
    block, block_bytes = GGML_QUANT_SIZES[kind]
    return place.shape[-1] // block * block_bytes


def _stored_bytes(place: TensorPlace, path: Path) -> int:
    try:
        kind = GGMLQuantizationType(place.type_id)
        readable = kind in READABLE_TYPES
        name = kind.name
    except ValueError:
        readable, name = False, f"number {place.type_id}"
    if not readable:
        accepted = ", ".join(sorted(kind.name for kind in READABLE_TYPES))
        raise CheckpointError(
            f"{path}: tensor {place.name!r} has the unsupported type {name}; accepted: {accepted}"
        )
    block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(place.type_id)]
    if place.shape and place.shape[-1] % block:
        raise CheckpointError(
            f"{path} is corrupt: rows of tensor {place.name!r} have {place.shape[-1]} values, "
            f"not a multiple of the block of {name}, {block}"
        )
    return prod(place.shape) // block * block_bytes
