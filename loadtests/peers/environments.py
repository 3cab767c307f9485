"""Peers' environments: one virtual environment each, made on demand, kept in the cache folder."""

import subprocess
import sys
from pathlib import Path

from loadtests.peers.contenders import Environment

TORCH = "torch==2.13.0"
FINISHED = "installed.txt"


def interpreter_of(environment: Environment, folder: Path) -> Path:
    """The Python of `environment`, in `folder/<name>`; installed now if it isn't there.

    Raises `subprocess.CalledProcessError` when pip fails; what pip said is on standard error.
    """
    home = folder / environment.name
    python = home / "bin" / "python"
    # Installed first and alone, so that pip takes a CPU build of it where the machine knows one.
    first = (TORCH,) if environment.torch else ()
    wanted = "\n".join((*first, *environment.requirements))
    finished = home / FINISHED
    if finished.exists() and finished.read_text() == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    if first:
        subprocess.run([*pip, *first], check=True)
    subprocess.run([*pip, *first, *environment.requirements], check=True)
    finished.write_text(wanted)
    return python
