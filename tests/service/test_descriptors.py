import subprocess
import sys

import pytest

PROGRAM = """
import os, socket
from service.descriptors import occupy_standard_descriptors
occupy_standard_descriptors()
made = socket.socket()
os.write(2, b"a library's warning")
raise SystemExit(made.fileno())
"""


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-", "<&-", ""])
def test_no_connection_gets_the_number_of_a_closed_standard_stream(closed: str) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", PROGRAM],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert done.returncode > 2
