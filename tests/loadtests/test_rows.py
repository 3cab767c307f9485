"""Rows, and the figures that are made of them."""

import csv
from pathlib import Path

import pytest

from loadtests.rows import (
    BROKEN,
    Outcome,
    Row,
    percentile_ms,
    percentiles,
    row_of_stream,
    write_csv,
)
from loadtests.sse import StreamedText


def row(status: int = 200, **fields: object) -> Row:
    return Row("chat", 1.0, 0.1, 2.0, status, **fields)  # pyright: ignore[reportArgumentType]


def test_success_refusal_and_failure_are_counted_apart() -> None:
    assert row(200).outcome is Outcome.ANSWERED
    assert row(429).outcome is Outcome.SHED
    for failed in (row(500), row(503), row(400), row(BROKEN), row(200, error="cut")):
        assert failed.outcome is Outcome.FAILED


def test_the_time_of_a_token_is_that_after_the_first_shared_by_the_others() -> None:
    assert row(first_token_s=0.5, gaps_s=(0.4, 0.6, 0.4)).time_per_output_token_s == 0.5
    assert row(first_token_s=0.5).time_per_output_token_s is None
    assert row().time_per_output_token_s is None


def test_a_stream_is_timed_from_when_it_was_due() -> None:
    # Due at 10.0, begun at 10.5: the half second that it waited is part of what the user saw.
    streamed = StreamedText(10.5, (11.0, 11.5, 12.5), 13.0, "a b c", "stop")
    found = row_of_stream("chat", 10.0, 0.5, streamed)
    assert (found.latency_s, found.first_token_s, found.gaps_s) == (3.0, 1.0, (0.5, 1.0))
    assert found.time_per_output_token_s == 1.0
    assert found.ended_s == 13.0


def test_a_percentile_needs_two_values() -> None:
    assert percentile_ms([0.1], 50) is None
    assert percentile_ms([0.1, 0.3], 50) == pytest.approx(200)
    assert percentiles([0.1, 0.3], 50, 99).keys() == {"p50", "p99"}


def test_rows_are_lines_of_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    write_csv([row(first_token_s=0.5, gaps_s=(0.5, 0.5)), row(429, retry_after_s=3)], path)
    with path.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["tokens"], first["outcome"], first["time_per_output_token_s"]) == (
        "3", "answered", "0.75",
    )  # fmt: skip
    assert (second["tokens"], second["outcome"], second["retry_after_s"]) == ("", "shed", "3")
