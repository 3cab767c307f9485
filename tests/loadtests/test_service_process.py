"""A service of one's own ends with whoever started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadtests.service_process import told_to_end
from tests.support.documents import ROOT

# The service is one that never gets ready; `started` is written once it is waited for.
PROGRAM = """
import pathlib, sys, time
from loadtests import service_process
folder = pathlib.Path(sys.argv[1])
service_process.anatomy_program = lambda: sys.argv[2]
def wait(process, *_):
    (folder / "part").write_text(str(process.pid))
    (folder / "part").rename(folder / "started")
    time.sleep(60)
service_process.wait_until_ready = wait
with service_process.serve((), log=folder / "log"):
    pass
"""
SERVICE = """\
#!/bin/sh
exec sleep 60
"""


def is_running(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_whoever_started_it(tmp_path: Path, name: signal.Signals) -> None:
    service, started = tmp_path / "anatomy", tmp_path / "started"
    service.write_text(SERVICE)
    service.chmod(0o755)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(service)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as starter:
        deadline = time.monotonic() + 60
        while not started.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process_id = int(started.read_text())
        assert is_running(process_id)
        starter.send_signal(name)
        assert starter.wait(100) != 0
    assert not is_running(process_id)


def test_afterwards_sigterm_is_what_it_was() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, told_to_end():
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
