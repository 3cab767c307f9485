"""Pools of rows that a graph reads and writes in place: in the process's memory, or in a GPU's.

A pool is [R, G, C, D]: rows, heads, places, values. A graph is given some rows of it as they lie,
by their address, so that nothing is copied to run it. Places are named by slices with both ends.
"""

import ctypes
import math
import mmap
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape: TypeAlias = tuple[int, int, int, int]

HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = 1, 2, 3
"""cudaMemcpyKind (CUDA Runtime API, data types)."""


class PoolError(Exception):
    """A pool can't be had, or not be used: the line says why."""


class Pool(Protocol):
    """Rows of one buffer of a cache."""

    @property
    def device(self) -> str:
        """Where it lies, as ONNX Runtime calls it."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def shape(self) -> Shape: ...

    def address(self, row: int) -> int:
        """Where a row begins; those behind it follow."""
        ...

    def laid_out(self, places: int) -> Self:
        """The same memory as rows of so many places, of which the first are used."""
        ...

    def read(self, row: int, places: slice) -> Array:
        """A copy of some places of a row [G, places, D], in the process's memory."""
        ...

    def write(self, row: int, places: slice, values: Array) -> None:
        """Put values [G, places, D] there."""
        ...

    def copy(self, source: int, target: int, places: slice) -> None:
        """Have a row hold what another does in some places."""
        ...

    def wipe(self, row: int) -> None:
        """Zero a whole row."""
        ...


class HostPool:
    """Rows in the process's own memory."""

    device = "cpu"

    def __init__(self, memory: Array, shape: Shape) -> None:
        self.memory = memory
        self.array: Array = memory[: math.prod(shape)].reshape(shape)

    @classmethod
    def reserve(cls, shape: Shape, dtype: str) -> Self:
        """Zeros that take memory page by page, as they are first written to.

        numpy asks the kernel for huge pages: the first token in a row would have it zero 2 MB in
        each buffer and head, 220 ms in a decoder of 30 layers, in the middle of everybody's step,
        and a row of a few tokens would hold as much memory as a full one.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):  # Linux
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        return cls(np.frombuffer(memory, dtype), shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def shape(self) -> Shape:
        return self.array.shape  # pyright: ignore[reportReturnType]: numpy doesn't tell how many

    def address(self, row: int) -> int:
        return self.array.ctypes.data + row * self.array.strides[0]

    def laid_out(self, places: int) -> Self:
        rows, heads, _, width = self.shape
        return type(self)(self.memory, (rows, heads, places, width))

    def read(self, row: int, places: slice) -> Array:
        return self.array[row, :, places].copy()

    def write(self, row: int, places: slice, values: Array) -> None:
        self.array[row, :, places] = values

    def copy(self, source: int, target: int, places: slice) -> None:
        self.array[target, :, places] = self.array[source, :, places]

    def wipe(self, row: int) -> None:
        self.array[row] = 0


class Cuda:
    """The functions of CUDA's runtime library that pools need (CUDA Runtime API, on memory).

    Its context is the device's primary one, which ONNX Runtime uses as well. Whatever is asked for
    is done when a method returns: runs are on a stream of ONNX Runtime's own.
    """

    def __init__(self, library: Any) -> None:
        self.library = library
        library.cudaGetErrorString.restype = ctypes.c_char_p

    def allocate(self, size: int) -> int:
        """The address of so many bytes of zeros. Raises `PoolError` where they can't be had."""
        address = ctypes.c_void_p()
        code = self.library.cudaMalloc(ctypes.byref(address), ctypes.c_size_t(size))
        if code != 0 or address.value is None:
            self.library.cudaGetLastError()  # forgotten: the next call would tell it again
            free, total = self.memory()
            raise PoolError(
                f"the GPU has no {size:,} bytes for a cache ({free:,} of {total:,} are free); "
                "fewer slots or a shorter context take less (ANATOMY_SLOTS, ANATOMY_MAX_CONTEXT)"
            )
        self.zero(address.value, size)
        return address.value

    def free(self, address: int) -> None:
        """Give back what was allocated."""
        self.library.cudaFree(ctypes.c_void_p(address))

    def memory(self) -> tuple[int, int]:
        """How many bytes of the device are free, and how many it has."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.check("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def zero(self, address: int, size: int) -> None:
        """Zero so many bytes."""
        self.check("cudaMemset", ctypes.c_void_p(address), 0, ctypes.c_size_t(size))
        self.check("cudaDeviceSynchronize")

    def copy(
        self, target: int, target_pitch: int, source: int, source_pitch: int,
        width: int, height: int, kind: int,
    ) -> None:  # fmt: skip
        """Copy `height` runs of `width` bytes, each a pitch behind the one before."""
        if width <= 0:
            return
        sizes = [ctypes.c_size_t(size) for size in (target_pitch, source_pitch, width, height)]
        self.check(
            "cudaMemcpy2D", ctypes.c_void_p(target), sizes[0], ctypes.c_void_p(source), *sizes[1:],
            kind,
        )  # fmt: skip
        self.check("cudaDeviceSynchronize")

    def check(self, function: str, *arguments: Any) -> None:
        """Call a function. Raises `PoolError` with the reason that CUDA gives."""
        code = getattr(self.library, function)(*arguments)
        if code != 0:
            reason = self.library.cudaGetErrorString(code).decode()
            raise PoolError(f"{function}: {reason} (CUDA error {code})")


class DeviceMemory:
    """Memory of a GPU, given back when nobody holds it any more."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        self.cuda = cuda
        self.address = cuda.allocate(size)

    def __del__(self) -> None:
        # Nothing was allocated where the constructor raised.
        if "address" in self.__dict__:
            self.cuda.free(self.address)


