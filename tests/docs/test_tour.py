"""The tour: its snippets run in order, and give what the page says."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch

from export import catalogue
from tests.support.documents import ROOT, blocks, dead_links, run_page, unpasteable

TOUR = ROOT / "docs" / "tour.md"


@pytest.fixture
def alone() -> Iterator[None]:
    """One thread and random numbers of its own: the snippets' products are tiny."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(threads)


def page(*lines: str) -> str:
    """A page of one block."""
    return "\n".join(("```python", *lines, "```", ""))


def test_every_snippet_gives_what_the_page_says(
    alone: None,
    minilm_files: Mapping[str, Path],
    model_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catalogue, "default_cache_folder", lambda: model_cache)
    differences = run_page(TOUR.read_text(encoding="utf-8"), "docs/tour.md", {})
    assert not differences, "\n".join(differences)


def test_no_link_of_the_tour_is_dead() -> None:
    assert dead_links(TOUR) == []


def test_the_snippets_can_be_pasted_into_a_plain_interpreter() -> None:
    assert unpasteable(TOUR.read_text(encoding="utf-8")) == []


def test_what_an_interpreter_would_stumble_over_is_found() -> None:
    assert unpasteable(page("for x in ():", "    x", "y = 1")) == [4]
    assert unpasteable(page("def f():", "    x = 1", "", "    return x")) == [5]
    assert unpasteable(page("for x in ():", "    x", "", "y = (", "", "    1)")) == []


def test_the_lines_of_the_tour_fit_in_a_terminal() -> None:
    long = [
        line
        for block in blocks(TOUR.read_text(encoding="utf-8"))
        for line in block.code.splitlines()
        if len(line) > 100
    ]
    assert long == []


@pytest.mark.parametrize(
    "lines",
    [
        ("1 / 3  # → 0.33",),
        ("[2 / 3, 7]", "# → [0.667,", "#    7]"),
        ("x = 2", "x == 2, 'é'  # → (True, 'é')"),
        ("import torch", "torch.eye(2).to(torch.int64)  # → [[1, 0], [0, 1]]"),
        ("torch_size = __import__('torch').zeros(1, 2).shape", "torch_size  # → [1, 2]"),
    ],
)
def test_a_page_that_tells_the_truth_passes(lines: tuple[str, ...]) -> None:
    assert run_page(page(*lines), "page.md", {}) == []


@pytest.mark.parametrize(
    "lines",
    [
        ("1 / 3  # → 0.34",),
        ("[1, 2]  # → [1, 2, 3]",),
        ("True  # → 1",),
        ("3.0  # → 3",),
        ("float('nan')  # → 0.0",),
        ("x = 3  # → 3",),
        ("print('said by nobody')",),
    ],
)
def test_a_page_that_does_not_is_found_out(lines: tuple[str, ...]) -> None:
    assert len(run_page(page(*lines), "page.md", {})) == 1


def test_what_a_block_prints_is_the_text_after_it() -> None:
    code = page("print('a ')", "print('b')")
    assert run_page(f"{code}\n```text\na\nb\n```\n", "page.md", {}) == []
    assert len(run_page(f"{code}\n```text\na\nc\n```\n", "page.md", {})) == 1
