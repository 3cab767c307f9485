"""The page of clients says how each test went, and nothing twice."""

from tests.conformance.__main__ import page
from tests.conformance.rows import CANT, WORKS, Row


def test_the_page_has_a_table_for_each_client_with_a_row_for_each_call() -> None:
    rows = [
        Row("b", "2.0", "chat", WORKS),
        Row("a", "1.0", "embed", CANT, "it has none"),
        Row("a", "1.0", "embed", CANT, "it has none"),
        Row("a", "1.1", "embed", "FAILS"),
    ]
    _, *lines = page(rows).split("## ")
    assert [line.splitlines()[0] for line in lines] == ["a 1.0", "a 1.1", "b 2.0"]
    assert lines[0].count("| embed | can't | it has none |") == 1
    assert "| embed | FAILS |  |" in lines[1]
