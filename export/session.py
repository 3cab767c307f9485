"""ONNX Runtime behind a small typed face: hardware, sessions, and the decoder's cache pool.

The only module that imports onnxruntime; used by parity and by the engines, without torch.
"""

import ctypes
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

from export.artifact import Artifact, ArtifactError, CacheLayout

# ONNX Runtime has no type annotations: its objects are Any inside this file and never leave it.
ort: Any = onnxruntime

Array = NDArray[Any]

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


def usable_cores() -> int:
    """How many threads products get by default: the cores that this process may use."""
    return max(1, len(os.sched_getaffinity(0)))


class Session:
    """A graph ready to run. `run` may be called from several threads at once."""

    def __init__(self, graph: Path, provider: Provider, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Shapes differ from batch to batch: a memory pattern of one would fit no other.
        options.enable_mem_pattern = False
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


class CachedSession:
    """A decoder's session with a pool of cache rows that it reads and writes in place.

    `slots` rows of `capacity` tokens each: 8 · layers · kv_heads · head_dim bytes a token in
    float32. They are reserved at once and taken by the operating system as rows are first used.
    Not for concurrent use: one thread steps it.
    """

    def __init__(self, session: Session, layout: CacheLayout, slots: int, capacity: int) -> None:
        self.session = session
        self.capacity = capacity
        shape = (slots, layout.kv_heads, capacity, layout.head_dim)
        self.pool = {name: np.zeros(shape, layout.dtype) for name in layout.names}
        self.bindings: dict[tuple[int, int], Any] = {}

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

    def binding(self, rows: slice) -> Any:
        """The binding of `rows`, whose caches are bound once and for all."""
        key = (rows.start, rows.stop)
        if key not in self.bindings:
            binding = self.session.raw.io_binding()
            binding.bind_output("logits")  # first: outputs come in the order of binding
            for name, buffer in self.pool.items():
                view = ort.OrtValue.ortvalue_from_numpy(buffer[rows])
                binding.bind_ortvalue_input(name, view)
                binding.bind_ortvalue_output(f"present_{name}", view)
            self.bindings[key] = binding
        return self.bindings[key]


def reproduces_golden(artifact: Artifact, session: Session, tolerance: float = 2e-2) -> float:
    """Run the golden inputs; the largest error relative to the largest expected magnitude.

    Raises `ArtifactError` if it is over `tolerance`. That leaves room for another instruction set
    (without VNNI, int8 products saturate), and none for wrong weights.
    """
    golden = artifact.golden()
    feeds = {name: array for name, array in golden.items() if not name.startswith("expected_")}
    names = [name.removeprefix("expected_") for name in golden if name.startswith("expected_")]
    worst = 0.0
    for name, found in zip(names, session.run(feeds, names), strict=True):
        expected = golden[f"expected_{name}"].astype(np.float64)
        error = float(np.abs(found - expected).max() / np.abs(expected).max())
        worst = max(worst, error if np.isfinite(error) else np.inf)
    if worst > tolerance:
        raise ArtifactError(
            f"{artifact.folder}: the golden outputs are off by {worst:.2e} of their magnitude "
            f"(at most {tolerance:.0e} accepted); export the model again on this machine"
        )
    return worst
