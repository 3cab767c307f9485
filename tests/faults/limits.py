"""A small disk, and a small memory for one process: what the kernel gives root means for."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

DISK_BYTES = 8 * 2**20
MEMORY_BYTES = 8 * 2**20
"""Beyond what the process has already."""
CONTROL_GROUPS = Path("/sys/fs/cgroup")


def require_root(why: str) -> None:
    if os.geteuid() != 0:
        pytest.skip(f"root is needed {why}")


@contextmanager
def little_disk(folder: Path) -> Iterator[Path]:
    """A file system of 8 MiB at `folder` until the block ends; the folder itself without root."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "faults", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode != 0:
        yield folder
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write to a new file until its disk is full."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


@contextmanager
def little_memory(process_id: int) -> Iterator[None]:
    """From now on the kernel ends the process when it takes 8 MiB more (cgroup v1 or v2)."""
    first = CONTROL_GROUPS / "memory"
    parent, limit = (
        (first, "memory.limit_in_bytes") if first.is_dir() else (CONTROL_GROUPS, "memory.max")
    )
    group = parent / f"anatomy-faults-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    try:
        if not (group / limit).exists():
            pytest.skip(f"{parent} has no memory controller")
        # What it has stays counted where it was taken.
        (group / limit).write_text(str(MEMORY_BYTES))
        (group / "cgroup.procs").write_text(str(process_id))
        yield
    finally:
        for left in (group / "cgroup.procs").read_text().split():
            (parent / "cgroup.procs").write_text(left)
        group.rmdir()
