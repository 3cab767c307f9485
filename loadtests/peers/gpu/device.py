"""Where both sides compute, and what it can do at most."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from export.artifact import Precision
from export.session import Provider
from loadtests.peers.limits import Limits, Product, Reading


@dataclass(frozen=True, slots=True)
class Device:
    """Where both sides compute, and by which names each knows it."""

    at: torch.device
    provider: Provider
    dtype: torch.dtype
    precision: Precision

    @property
    def name(self) -> str:
        cuda = self.at.type == "cuda"
        return torch.cuda.get_device_name(self.at) if cuda else "the processor"

    def wait(self) -> None:
        """Until all that was asked of it is done."""
        if self.at.type == "cuda":
            torch.cuda.synchronize(self.at)


GPU = Device(torch.device("cuda"), Provider.CUDA, torch.float16, Precision.FP16)
PROCESSOR = Device(torch.device("cpu"), Provider.CPU, torch.float32, Precision.FP32)


def timed(device: Device, run: Callable[[], object]) -> float:
    """Seconds until the result is there."""
    device.wait()
    started = time.perf_counter()
    run()
    device.wait()
    return time.perf_counter() - started


def ceilings(device: Device, size: int, repeats: int = 10) -> Limits:
    """The fastest product at each precision, and the fastest copy, read and write counted."""

    def fastest(work: Callable[[], object]) -> float:
        work()
        return min(timed(device, work) for _ in range(repeats))

    products: list[Product] = []
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    for precision, dtype in kinds.items():
        left, right = (torch.randn(size, size).to(device.at, dtype) for _ in range(2))
        seconds = fastest(partial(torch.mm, left, right))
        products.append(Product("torch", precision, size, size, size, 2e-9 * size**3 / seconds))
    values = torch.ones(4 * size * size, device=device.at)
    target = torch.empty_like(values)
    seconds = fastest(partial(target.copy_, values))
    return Limits(tuple(products), (Reading(1, 2e-9 * values.nbytes / seconds),))
