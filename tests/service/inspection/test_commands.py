"""`anatomy inspect` on a terminal, and the files it writes."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from service.inspection.commands import app
from service.inspection.panels import SHADES, Panel, shade, svg


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


class Resources(HTMLParser):
    """The tags of a page, and whatever it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href")]


def test_a_page_needs_nothing_else_and_escapes_what_it_shows(run, tmp_path: Path) -> None:
    shown = run(1, "<b>&", "--html", str(tmp_path / "page.html"), "--include", "attributions")
    assert shown.exit_code == 0, shown.output
    text = (tmp_path / "page.html").read_text()
    page = Resources()
    page.feed(text)
    assert not page.fetched
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert page.tags.count("rect") == 16
    assert "loses without" in text


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


def test_a_layer_that_there_is_not_is_named(run) -> None:
    shown = run(0, "Time", "--layer", "9")
    assert shown.exit_code == 1
    assert "has layers 0 to 1" in re.sub(r"\s+", " ", shown.output)


def test_a_larger_weight_is_darker() -> None:
    marks = [shade(weight) for weight in (0.0, 0.05, 0.2, 0.3, 0.6, 1.0)]
    assert marks == [mark for _, mark in reversed(SHADES)]
    panel = Panel("here", np.array([[0.25, 0.75]], np.float32), ("q",), ("a", "b"))
    assert re.findall(r'fill-opacity="([\d.]+)"', svg(panel)) == ["0.250", "0.750"]
