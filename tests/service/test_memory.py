"""Memory as the kernel tells of it."""

from pathlib import Path

import pytest

from export.session import memory_limit
from service.memory import memory_in_use

MACHINE = """\
MemTotal:        1000 kB
MemFree:          100 kB
MemAvailable:     400 kB
HugePages_Total:       0
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text(MACHINE)
    return path


def test_a_container_with_a_limit_tells_of_itself(tmp_path: Path, machine: Path) -> None:
    (tmp_path / "memory.max").write_text("4096\n")
    (tmp_path / "memory.current").write_text("3000\n")
    (tmp_path / "memory.stat").write_text("anon 1500\nfile 1400\ninactive_file 1000\n")
    assert memory_in_use(tmp_path, machine) == 2000


def test_so_does_one_of_the_first_version(tmp_path: Path, machine: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("4096\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("3000\n")
    (tmp_path / "memory" / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 500\n")
    assert memory_in_use(tmp_path, machine) == 2500


@pytest.mark.parametrize("limit", ["max\n", f"{2**62}\n", None])
def test_without_a_limit_it_is_the_machines(
    tmp_path: Path, machine: Path, limit: str | None
) -> None:
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit)
    assert memory_in_use(tmp_path, machine) == 600 * 1024


def test_this_machine_has_some() -> None:
    assert 0 < memory_in_use() < memory_limit()
