"""The artifact on disk: refused when changed or unknown, written whole or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest

from export.artifact import (
    ENCODER_GRAPH,
    FORMAT_VERSION,
    GRAPH,
    Artifact,
    ArtifactError,
    Kind,
    Manifest,
    Parity,
    Precision,
    digests,
    read_manifest,
    write_golden,
    write_manifest,
    writing,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An artifact whose graph is not one: nothing here runs it."""
    made = tmp_path / "artifact"
    made.mkdir()
    (made / "model.onnx").write_bytes(b"graph")
    (made / "golden.npz").write_bytes(b"golden")
    manifest = Manifest(
        format_version=FORMAT_VERSION, name="tiny", kind=Kind.ENCODER, family="bert", config={},
        precision=Precision.FP32, inputs=("input_ids",), outputs=("out",), served=(),
        vocab_size=3, max_tokens=4, source="a test", licence="none", created=0, tools={},
        parity=Parity(largest_error=0.0, smallest_cosine=1.0, processor="any"),
        files=digests(made),
    )  # fmt: skip
    write_manifest(made, manifest)
    return made


def change_manifest(folder: Path, **values: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_what_was_written_is_read_back(folder: Path) -> None:
    assert Artifact.open(folder).manifest == read_manifest(folder)
    assert set(Artifact.open(folder).manifest.files) == {"model.onnx", "golden.npz"}


def test_a_changed_file_is_refused_by_name(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"grapf")
    with pytest.raises(ArtifactError, match=r"model\.onnx is corrupt: sha256 [0-9a-f]{64}"):
        Artifact.open(folder)


def test_a_missing_file_is_refused_by_name(folder: Path) -> None:
    (folder / "golden.npz").unlink()
    with pytest.raises(ArtifactError, match=r"golden\.npz is missing; export the model again"):
        Artifact.open(folder)


@pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1, "1", None])
def test_an_unknown_format_is_refused_with_both_versions(folder: Path, version: object) -> None:
    change_manifest(folder, format_version=version)
    with pytest.raises(
        ArtifactError, match=f"version {version!r}, this program reads {FORMAT_VERSION}"
    ):
        Artifact.open(folder)


def test_a_field_that_the_format_lacks_is_refused(folder: Path) -> None:
    change_manifest(folder, surprise=1)
    with pytest.raises(ArtifactError, match="surprise"):
        Artifact.open(folder)


def test_half_a_manifest_and_none_are_told_apart(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(ArtifactError, match="corrupt"):
        Artifact.open(folder)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"it has no manifest\.json"):
        Artifact.open(folder)


def test_golden_arrays_are_kept_apart_by_graph(folder: Path) -> None:
    arrays = {name: np.arange(number) for number, name in enumerate(("input_ids", "lengths"), 1)}
    outputs = {"input_ids": np.ones(2), "logits": np.zeros((2, 3), np.float32)}
    write_golden(folder, {GRAPH: (arrays, outputs), ENCODER_GRAPH: ({}, arrays)})
    artifact = Artifact(folder, read_manifest(folder))
    for graph, expected in ((GRAPH, (arrays, outputs)), (ENCODER_GRAPH, ({}, arrays))):
        for found, wanted in zip(artifact.golden(graph), expected, strict=True):
            assert found.keys() == wanted.keys()
            assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def fail_halfway(target: Path) -> None:
    with writing(target) as fresh:
        (fresh / "file").write_text("new")
        raise RuntimeError("halfway")


def test_a_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "model"
    with pytest.raises(RuntimeError, match="halfway"):
        fail_halfway(target)
    assert list(target.parent.iterdir()) == []


def test_a_block_that_fails_leaves_the_old_artifact(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with writing(target) as fresh:
        (fresh / "file").write_text("old")
    with pytest.raises(RuntimeError, match="halfway"):
        fail_halfway(target)
    assert (target / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_artifact_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with writing(target) as fresh:
        (fresh / "old_only").write_text("old")
    with writing(target) as fresh:
        (fresh / "new_only").write_text("new")
        assert not (target / "new_only").exists()
    assert [path.name for path in target.iterdir()] == ["new_only"]
    assert list(tmp_path.iterdir()) == [target]
