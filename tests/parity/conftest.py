"""Tiny models run on one thread: with more, waiting for one another takes most of the time."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def one_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    if "family" in request.module.__name__ or "mutants" in request.module.__name__:
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
