"""ONNX Runtime behind a small typed face: hardware, sessions, and the decoder's cache pool.

The only module that imports onnxruntime; used by parity and by the engines, without torch.
"""

import ctypes
import math
import mmap
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

from export.artifact import GRAPH, Artifact, ArtifactError, CacheLayout

# ONNX Runtime has no type annotations: its objects are Any inside this file and never leave it.
ort: Any = onnxruntime

Array = NDArray[Any]

CONTROL_GROUPS = Path("/sys/fs/cgroup")
"""Where the kernel shows control groups, version 2 or 1; in a container, its own."""

SLOW_FUSIONS = ("SkipLayerNormFusion", "BiasSkipLayerNormFusion", "BiasGeluFusion")
"""On the CPU the contributed operators they put in are up to seven times slower than what they
replace (SkipLayerNormalization 1,646 µs, Add and LayerNormalization 237 µs at [2048, 384])."""


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

    def __init__(self, graph: Path, provider: Provider, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Shapes differ from batch to batch: a memory pattern of one would fit no other.
        options.enable_mem_pattern = False
        # Where a processor has no VNNI, its u8·s8 products saturate at 16 bits: have them made of
        # u8·u8, which are exact. Elsewhere this changes nothing.
        options.add_session_config_entry("session.x64quantprecision", "1")
        providers = ["CPUExecutionProvider"]
        if provider is Provider.CUDA:
            ort.preload_dlls()
            providers.insert(0, "CUDAExecutionProvider")
        disabled = SLOW_FUSIONS if provider is Provider.CPU else ()
        try:
            self.raw = ort.InferenceSession(
                str(graph), options, providers=providers, disabled_optimizers=list(disabled)
            )
        except Exception as error:  # the runtime's exceptions have no common public base
            raise ArtifactError(f"ONNX Runtime can't load {graph}: {error}") from error
        if self.raw.get_providers()[0] != providers[0]:
            raise ArtifactError(
                f"{graph}: asked for {providers[0]}, ONNX Runtime fell back to "
                f"{self.raw.get_providers()[0]}; are the CUDA libraries installed?"
            )

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The named outputs for `feeds`."""
        return self.raw.run(list(outputs), dict(feeds))


class Sources:
    """An encoder's session and the pool of its outputs that an encoder-decoder's decoder reads.

    The pool has a row of up to `capacity` tokens for each of the decoder's. Attention reads rows at
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
        # At least one token, for rows that are bound without being used: none to attend to is NaN.
        self.lengths = np.ones(slots, np.int64)
        size = slots * layout.kv_heads * self.capacity * layout.head_dim
        self.memory = {name: reserved((size,), layout.dtype) for name in layout.names}

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
        for name, output in zip(self.layout.names, outputs, strict=True):
            pool = self.pool(name)
            for text, rows in enumerate(slots):
                if finite[text]:
                    pool[list(rows), :, : lengths[text]] = output[text, :, : lengths[text]]
        return finite

    def forget(self, rows: Sequence[int]) -> None:
        """The sources in `rows` are needed no more."""
        self.lengths[list(rows)] = 1

    def fit(self, longest: int) -> None:
        """Lay the pool out for `longest` tokens and the sources in use, which keep their rows."""
        needed = max(longest, int(self.lengths.max()))
        width = self.NARROWEST
        while width < needed:
            width *= 2
        width = min(width, self.capacity)
        if width == self.width:
            return
        used = np.flatnonzero(self.lengths > 1)
        kept = {name: self.pool(name)[used] for name in self.layout.names}
        common = min(width, self.width)
        self.width = width
        for name, rows in kept.items():
            self.pool(name)[used, :, :common] = rows[:, :, :common]

    def pool(self, name: str) -> Array:
        """The rows of one input as they are laid out now: [slots, kv_heads, width, head_dim]."""
        shape = (len(self.lengths), self.layout.kv_heads, self.width, self.layout.head_dim)
        return self.memory[name][: int(np.prod(shape))].reshape(shape)

    def inputs(self, rows: slice) -> dict[str, Array]:
        """What the decoder's graph takes for `rows`, as views that stay true until the next fit."""
        views = {name: self.pool(name)[rows] for name in self.layout.names}
        return {"source_lengths": self.lengths[rows], **views}


class CachedSession:
    """A decoder's session with a pool of cache rows that it reads and writes in place.

    `slots` rows of `capacity` tokens each: 8 · layers · kv_heads · head_dim bytes a token in
    float32. They are reserved at once and taken by the operating system as rows are first used.
    An encoder-decoder's also reads the same rows of `sources`. Not for concurrent use: one thread
    steps it.
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
        self.pool = {name: reserved(shape, layout.dtype) for name in layout.names}
        self.bindings: dict[tuple[int, int, int], Any] = {}

    def step(
        self, rows: slice, input_ids: Array, lengths: Array, logit_index: Array
    ) -> NDArray[np.float32]:
        """Run new tokens [B, S] of the pool's `rows`; logits [N, V] at `logit_index` [N].

        `lengths` [B] tokens are in the cache already. S > 1 takes a single row.
        """
        binding = self.binding(rows)
        for name, value in (
            ("input_ids", input_ids), ("lengths", lengths), ("logit_index", logit_index),
        ):  # fmt: skip
            binding.bind_cpu_input(name, value)
        # Anew each time: the logits of the run before would be taken for a buffer to write into,
        # and their number changes (a chunk in the middle of a prompt asks for none).
        binding.bind_output("logits")
        self.session.raw.run_with_iobinding(binding)
        return binding.get_outputs()[0].numpy()

    def copy(self, source: int, target: int, tokens: slice) -> None:
        """Copy some tokens of a row into another."""
        for buffer in self.pool.values():
            buffer[target, :, tokens] = buffer[source, :, tokens]

    def read(self, row: int, tokens: slice) -> list[Array]:
        """What the cache has of some tokens of a row, for each of its buffers."""
        return [buffer[row, :, tokens].copy() for buffer in self.pool.values()]

    def write(self, row: int, tokens: slice, values: Sequence[Array]) -> None:
        """Put back what was read."""
        for buffer, value in zip(self.pool.values(), values, strict=True):
            buffer[row, :, tokens] = value

    def wipe(self, row: int) -> None:
        """Zero a whole row: what isn't finite may reach who takes it next, even beyond its length
        (attention weighs it with 0, and 0 · NaN is NaN)."""
        for buffer in self.pool.values():
            buffer[row] = 0

    def binding(self, rows: slice) -> Any:
        """The binding of `rows`, whose caches are bound once and for all."""
        key = (rows.start, rows.stop, self.sources.width if self.sources else 0)
        if key not in self.bindings:
            binding = self.session.raw.io_binding()
            binding.bind_output("logits")  # first: outputs come in the order of binding
            read = self.sources.inputs(rows) if self.sources else {}
            for name, buffer in read.items():
                binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(buffer))
            for name, buffer in self.pool.items():
                view = ort.OrtValue.ortvalue_from_numpy(buffer[rows])
                binding.bind_ortvalue_input(name, view)
                binding.bind_ortvalue_output(f"present_{name}", view)
            self.bindings[key] = binding
        return self.bindings[key]


def reserved(shape: tuple[int, ...], dtype: str) -> Array:
    """Zeros that take memory page by page, as they are first written to.

    numpy asks the kernel for huge pages: the first token in a row would have it zero 2 MB in each
    buffer and head, 220 ms in a decoder of 30 layers, in the middle of everybody's step, and a row
    of a few tokens would hold as much memory as a full one.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):  # Linux
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype).reshape(shape)


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