class CudaPool:
    """Rows in the memory of a GPU."""

    device = "cuda"

    def __init__(self, memory: DeviceMemory, shape: Shape, dtype: str) -> None:
        self.memory = memory
        self.shape = shape
        self.dtype: np.dtype[Any] = np.dtype(dtype)

    @classmethod
    def reserve(cls, cuda: Cuda, shape: Shape, dtype: str) -> Self:
        """Zeros on a device, all of them taken at once."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        return cls(DeviceMemory(cuda, size), shape, dtype)

    @property
    def pitch(self) -> int:
        """Bytes from a head to the next."""
        return math.prod(self.shape[2:]) * self.dtype.itemsize

    def address(self, row: int) -> int:
        return self.memory.address + row * self.shape[1] * self.pitch

    def laid_out(self, places: int) -> Self:
        rows, heads, _, width = self.shape
        return type(self)(self.memory, (rows, heads, places, width), self.dtype.name)

    def read(self, row: int, places: slice) -> Array:
        start, width = self.extent(row, places)
        values = np.empty((self.shape[1], places.stop - places.start, self.shape[3]), self.dtype)
        self.memory.cuda.copy(
            values.ctypes.data, width, start, self.pitch, width, self.shape[1], DEVICE_TO_HOST
        )
        return values

    def write(self, row: int, places: slice, values: Array) -> None:
        start, width = self.extent(row, places)
        shape = (self.shape[1], places.stop - places.start, self.shape[3])
        packed = np.ascontiguousarray(np.broadcast_to(values, shape), self.dtype)
        self.memory.cuda.copy(
            start, self.pitch, packed.ctypes.data, width, width, self.shape[1], HOST_TO_DEVICE
        )

    def copy(self, source: int, target: int, places: slice) -> None:
        if source == target:
            return
        (from_, width), (to, _) = self.extent(source, places), self.extent(target, places)
        self.memory.cuda.copy(
            to, self.pitch, from_, self.pitch, width, self.shape[1], DEVICE_TO_DEVICE
        )

    def wipe(self, row: int) -> None:
        self.memory.cuda.zero(self.address(row), self.shape[1] * self.pitch)

    def extent(self, row: int, places: slice) -> tuple[int, int]:
        """Where some places of a row's first head begin, and how many bytes they take."""
        one = self.shape[3] * self.dtype.itemsize
        return self.address(row) + places.start * one, (places.stop - places.start) * one
