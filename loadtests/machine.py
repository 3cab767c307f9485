"""What a run was measured on, as far as it matters to the figures: no names, no addresses."""

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROCESSOR_INFO = Path("/proc/cpuinfo")
MEMORY_INFO = Path("/proc/meminfo")
# The instructions that products of matrices are made of.
INSTRUCTIONS = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
)


@dataclass(frozen=True, slots=True)
class Machine:
    """A processor, the cores of it that may be used, and memory in GiB."""

    processor: str
    instructions: tuple[str, ...]
    cores: int
    memory_gib: int
    system: str

    def sentence(self) -> str:
        return (
            f"{self.processor} ({', '.join(self.instructions)}), {self.cores} cores, "
            f"{self.memory_gib} GiB, {self.system}"
        )


def this_machine() -> Machine:
    """The machine that this process runs on (Linux; elsewhere what Python itself knows)."""
    described = PROCESSOR_INFO.read_text() if PROCESSOR_INFO.exists() else ""
    flags = set(field(described, "flags", "Features").split())
    memory = field(MEMORY_INFO.read_text(), "MemTotal") if MEMORY_INFO.exists() else ""
    return Machine(
        processor=processor_name(described),
        instructions=tuple(name for name in INSTRUCTIONS if name in flags),
        cores=core_count(),
        memory_gib=round(int(memory.split()[0]) / 2**20) if memory else 0,
        system=f"{platform.system()}, Python {platform.python_version()}",
    )


def processor_name(described: str) -> str:
    """Its name, with the numbers that tell generations apart where the name does not."""
    name = field(described, "model name") or platform.machine()
    family, model = field(described, "cpu family"), field(described, "model")
    return f"{name}, family {family} model {model}" if family and model else name


def field(text: str, *names: str) -> str:
    """The value of the first line `name : value` for one of `names`, or nothing."""
    found = re.search(rf"^(?:{'|'.join(names)})\s*:[ \t]*(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def thread_counts(cores: int) -> Sequence[int]:
    """One thread, and as many as there are cores."""
    return (1, cores) if cores > 1 else (1,)
