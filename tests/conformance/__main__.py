"""Tries every client on the default models, and writes `docs/conformance.md` of how it went.

`make conformance`; the clients are in an environment of their own, whose Python is named here.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.conformance.rows import Row
from tests.conformance.service import started

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PAGE = ROOT / "docs" / "conformance.md"
HARNESS = HERE / "test_lm_evaluation_harness.py"
MODELS = ("minilm", "smollm2")

PYTEST = ("-m", "pytest", "-q", "-rs")
APART = (
    str(HERE),
    f"--ignore={HARNESS}",
    # Their environment has no torch, which the conftest above this folder imports.
    f"--confcutdir={HERE}",
    # What clients warn of is theirs.
    *("-o", "addopts=--import-mode=importlib", "-o", "filterwarnings=", "-W", "ignore"),
    *("-p", "no:cacheprovider"),
)

HEAD = """# Clients that work unchanged

Each client as its authors publish it, against `anatomy serve --plain` on the default models, with
API keys on. `make conformance` writes this page: a row is a test in `tests/conformance/`, and what
a client can't do is tested as well.
"""


def main(clients_python: str) -> int:
    """Runs the tests of both environments; gives 0 where all pass."""
    with TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        rows.touch()
        told = {"CONFORMANCE_ROWS": str(rows), "CLIENTS_PYTHON": clients_python}
        environment = {**os.environ, **told, "PYTHONPATH": str(ROOT)}
        with started(MODELS, Path(folder)) as service:
            at = environment | {"CONFORMANCE_URL": service.url}
            failed = run([clients_python, *PYTEST, *APART], at)
            # The newest of OpenAI's clients, which others don't take yet, is among our own tests'.
            failed += run([sys.executable, *PYTEST, str(HERE / "test_openai.py")], at)
        failed += run([sys.executable, *PYTEST, str(HARNESS)], environment)
        found = [Row(**json.loads(line)) for line in rows.read_text().splitlines()]
    PAGE.write_text(page(found))
    return int(failed > 0)


def run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Whether it failed."""
    done = subprocess.run(command, env=environment, cwd=ROOT, check=False)
    return int(done.returncode != 0)


def page(rows: Iterable[Row]) -> str:
    """The whole of `docs/conformance.md`."""
    parts = [HEAD]
    ordered = sorted(set(rows), key=client_of)
    for (client, version), group in groupby(ordered, key=client_of):
        lines = [f"## {client} {version}", "", "| call | outcome | |", "| --- | --- | --- |"]
        lines += [
            f"| {row.call} | {row.outcome} | {row.why} |"
            for row in sorted(group, key=lambda row: row.call)
        ]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def client_of(row: Row) -> tuple[str, str]:
    """Its name and version."""
    return row.client, row.version


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
