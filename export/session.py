"""ONNX Runtime behind a small typed face: hardware, sessions, and the decoder's cache pool.

The only module that imports onnxruntime; used by parity and by the engines, without torch.
"""

import ctypes
import io
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

from export.artifact import GRAPH, Artifact, ArtifactError, CacheLayout
from export.pools import Cuda, CudaPool, HostPool, Pool, PoolError, Shape

# ONNX Runtime has no type annotations: its objects are Any inside this file and never leave it.
ort: Any = onnxruntime

Array = NDArray[Any]

CONTROL_GROUPS = Path("/sys/fs/cgroup")
"""Where the kernel shows control groups, version 2 or 1; in a container, its own."""

SLOW_FUSIONS = ("SkipLayerNormFusion", "BiasSkipLayerNormFusion", "BiasGeluFusion")
"""On the CPU the contributed operators they put in are up to seven times slower than what they
replace (SkipLayerNormalization 1,646 µs, Add and LayerNormalization 237 µs at [2048, 384])."""


CUDA_MAJOR = ort.cuda_version.partition(".")[0]
"""The version of CUDA that the runtime was built with: its libraries have it in their names."""

CUDA_LIBRARIES = (
    f"libcudart.so.{CUDA_MAJOR}",
    f"libcublasLt.so.{CUDA_MAJOR}",
    f"libcublas.so.{CUDA_MAJOR}",
    "libcurand.so.10",
    "libcudnn.so.9",
)
"""What the CUDA provider is linked to (`readelf -d`), and cuDNN, which it opens."""


class Provider(StrEnum):
    """Where a session runs."""

    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True, slots=True)
class Hardware:
    """The execution provider that was chosen, and why."""

    provider: Provider
    reason: str


def find_hardware() -> Hardware:
    """CUDA where the driver finds a GPU and the runtime has the provider, else the CPU.

    The runtime lists CUDA as available wherever its wheel is installed, so the driver is asked.
    """
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return Hardware(Provider.CPU, "this build of ONNX Runtime has no CUDA provider")
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Hardware(Provider.CPU, "no NVIDIA driver on this machine")
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return Hardware(Provider.CPU, "the NVIDIA driver does not start")
    if count.value < 1:
        return Hardware(Provider.CPU, "the NVIDIA driver finds no GPU")
    return Hardware(Provider.CUDA, f"the NVIDIA driver finds {count.value} GPU(s)")


def missing_libraries() -> list[str]:
    """Those of `CUDA_LIBRARIES` that can't be loaded, from pip's packages or by the linker."""
    with redirect_stdout(io.StringIO()):  # it prints what it doesn't find
        ort.preload_dlls()
    return [name for name in CUDA_LIBRARIES if not loads(name)]


