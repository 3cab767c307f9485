"""The limits of the machine, measured in the same run, and the speed that they would allow.

A limit is the fastest product of matrices found at the models' shapes, whichever library made it,
and the fastest reading of memory. What a contender does besides (attention, norms, tokenising)
counts as distance from the limit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Product:
    """One product [rows, inputs] x [inputs, outputs] by one library: 10⁹ operations a second."""

    library: str
    precision: str
    rows: int
    inputs: int
    outputs: int
    giga_operations: float


@dataclass(frozen=True, slots=True)
class Reading:
    """Memory read by so many threads, in 10⁹ bytes a second."""

    threads: int
    giga_bytes: float


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run measured."""

    products: tuple[Product, ...]
    readings: tuple[Reading, ...]

    def giga_operations(self, precision: str) -> float | None:
        """The fastest product at a precision; int4 weights are multiplied as int8."""
        computed = "int8" if precision == "int4" else precision
        found = [one.giga_operations for one in self.products if one.precision == computed]
        return max(found, default=None)

    @property
    def giga_bytes(self) -> float:
        return max(reading.giga_bytes for reading in self.readings)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one unit of work (a text, a token) takes at least: operations in products, and weights
    that are read from memory for it."""

    operations: float
    weights: float = 0.0

    def speed(self, limits: Limits, precision: str) -> float | None:
        """Units a second at the limit: products, or reading, whichever takes longer."""
        operations = limits.giga_operations(precision)
        if operations is None:
            return None
        read = self.weights * BYTES_PER_WEIGHT[precision]
        seconds = max(self.operations / operations, read / limits.giga_bytes) / 1e9
        return 1 / seconds


BYTES_PER_WEIGHT: Mapping[str, float] = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1, "int4": 0.5}

MINILM_OPERATIONS = 21.2e6
"""A token, in linear layers."""
SMOLLM2_OPERATIONS = 212e6
"""A token, in linear layers, without the head."""
SMOLLM2_HEAD_OPERATIONS = 57e6
SMOLLM2_WEIGHTS = (SMOLLM2_OPERATIONS + SMOLLM2_HEAD_OPERATIONS) / 2
"""Each weight is multiplied and added once a token."""


def limits_from(answer: Mapping[str, Any]) -> Limits:
    """What the worker `workers/limits.py` measured."""
    return Limits(
        tuple(Product(**product) for product in answer["products"]),
        tuple(Reading(**reading) for reading in answer["readings"]),
    )
