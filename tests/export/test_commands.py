"""`anatomy export`: a damaged artifact in the cache is noticed, and made again."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from export.artifact import GRAPH_DATA, MANIFEST, Artifact
from export.commands import app
from tests.support.checkpoints import save_tiny_bert


def export(checkpoint: Path, cache: Path) -> Path:
    result = CliRunner().invoke(app, [str(checkpoint), "--cache", str(cache)])
    assert result.exit_code == 0, result.output
    return Path(result.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("damage", ["truncated manifest", "flipped byte", "missing tokenizer"])
def test_a_damaged_artifact_is_made_again(tmp_path: Path, damage: str) -> None:
    checkpoint = save_tiny_bert(tmp_path / "tiny")
    folder = export(checkpoint, tmp_path / "cache")
    if damage == "truncated manifest":
        (folder / MANIFEST).write_text("{")
    elif damage == "missing tokenizer":
        (folder / "tokenizer.json").unlink()
    else:
        content = bytearray((folder / GRAPH_DATA).read_bytes())
        content[100] ^= 1
        (folder / GRAPH_DATA).write_bytes(content)
    assert export(checkpoint, tmp_path / "cache") == folder
    Artifact.open(folder)


def test_without_a_terminal_each_step_is_a_line(tmp_path: Path) -> None:
    checkpoint = save_tiny_bert(tmp_path / "tiny")
    result = CliRunner().invoke(app, [str(checkpoint), "--cache", str(tmp_path / "cache")])
    said = result.stderr.splitlines()
    assert said[0] == "exporting tiny (minutes; cached from then on)"
    assert "tiny: reading weights" in said
    assert len(set(said)) == len(said)


def test_an_unknown_source_ends_with_a_line_and_status_1(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["no-such-model", "--cache", str(tmp_path)])
    assert result.exit_code == 1
    assert "doesn't exist" in result.stderr
