"""docs/faults.md: every row names tests, and they exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
ROWS = [
    line.strip("| ").split(" | ")
    for line in PAGE.partition("<!-- seen")[0].splitlines()
    if line.startswith("| ") and not line.startswith(("| fault |", "| --- |"))
]


def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_bytes())
    kinds = ast.FunctionDef, ast.AsyncFunctionDef
    return {node.name for node in tree.body if isinstance(node, kinds)}


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_names_a_fault_an_answer_and_tests_that_exist(row: list[str]) -> None:
    fault, answer, named = row
    assert fault
    assert answer
    tests = NAMED.findall(named)
    assert ", ".join(f"`{path}::{name}`" for path, name in tests) == named
    for path, name in tests:
        assert name in functions_of(ROOT / path), f"{path} has no {name}"


def test_the_page_has_its_rows() -> None:
    assert len(ROWS) > 25
    assert len({fault for fault, _, _ in ROWS}) == len(ROWS)