def loads(library: str) -> bool:
    """Whether the dynamic linker finds a library."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def execution_providers(provider: Provider, gpu_memory: int | None) -> list[Any]:
    """What a session is asked to run on, first choice first, with the options of each.

    `gpu_memory` bounds the bytes of a GPU that its weights and intermediate results take.
    """
    if provider is Provider.CPU:
        return ["CPUExecutionProvider"]
    # Grown by what is asked for: by powers of two it would take up to twice that.
    options = {"arena_extend_strategy": "kSameAsRequested"}
    if gpu_memory is not None:
        options["gpu_mem_limit"] = str(gpu_memory)
    return [("CUDAExecutionProvider", options), "CPUExecutionProvider"]


def usable_cores(groups: Path = CONTROL_GROUPS) -> int:
    """How many threads products get by default: the cores that this process may use.

    A container with a limit sees all cores of its node and gets its share of their time: threads
    beyond that would wait for each other, stopped in the middle of a product.
    """
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota(groups)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def cpu_quota(groups: Path = CONTROL_GROUPS) -> float | None:
    """How many cores' time the control group of this process has; None for no limit."""
    try:
        quota, period = (groups / "cpu.max").read_text().split()
    except OSError:
        try:
            quota = (groups / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (groups / "cpu" / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    return None if quota in ("max", "-1") else int(quota) / int(period)


def memory_limit(groups: Path = CONTROL_GROUPS) -> int:
    """Bytes that this process may have: of the machine, or of its control group if that is less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in (groups / "memory.max", groups / "memory" / "memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max" is no number
            return min(machine, int(file.read_text()))
    return machine


class Session:
    """A graph ready to run. `run` may be called from several threads at once."""

    def __init__(
        self, graph: Path, provider: Provider, threads: int, gpu_memory: int | None = None
    ) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Shapes differ from batch to batch: a memory pattern of one would fit no other.
        options.enable_mem_pattern = False
        # Where a processor has no VNNI, its u8·s8 products saturate at 16 bits: have them made of
        # u8·u8, which are exact. Elsewhere this changes nothing.
        options.add_session_config_entry("session.x64quantprecision", "1")
        self.provider = provider
        if provider is Provider.CUDA:
            ort.preload_dlls()
        disabled = SLOW_FUSIONS if provider is Provider.CPU else ()
        try:
            self.raw = ort.InferenceSession(
                str(graph),
                options,
                providers=execution_providers(provider, gpu_memory),
                disabled_optimizers=list(disabled),
            )
        except Exception as error:  # the runtime's exceptions have no common public base
            raise ArtifactError(f"ONNX Runtime can't load {graph}: {error}") from error
        found = self.raw.get_providers()[0]
        if provider is Provider.CUDA and found != "CUDAExecutionProvider":
            missing = ", ".join(missing_libraries()) or "none of its libraries"
            raise ArtifactError(
                f"{graph}: asked for CUDA, ONNX Runtime fell back to {found}; missing: {missing} "
                "(`anatomy doctor` says more)"
            )

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The named outputs for `feeds`."""
        return self.raw.run(list(outputs), dict(feeds))

    def reserve(self, shape: Shape, dtype: str) -> Pool:
        """A pool of zeros where this session computes. Raises `ArtifactError` without room."""
        if self.provider is Provider.CPU:
            return HostPool.reserve(shape, dtype)
        try:
            return CudaPool.reserve(cuda_runtime(), shape, dtype)
        except PoolError as error:
            raise ArtifactError(str(error)) from error


def cuda_runtime() -> Cuda:
    """CUDA's runtime library, which a CUDA session has loaded. Raises `PoolError` without it."""
    name = f"libcudart.so.{CUDA_MAJOR}"
    try:
        return Cuda(ctypes.CDLL(name))
    except OSError as error:
        raise PoolError(
            f"{name} can't be loaded ({error}); pip install 'transformer-anatomy[cuda]'"
        ) from error


class Sources:
    """An encoder's session and the pools of its outputs that an encoder-decoder's decoder reads.

    They have a row of up to `capacity` tokens for each of the decoder's. Attention reads rows at
    their whole width, so they are laid out for the longest source in use, and again when another
    width is needed; widths are `NARROWEST` times a power of two, so that this is rare. Not for
    concurrent use.
    """

    NARROWEST = 32
    """Tokens. Every width is a multiple, so that sums over a row are made in the same order."""

    def __init__(self, encoder: Session, layout: CacheLayout, slots: int, capacity: int) -> None:
        self.encoder = encoder
        self.layout = layout
        self.capacity = -(-capacity // self.NARROWEST) * self.NARROWEST
        self.width = self.NARROWEST
        self.in_use = np.zeros(slots, bool)
        # At least one token, for rows that are bound without being used: none to attend to is NaN.
        self.lengths = np.ones(slots, np.int64)
        shape = (slots, layout.kv_heads, self.capacity, layout.head_dim)
        self.pools = {
            name: encoder.reserve(shape, layout.dtype).laid_out(self.width) for name in layout.names
        }

    def encode(self, slots: Sequence[Sequence[int]], feeds: Mapping[str, Array]) -> list[bool]:
        """Run packed texts (`feeds`) and write the i-th into the rows `slots[i]`.

        Says of each whether the encoder gave finite values; one that it didn't is not written, for
        a NaN would outlive its source.
        """
        outputs = self.encoder.run(feeds, self.layout.names)
        lengths: list[int] = feeds["lengths"].tolist()
        finite = [
            all(np.isfinite(output[text, :, :length]).all() for output in outputs)
            for text, length in enumerate(lengths)
        ]
        for rows in slots:
            self.forget(rows)
        self.fit(max(lengths))
        for rows, length, is_finite in zip(slots, lengths, finite, strict=True):
            self.lengths[list(rows)] = length if is_finite else 1
            self.in_use[list(rows)] = is_finite
        for name, output in zip(self.layout.names, outputs, strict=True):
            for text, rows in enumerate(slots):
                places = slice(0, lengths[text])
                for row in rows if finite[text] else ():
                    self.pools[name].write(row, places, output[text, :, places])
        return finite

    def forget(self, rows: Sequence[int]) -> None:
        """The sources in `rows` are needed no more."""
        self.lengths[list(rows)] = 1
        self.in_use[list(rows)] = False

    def fit(self, longest: int) -> None:
        """Lay the pools out for `longest` tokens and the sources in use, which keep their rows."""
        needed = max(longest, int(self.lengths.max()))
        width = self.NARROWEST
        while width < needed:
            width *= 2
        width = min(width, self.capacity)
        if width == self.width:
            return
        rows: list[int] = np.flatnonzero(self.in_use).tolist()
        common = slice(0, min(width, self.width))
        for name, pool in self.pools.items():
            kept = [pool.read(row, common) for row in rows]
            self.pools[name] = pool.laid_out(width)
            for row, values in zip(rows, kept, strict=True):
                self.pools[name].write(row, common, values)
        self.width = width


class CachedSession:
    """A decoder's session with a pool of cache rows that it reads and writes in place.

    `slots` rows of `capacity` tokens each: 8 · layers · kv_heads · head_dim bytes a token in
    float32. They are reserved at once where the session computes; the host's memory is taken by the
    operating system as rows are first used. An encoder-decoder's also reads the same rows of
    `sources`. Not for concurrent use: one thread steps it.
    """

    def __init__(
        self,
        session: Session,
        layout: CacheLayout,
        slots: int,
        capacity: int,
        sources: Sources | None = None,
    ) -> None:
        self.session = session
        self.capacity = capacity
        self.sources = sources
        shape = (slots, layout.kv_heads, capacity, layout.head_dim)
        self.pools = {name: session.reserve(shape, layout.dtype) for name in layout.names}
        self.bindings: dict[tuple[int, int, int], Any] = {}

    def step(
        self, rows: slice, input_ids: Array, lengths: Array, logit_index: Array
    ) -> NDArray[np.float32]:
        """Run new tokens [B, S] of the pool's `rows`; logits [N, V] at `logit_index` [N].

        `lengths` [B] tokens are in the cache already. S > 1 takes a single row.
        """
        binding = self.binding(rows)
        feeds = {"input_ids": input_ids, "lengths": lengths, "logit_index": logit_index}
        if self.sources:
            feeds["source_lengths"] = self.sources.lengths[rows]
        for name, value in feeds.items():
            binding.bind_cpu_input(name, value)
        # Anew each time: the logits of the run before would be taken for a buffer to write into,
        # and their number changes (a chunk in the middle of a prompt asks for none).
        binding.bind_output("logits")
        self.session.raw.run_with_iobinding(binding)
        return binding.get_outputs()[0].numpy()

    def copy(self, source: int, target: int, tokens: slice) -> None:
        """Copy some tokens of a row into another."""
        for pool in self.pools.values():
            pool.copy(source, target, tokens)

    def read(self, row: int, tokens: slice) -> list[Array]:
        """What the cache has of some tokens of a row, for each of its buffers."""
        return [pool.read(row, tokens) for pool in self.pools.values()]

    def write(self, row: int, tokens: slice, values: Sequence[Array]) -> None:
        """Put back what was read."""
        for pool, value in zip(self.pools.values(), values, strict=True):
            pool.write(row, tokens, value)

    def wipe(self, row: int) -> None:
        """Zero a whole row: what isn't finite may reach who takes it next, even beyond its length
        (attention weighs it with 0, and 0 · NaN is NaN)."""
        for pool in self.pools.values():
            pool.wipe(row)

    def binding(self, rows: slice) -> Any:
        """The binding of `rows`, whose caches are bound once and for all, by their addresses."""
        key = (rows.start, rows.stop, self.sources.width if self.sources else 0)
        if key not in self.bindings:
            binding = self.session.raw.io_binding()
            binding.bind_output("logits")  # first: outputs come in the order of binding
            for name, pool in (self.sources.pools if self.sources else {}).items():
                binding.bind_input(name, *place_of(pool, rows))
            for name, pool in self.pools.items():
                binding.bind_input(name, *place_of(pool, rows))
                binding.bind_output(f"present_{name}", *place_of(pool, rows))
            self.bindings[key] = binding
        return self.bindings[key]


def place_of(pool: Pool, rows: slice) -> tuple[str, int, type, list[int], int]:
    """Some rows of a pool as bindings take them: device and its number, type, shape, address."""
    shape = [rows.stop - rows.start, *pool.shape[1:]]
    return pool.device, 0, pool.dtype.type, shape, pool.address(rows.start)


def reproduces_golden(
    artifact: Artifact, session: Session, graph: str = GRAPH, tolerance: float = 2e-2
) -> float:
    """Run a graph's golden inputs; the largest error relative to the largest expected magnitude.

    Raises `ArtifactError` if it is over `tolerance`. That leaves room for another instruction set,
    whose sums round otherwise, and none for wrong weights.
    """
    feeds, outputs = artifact.golden(graph)
    worst = 0.0
    for found, golden in zip(session.run(feeds, list(outputs)), outputs.values(), strict=True):
        expected = golden.astype(np.float64)
        error = float(np.abs(found - expected).max() / np.abs(expected).max())
        worst = max(worst, error if np.isfinite(error) else np.inf)
    if worst > tolerance:
        raise ArtifactError(
            f"{artifact.folder}: the golden outputs of {graph} are off by {worst:.2e} of their "
            f"magnitude (at most {tolerance:.0e} accepted); export the model again on this machine"
        )
    return worst
