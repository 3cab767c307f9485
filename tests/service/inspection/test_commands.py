"""`anatomy inspect` on a terminal, and the files it writes."""

import base64
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from service.inspection.commands import app
from service.inspection.panels import SHADES, shade


@pytest.fixture
def run(folders: tuple[Path, list[Path]], monkeypatch: pytest.MonkeyPatch):
    cache, models = folders
    monkeypatch.setenv("ANATOMY_CACHE_FOLDER", str(cache))
    monkeypatch.setenv("COLUMNS", "120")

    def invoke(model: int, *arguments: str) -> Result:
        return CliRunner().invoke(app, [str(models[model]), *arguments])

    return invoke


def test_a_head_is_a_shaded_grid_with_tokens(run) -> None:
    shown = run(0, "Time", "--layer", "1", "--head", "2")
    assert shown.exit_code == 0, shown.output
    assert "encoder, layer 1, head 2" in shown.output
    rows = [line for line in shown.output.splitlines() if re.match(r"^ *[Time] \d ", line)]
    assert [row.split()[0] for row in rows] == list("Time")
    assert all(re.search(r"[01]\.\d\d [Time]$", row.rstrip()) for row in rows)
    assert "is no explanation" in re.sub(r"\s+", " ", shown.output)


def test_what_would_come_next_is_told(run) -> None:
    shown = run(2, "Time", "--top", "3")
    assert "head 0" in shown.output
    assert re.search(r"next after token 3: (. 0\.\d+(, )?){3}", shown.output)


def test_json_has_every_layer_and_head(run) -> None:
    shown = run(3, "abc", "--second", "de", "--json")
    answer = json.loads(shown.stdout)
    assert {(entry["stack"], entry["kind"]) for entry in answer["attentions"]} == {
        ("encoder", "self"), ("decoder", "self"), ("decoder", "cross"),
    }  # fmt: skip
    heads = answer["stacks"]["decoder"]["heads"]
    assert all(len(entry["heads"]) == heads for entry in answer["attentions"])
    one = json.loads(run(3, "abc", "--json", "--layer", "0", "--head", "1").stdout)
    assert {entry["layer"] for entry in one["attentions"]} == {0}
    assert {tuple(entry["heads"]) for entry in one["attentions"]} == {(1,)}


def test_a_page_has_what_it_shows_and_escapes_it(run, tmp_path: Path) -> None:
    text = "</script><b>&"
    shown = run(1, text, "--layer", "1", "--head", "2", "--html", str(tmp_path / "page.html"))
    assert shown.exit_code == 0, shown.output
    page = Inlined()
    page.feed((tmp_path / "page.html").read_text())
    assert page.fetched == []
    assert "b" not in page.tags
    assert page.tags.count("script") == 2
    assert "layer=1&heads=2" in page.inlined["address"]
    bodies = [json.loads(body) for body in page.inlined["answers"]]
    assert {body["text"] for body in bodies} == {text}
    assert {layer for body in bodies if "q" in body["include"] for layer in body["layers"]} == {
        0,
        1,
    }
    answers = [base64.b64decode(answer) for answer in page.inlined["answers"].values()]
    assert all(int.from_bytes(answer[:8], "little") < len(answer) for answer in answers)


class Inlined(HTMLParser):
    """The tags of a page, whatever it would fetch, and the data that lies in it."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str | None] = []
        self.inlined: dict[str, Any] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href")]
        self._is_data = ("id", "inlined") in attrs

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["script"] and self._is_data and not self.inlined:
            self.inlined = json.loads(data)


def test_a_picture_is_written(run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    shown = run(0, "Time", "--png", str(tmp_path / "grid.png"))
    assert shown.exit_code == 0, shown.output
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_a_picture_is_refused_with_advice(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    shown = run(0, "Time", "--png", str(tmp_path / "grid.png"))
    assert shown.exit_code == 1
    assert "--png needs matplotlib" in re.sub(r"\s+", " ", shown.output)


@pytest.mark.parametrize("option", ["--png", "--html"])
def test_a_file_that_cant_be_written_is_named(run, tmp_path: Path, option: str) -> None:
    file = tmp_path / "nowhere" / "page"
    shown = run(0, "Time", option, str(file))
    assert shown.exit_code == 1
    assert f"{file} can't be written: No such file or directory" in shown.output


def test_a_layer_that_there_is_not_is_named(run) -> None:
    shown = run(0, "Time", "--layer", "9")
    assert shown.exit_code == 1
    assert "has layers 0 to 1" in re.sub(r"\s+", " ", shown.output)


def test_a_larger_weight_is_darker() -> None:
    marks = [shade(weight) for weight in (0.0, 0.05, 0.2, 0.3, 0.6, 1.0)]
    assert marks == [mark for _, mark in reversed(SHADES)]
