"""How much memory is in use where the process runs. `export.session` tells how much may be."""

from pathlib import Path

from export.session import CONTROL_GROUPS

MACHINE = Path("/proc/meminfo")

VERSIONS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)
"""Of a control group, in version 2 and 1: its limit, what is in use, and of that the files that
nobody has used lately."""


def memory_in_use(groups: Path = CONTROL_GROUPS, machine: Path = MACHINE) -> int:
    """Bytes that can't be had back: of the container if its memory is limited, else of the machine.

    Of a container this is what Kubernetes evicts by, its working set: without the pages of files
    that nobody has used lately.
    """
    sizes = sizes_of(machine.read_text())
    for limit, current, statistics, inactive in VERSIONS:
        if limited(groups / limit, sizes["MemTotal"]):
            idle = sizes_of((groups / statistics).read_text())[inactive]
            return int((groups / current).read_text()) - idle
    return sizes["MemTotal"] - sizes["MemAvailable"]


def limited(file: Path, machine: int) -> bool:
    """Whether a control group may have less than the machine's bytes."""
    try:
        return int(file.read_text()) < machine
    except (FileNotFoundError, ValueError):  # no such group; "max" is no number
        return False


def sizes_of(text: str) -> dict[str, int]:
    """Bytes by the names that the kernel gives them, of lines such as `MemFree: 12 kB`."""
    rows = (line.split() for line in text.splitlines())
    return {row[0].rstrip(":"): int(row[1]) * (1024 if row[2:] else 1) for row in rows}
