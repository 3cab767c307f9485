"""The worked example: the family that the page adds is added, for the time of a test."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import model_core.checkpoints.load
import model_core.families
from model_core.config import ConfigError
from model_core.families import FAMILIES, Family, find_family
from tests.support.documents import ROOT, Block, blocks, dead_links, run_page
from tests.support.families import Case
from tests.support.families.exported import export_case
from tests.support.families.parity import (
    largest_weights,
    load_ours,
    our_greedy,
    parity_error,
    reference_greedy,
    round_trip_error,
)

GUIDE = ROOT / "docs" / "add-a-family.md"
NAME = "phi"
SEEDS = (0, 1)
TOLERANCE = 1e-5  # that of the family tree: float32 roundings, in another order


def page() -> str:
    return GUIDE.read_text(encoding="utf-8")


def module_block(docstring: str) -> Block:
    """The page's code of a module, known by how its docstring begins."""
    return next(block for block in blocks(page()) if block.code.startswith(f'"""{docstring}'))


def write_module(
    name: str, block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """The module `name` with the block's code, importable until the test ends."""
    path = folder / f"{name}.py"
    path.write_text(block.code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Family:
    """The page's family, in copies of the list for as long as the test runs."""
    module = write_module("model_core.families.phi", module_block("Phi ("), tmp_path, monkeypatch)
    for user in (model_core.families, model_core.checkpoints.load):
        monkeypatch.setattr(user, "FAMILIES", (*FAMILIES, module.PHI))
    return module.PHI


@pytest.fixture
def cases(family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Case, ...]:
    """The page's parity cases."""
    name = "tests.support.families.phi"
    return write_module(name, module_block("Phi."), tmp_path, monkeypatch).CASES


def folders(parent: Path) -> Iterator[Path]:
    """New folders, one after another."""
    number = 0
    while True:
        folder = parent / str(number)
        folder.mkdir()
        yield folder
        number += 1


def test_the_tree_does_not_have_the_family_of_the_example() -> None:
    with pytest.raises(ConfigError, match=f"model type '{NAME}' is not supported"):
        find_family(FAMILIES, NAME)


def test_the_cases_cover_every_head_of_the_family(family: Family, cases: tuple[Case, ...]) -> None:
    assert all(set(case.heads) == set(family.heads) for case in cases)


@pytest.mark.parametrize(
    "head", [None, "language_model", "sequence_classifier", "token_classifier"]
)
def test_outputs_equal_the_reference(
    cases: tuple[Case, ...], head: str | None, tmp_path: Path
) -> None:
    folder = folders(tmp_path)
    errors = {
        (str(case), seed): parity_error(case, head, seed, next(folder))
        for case in cases
        for seed in SEEDS
    }
    assert {what: error for what, error in errors.items() if error > TOLERANCE} == {}


@pytest.mark.parametrize(
    "head", [None, "language_model", "sequence_classifier", "token_classifier"]
)
def test_what_is_saved_loads_in_the_reference(
    cases: tuple[Case, ...], head: str | None, tmp_path: Path
) -> None:
    folder = folders(tmp_path)
    errors = {str(case): round_trip_error(case, head, 0, next(folder)) for case in cases}
    assert {what: error for what, error in errors.items() if error > TOLERANCE} == {}


def test_greedy_tokens_equal_the_reference(cases: tuple[Case, ...], tmp_path: Path) -> None:
    folder = folders(tmp_path)
    for case in cases:
        reference = case.reference("language_model", 0)
        ours = load_ours(reference, next(folder), ["language_model"])
        prompt = case.token_ids(0)[0]
        found = our_greedy(ours, "language_model", prompt, 32)
        assert found == reference_greedy(reference, prompt, 32), case


def test_attention_is_far_from_uniform(cases: tuple[Case, ...], tmp_path: Path) -> None:
    folder = folders(tmp_path)
    largest = {str(case): largest_weights(case, 0, next(folder)) for case in cases}
    assert {what: weight for what, weight in largest.items() if weight < 0.5} == {}


def test_it_is_exported_with_nothing_more(cases: tuple[Case, ...], tmp_path: Path) -> None:
    artifact, _ = export_case(cases[0], tmp_path)
    # That of the exports of the family tree: float32 through other kernels.
    assert artifact.manifest.parity.largest_error <= 1e-4


def test_the_other_snippets_give_what_the_page_says(family: Family) -> None:
    whole = page()
    for docstring in ("Phi (", "Phi."):
        whole = whole.replace(module_block(docstring).code, "\n")
    differences = run_page(whole, "docs/add-a-family.md", {})
    assert not differences, "\n".join(differences)


def test_no_link_of_the_page_is_dead() -> None:
    assert dead_links(GUIDE) == []
