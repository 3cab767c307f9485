"""Ctrl-C ends every process that `anatomy serve` started."""

import os
import signal
import time
from pathlib import Path

import pytest

from export.artifact import Artifact
from loadtests.service_process import serve


def processes_of(session: int) -> set[int]:
    """Living processes of a session (`/proc`, Linux), zombies left out."""
    found: set[int] = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, _, _, process_session = text.rpartition(")")[2].split()[:4]
        if int(process_session) == session and state != "Z":
            found.add(int(status.parent.name))
    return found


def test_ctrl_c_stops_the_plain_service(minilm_artifact: Artifact, tmp_path: Path) -> None:
    with serve([str(minilm_artifact.folder), "--plain"], log=tmp_path / "log") as running:
        leader = listener_of(running.port)
        session = os.getsid(leader)
        assert leader in processes_of(session)
        os.kill(leader, signal.SIGINT)
        wait_for_end(session)


@pytest.mark.ray
def test_ctrl_c_stops_ray_and_all_that_it_started(
    minilm_artifact: Artifact, tmp_path: Path
) -> None:
    before = ray_processes()
    with serve([str(minilm_artifact.folder)], log=tmp_path / "log"):
        assert ray_processes() - before
    assert not ray_processes() - before


def ray_processes() -> set[int]:
    """Processes of Ray and HAProxy on this machine."""
    found: set[int] = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if any(name in line for name in (b"ray::", b"raylet", b"gcs_server", b"haproxy")):
            found.add(int(path.parent.name))
    return found


def listener_of(port: int) -> int:
    """The process that listens on `port`, by the sockets it holds."""
    local = f":{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if row[1].endswith(local) and row[3] == "0A"}
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if any(target == f"socket:[{inode}]" for inode in inodes):
            return int(link.parts[2])
    raise AssertionError(f"nobody listens on {port}")


def wait_for_end(session: int) -> None:
    deadline = time.monotonic() + 20
    while processes_of(session) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_of(session)
