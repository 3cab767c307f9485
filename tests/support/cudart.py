"""CUDA's functions on memory, done to memory of this process: a pool can't tell the difference."""

import ctypes
from collections.abc import Callable
from typing import Any

from export.pools import DEVICE_TO_DEVICE, DEVICE_TO_HOST, HOST_TO_DEVICE, Cuda, CudaPool, Shape
from export.session import Session

NO_MEMORY, BAD_VALUE, BAD_PITCH, BAD_DIRECTION = 2, 1, 12, 21
"""cudaError_t (CUDA Runtime API, data types)."""


def error_string(code: int) -> bytes:
    return f"error number {code}".encode()


class Cudart:
    """A device of `size` bytes. What is allocated holds anything at first, as on a real one."""

    def __init__(self, size: int = 2**28) -> None:
        self.size = size
        self.blocks: dict[int, Any] = {}
        self.functions: dict[str, Callable[..., int | bytes]] = {
            "cudaMalloc": self.malloc,
            "cudaFree": self.free,
            "cudaMemset": self.memset,
            "cudaMemcpy2D": self.memcpy_2d,
            "cudaMemGetInfo": self.memory,
            "cudaDeviceSynchronize": lambda: 0,
            "cudaGetLastError": lambda: 0,
            "cudaGetErrorString": error_string,
        }

    def __getattr__(self, name: str) -> Callable[..., int | bytes]:
        return self.functions[name]

    @property
    def left(self) -> int:
        return self.size - sum(map(len, self.blocks.values()))

    def malloc(self, address: Any, size: ctypes.c_size_t) -> int:
        if size.value > self.left:
            return NO_MEMORY
        block = ctypes.create_string_buffer(b"\xff" * size.value, size.value)
        self.blocks[ctypes.addressof(block)] = block
        address._obj.value = ctypes.addressof(block)
        return 0

    def free(self, address: ctypes.c_void_p) -> int:
        return BAD_VALUE if self.blocks.pop(address.value or 0, None) is None else 0

    def memory(self, free: Any, total: Any) -> int:
        free._obj.value, total._obj.value = self.left, self.size
        return 0

    def memset(self, address: ctypes.c_void_p, value: int, size: ctypes.c_size_t) -> int:
        if not self.holds(address.value, size.value):
            return BAD_VALUE
        ctypes.memset(address, value, size.value)
        return 0

    def memcpy_2d(
        self,
        target: ctypes.c_void_p,
        target_pitch: ctypes.c_size_t,
        source: ctypes.c_void_p,
        source_pitch: ctypes.c_size_t,
        width: ctypes.c_size_t,
        height: ctypes.c_size_t,
        kind: int,
    ) -> int:
        if width.value > min(target_pitch.value, source_pitch.value):
            return BAD_PITCH
        on_device = {
            HOST_TO_DEVICE: (True, False),
            DEVICE_TO_HOST: (False, True),
            DEVICE_TO_DEVICE: (True, True),
        }[kind]
        ends = ((target, target_pitch), (source, source_pitch))
        for (address, pitch), expected in zip(ends, on_device, strict=True):
            size = (height.value - 1) * pitch.value + width.value
            if self.holds(address.value, size) != expected:
                return BAD_DIRECTION
        for run in range(height.value):
            ctypes.memmove(
                (target.value or 0) + run * target_pitch.value,
                (source.value or 0) + run * source_pitch.value,
                width.value,
            )
        return 0

    def holds(self, address: int | None, size: int) -> bool:
        """Whether so many bytes from an address on are the device's."""
        return any(
            start <= (address or 0) and (address or 0) + size <= start + len(block)
            for start, block in self.blocks.items()
        )


class Addressed(CudaPool):
    """A pool that ONNX Runtime's CPU provider can be given."""

    device = "cpu"


class OnDevice(Session):
    """A session on the CPU that holds its pools as one on a GPU does, by addresses alone."""

    def reserve(self, shape: Shape, dtype: str) -> Addressed:
        return Addressed.reserve(Cuda(Cudart()), shape, dtype)
