"""Public data becomes parts that share nothing; what can't be used is counted or named."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from model_core.training.corpora.corpus import Corpus, some_of, write_corpus
from model_core.training.corpora.messages import messages, plain
from model_core.training.corpora.verses import verses
from model_core.training.corpora.words import definitions, glosses
from model_core.training.errors import TrainingError
from model_core.training.tables import Column, as_text, read_table
from service.cli import main

WORDNET = Path("/usr/share/wordnet")


def write_catalogue(path: Path, pairs: dict[str, str]) -> None:
    polib: Any = pytest.importorskip("polib", reason="comes with the extra `train`")
    catalogue = polib.POFile()
    catalogue.metadata = {"Content-Type": "text/plain; charset=utf-8"}
    for message, translation in pairs.items():
        catalogue.append(polib.POEntry(msgid=message, msgstr=translation))
    path.parent.mkdir(parents=True, exist_ok=True)
    catalogue.save_as_mofile(str(path))


def write_bible(path: Path, chapters: int = 100) -> Path:
    lines = [f"Ge{n}:{v} And it was {n} and {v}." for n in range(1, chapters + 1) for v in (1, 2)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_catalogues_of_folders_and_wheels_are_read_together(tmp_path: Path):
    write_catalogue(
        tmp_path / "app" / "locale" / "fr" / "LC_MESSAGES" / "app.mo",
        {"&Open": "&Ouvrir", "%d files": "%d fichiers", "OK": "OK", "%s": "%s", "No": ""},
    )
    write_catalogue(tmp_path / "app" / "locale" / "ja" / "LC_MESSAGES" / "app.mo", {"Open": "開く"})
    other = tmp_path / "other" / "fr" / "LC_MESSAGES" / "other.mo"
    write_catalogue(other, {"Open": "Ouvrir ceci", "<b>Bold</b> {name}": "<b>Gras</b> {name}"})
    wheel = tmp_path / "other.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(other, "other/locale/fr/LC_MESSAGES/other.mo")

    corpus = messages([tmp_path / "app", wheel], "fr")
    pairs = {row["source"]: row["target"] for part in corpus.parts.values() for row in part}
    # The first translation of a message is the one that stays.
    assert pairs == {"Open": "Ouvrir", "files": "fichiers", "Bold": "Gras"}
    assert corpus.left_out == {"occur twice": 1, "stay as they are": 1, "have no letters": 1}
    with pytest.raises(TrainingError, match="0 catalogues under de/LC_MESSAGES"):
        messages([tmp_path / "app"], "de")
    with pytest.raises(TrainingError, match="neither a folder nor a wheel"):
        messages([tmp_path / "nowhere"], "fr")


def test_a_damaged_catalogue_is_named(tmp_path: Path):
    pytest.importorskip("polib", reason="comes with the extra `train`")
    path = tmp_path / "fr" / "LC_MESSAGES" / "app.mo"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no catalogue at all")
    with pytest.raises(TrainingError, match=r"app\.mo is no catalogue"):
        messages([tmp_path], "fr")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Search &and\nreplace", "Search and replace"),
        ("%(count)d of {total} & more", "of & more"),
        ("100 % sure", "100 % sure"),
    ],
)
def test_what_programs_fill_in_is_taken_out(message: str, expected: str):
    assert plain(message) == expected


def test_chapters_are_whole_and_in_one_part(tmp_path: Path):
    corpus = verses(write_bible(tmp_path / "kjv.txt"))
    train, held_out = (corpus.parts[name] for name in ("train", "validation"))
    assert len(train) + len(held_out) == 100
    assert 1 <= len(held_out) <= 15
    assert all(row["text"].count("\n") == 2 for row in [*train, *held_out])
    assert train[0]["text"].startswith("And it was ")


@pytest.mark.parametrize(
    ("text", "said"), [("", "is empty"), ("Ge1:1 In\nGenesis\n", "line 2 is no verse: 'Genesis'")]
)
def test_what_is_no_bible_is_refused(tmp_path: Path, text: str, said: str):
    file = tmp_path / "kjv.txt"
    file.write_text(text)
    with pytest.raises(TrainingError, match=said):
        verses(file)


@pytest.mark.skipif(not WORDNET.is_dir(), reason="Debian's wordnet-base is not installed")
def test_parts_of_wordnet_share_no_word_and_no_definition():
    corpus = definitions(WORDNET, limit=500)
    assert [len(corpus.parts[name]) for name in ("validation", "test")] == [500, 500]
    for key in ("anchor", "positive"):
        found = [{row[key] for row in part} for part in corpus.parts.values()]
        assert not found[0] & found[1] | found[0] & found[2] | found[1] & found[2]
    # Not the beginning of a file alone, where all are nouns.
    labels = {row["label"] for row in glosses(WORDNET, limit=500).parts["validation"]}
    assert {label.partition(".")[0] for label in labels} == {"noun", "verb", "adj", "adv"}


def test_some_rows_are_the_same_whatever_lies_around_them():
    rows = [{"text": str(number)} for number in range(200)]
    some = some_of(rows, "text", 50)
    assert len(some) == 50
    assert some == [row for row in rows if row in some]
    more = some_of(rows, "text", 60)
    assert all(row in more for row in some)
    assert some_of(rows, "text", None) == rows


def test_a_corpus_is_written_with_an_account_and_read_as_a_table(tmp_path: Path):
    rows = [{"text": "one\u2028two"}, {"text": "three"}]
    corpus = Corpus({"train": rows, "test": rows[:1]}, "here", "none", "row", {"bad": 2})
    account = write_corpus(corpus, tmp_path / "corpus")
    assert account["parts"]["train"]["rows"] == 2
    assert json.loads((tmp_path / "corpus" / "corpus.json").read_text()) == account
    table = read_table(tmp_path / "corpus" / "train.jsonl", [Column("text", "--text", as_text)])
    assert list(table.rows) == rows


def test_the_commands_write_and_say_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def ended(*arguments: str) -> Any:
        with pytest.raises(SystemExit) as end:
            main(["corpus", *arguments])
        return end.value.code

    bible = write_bible(tmp_path / "kjv.txt")
    assert ended("verses", str(bible), "--output", str(tmp_path / "verses")) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(tmp_path / "verses")
    assert "train 9" in said.err
    parts = [str(tmp_path / "verses" / f"{name}.jsonl") for name in ("train", "validation")]
    assert ended("bits", *parts) == 0
    assert "xz -9 after the training text" in capsys.readouterr().out
    assert ended("glosses", str(tmp_path), "--output", str(tmp_path / "glosses")) == 1
    assert "wordnet-base" in capsys.readouterr().err
    assert not (tmp_path / "glosses").exists()
