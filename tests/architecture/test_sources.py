"""What the source must not say, whatever the linters of the day look for."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = ("service", "export", "model_core")
WALL_CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "date.today"}
# The time of day, which answers and logs tell; everything else counts from a monotonic clock.
TELL_THE_TIME = {
    "service/api/boundary.py",
    "service/app.py",
    "service/logs.py",
    "service/metrics.py",
    "service/ray_serve.py",  # what HAProxy says of when a request came is such a time
    "export/inspection/pipeline.py",
    "export/pipeline.py",
}


def nodes(*folders: str) -> Iterator[tuple[str, ast.AST]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_bytes())):
                yield path.relative_to(ROOT).as_posix(), node


def test_no_guard_disappears_under_python_minus_o() -> None:
    found = [
        f"{path}:{getattr(node, 'lineno', 0)}"
        for path, node in nodes(*SHIPPED)
        if isinstance(node, ast.Assert) or (isinstance(node, ast.Name) and node.id == "__debug__")
    ]
    assert found == []


def test_only_what_tells_the_time_looks_at_the_wall_clock() -> None:
    found = {
        path
        for path, node in nodes("service", "export")
        if isinstance(node, ast.Attribute) and ast.unparse(node) in WALL_CLOCKS
    }
    imported = {
        path
        for path, node in nodes("service", "export")
        if isinstance(node, ast.ImportFrom)
        and node.module in ("time", "datetime")
        and {"time", "time_ns"} & {name.name for name in node.names}
    }
    assert found <= TELL_THE_TIME
    assert imported == set()


@pytest.mark.parametrize("name", ["pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"])
def test_nothing_unpickles(name: str) -> None:
    found = [
        path
        for path, node in nodes(*SHIPPED)
        if (isinstance(node, ast.Import) and name in {one.name for one in node.names})
        or (isinstance(node, ast.ImportFrom) and node.module == name)
    ]
    assert found == []
