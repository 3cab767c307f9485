"""One service for all clients: that of CONFORMANCE_URL, or one of its own on the real weights."""

import json
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.conformance.rows import Row, row_of
from tests.conformance.service import Service, started

URL = os.environ.get("CONFORMANCE_URL")
ROWS = os.environ.get("CONFORMANCE_ROWS")
"""A file that gets a line of JSON for each test."""


@pytest.fixture(scope="session")
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    if URL:
        yield Service(URL)
        return
    names = ("minilm_artifact", "smollm2_artifact")
    models = [str(request.getfixturevalue(name).folder) for name in names]
    with started(models, tmp_path_factory.mktemp("conformance")) as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if ROWS and (report.when == "call" or report.failed):
        row = row_of(item, report.passed)
        if row is not None and not report.skipped:
            write(row)
    return report


def write(row: Row) -> None:
    with Path(str(ROWS)).open("a") as lines:
        lines.write(json.dumps(row.as_json()) + "\n")
