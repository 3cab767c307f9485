"""How much memory is in use where the process runs, and how much may be."""

from pathlib import Path

CONTAINER = Path("/sys/fs/cgroup")
"""Linux' control group of a container, version 2, as it is seen from within."""

MACHINE = Path("/proc/meminfo")


def memory_in_use(container: Path = CONTAINER, machine: Path = MACHINE) -> int:
    """Bytes that can't be had back: of the container if its memory is limited, else of the machine.

    Of a container this is what Kubernetes evicts by, its working set: without the pages of files
    that nobody has used lately.
    """
    if container_limit(container) is None:
        sizes = sizes_of(machine)
        return sizes["MemTotal"] - sizes["MemAvailable"]
    return int((container / "memory.current").read_text()) - inactive_file(container)


def memory_limit(container: Path = CONTAINER, machine: Path = MACHINE) -> int:
    """Bytes that may be in use: the container's limit, or the machine's memory."""
    limit = container_limit(container)
    return sizes_of(machine)["MemTotal"] if limit is None else limit


def container_limit(container: Path) -> int | None:
    """The bytes that a container may have; None where there is none, or it has no limit."""
    try:
        limit = (container / "memory.max").read_text().strip()
    except FileNotFoundError:  # no container: the root of all groups has no such file
        return None
    return None if limit == "max" else int(limit)


def inactive_file(container: Path) -> int:
    """Bytes of files that nobody has used lately."""
    for line in (container / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file":
            return int(value)
    return 0


def sizes_of(machine: Path) -> dict[str, int]:
    """Bytes by the names that the kernel gives them."""
    rows = (line.split() for line in machine.read_text().splitlines())
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if row[2:] == ["kB"]}
