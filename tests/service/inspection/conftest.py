"""One set of tiny models for all tests of this folder."""

from pathlib import Path

import pytest

from tests.support.inspected import inspected


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """The cache and the artifacts."""
    return inspected(tmp_path_factory.mktemp("inspect"))
