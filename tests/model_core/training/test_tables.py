"""Data is read alike from every kind of file, and what is wrong with it is said."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_core.training.errors import TrainingError
from model_core.training.tables import Column, as_text, read_table, split_by_digest

ROWS = [{"text": "a cat, asleep", "label": "animal"}, {"text": 'a "red"\nhouse', "label": "thing"}]
COLUMNS = [Column("text", "--text-column", as_text), Column("label", "--label-column", as_text)]


def write_json_lines(path: Path) -> None:
    path.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")


def write_separated(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(
            file, ["label", "text"], delimiter="\t" if path.suffix == ".tsv" else ","
        )
        writer.writeheader()
        writer.writerows(ROWS)


def write_parquet(path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("rows.jsonl", write_json_lines),
        ("rows.csv", write_separated),
        ("rows.tsv", write_separated),
        ("rows.parquet", write_parquet),
    ],
)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str, write):
    write(tmp_path / name)
    table = read_table(tmp_path / name, COLUMNS)
    assert list(table.rows) == ROWS
    assert not table.skipped
    # A folder is its files.
    assert list(read_table(tmp_path, COLUMNS).rows) == ROWS


def test_plain_text_has_its_folder_as_a_column(tmp_path: Path):
    for label in ("thing", "animal"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "one.txt").write_text(f"an example of a {label}\n")
    columns = [COLUMNS[0], Column("folder", "--label-column", as_text)]
    rows = read_table(tmp_path, columns).rows
    assert [row["folder"] for row in rows] == ["animal", "thing"]


def test_a_pronouncing_dictionary_has_a_row_for_each_pronunciation(tmp_path: Path):
    (tmp_path / "words.dict").write_text(
        ";;; a remark\nread R EH1 D\nread(2) R IY1 D # in the present\n'cause K AH0 Z\n"
    )
    columns = [Column(name, "", as_text) for name in ("source", "target")]
    rows = read_table(tmp_path / "words.dict", columns).rows
    assert [tuple(row.values()) for row in rows] == [
        ("read", "R EH1 D"), ("read", "R IY1 D"), ("'cause", "K AH0 Z"),
    ]  # fmt: skip
    # Split by word, whatever its pronunciations.
    train, validation = split_by_digest([*rows, *rows], "source", 0.5)
    assert not {row["source"] for row in train} & {row["source"] for row in validation}


def test_nan_is_no_label(tmp_path: Path):
    """What pandas writes for a value that is missing would else be a label of that name."""
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": NaN}\n'
                    '{"text": NaN, "label": "x"}\n')  # fmt: skip
    table = read_table(file, COLUMNS)
    assert [row["text"] for row in table.rows] == ["a"]
    assert {reason: each.first for reason, each in table.skipped.items()} == {
        "have no 'label'": "rows.jsonl, line 2",
        "have no 'text'": "rows.jsonl, line 3",
    }


def test_the_advice_for_utf_16_is_to_convert_from_it(tmp_path: Path):
    file = tmp_path / "rows.csv"
    file.write_text("text,label\na,x\n", encoding="utf-16")
    with pytest.raises(TrainingError, match="iconv -f utf-16 -t utf-8"):
        read_table(file, COLUMNS)


def test_rows_that_cannot_be_used_are_counted_with_reason_and_place(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a", "label": "x"}\n{"text": \n{"text": " ", "label": "x"}\n'
                    '[1]\n{"label": "x"}\n{"text": [1], "label": "x"}\n{"text": "b"\n')  # fmt: skip
    table = read_table(file, COLUMNS)
    assert [row["text"] for row in table.rows] == ["a"]
    counted = {reason: (each.count, each.first) for reason, each in table.skipped.items()}
    assert counted == {
        "are no JSON": (2, "rows.jsonl, line 2"),
        "have a 'text' that can't be used: they are blank": (1, "rows.jsonl, line 3"),
        "are no JSON objects": (1, "rows.jsonl, line 4"),
        "have no 'text'": (1, "rows.jsonl, line 5"),
        "have a 'text' that can't be used: they hold list instead of text": (
            1, "rows.jsonl, line 6",
        ),
    }  # fmt: skip
    assert "1 rows, skipped 2 are no JSON (first: rows.jsonl, line 2)" in table.summary()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.csv", b"", "is empty"),
        ("a.csv", b"text,label\n", "is empty"),
        ("a.csv", b"body,label\nx,y\n", r"no column 'text'; it has 'body', 'label'. .*--text-colu"),
        ("a.csv", b'text,label\n"x,y\n', "line 2 is not CSV"),
        ("a.csv", b"text,label\nx,y,z\n", "none of the 1 rows .* the 2 fields of the header"),
        ("a.jsonl", '{"text": "é"}\n{"text": "'.encode() + b"\xe9", "0xe9 in line 2 .*iconv"),
        ("a.jsonl", b'{"text": "", "label": "x"}', "none of the 1 rows"),
        ("a.parquet", b"PAR1 no", "no Parquet file"),
        ("a.doc", b"x", "of an unknown kind; files that are read: .jsonl"),
    ],
)
def test_bad_files_end_in_a_clear_message(tmp_path: Path, name: str, content: bytes, said: str):
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TrainingError, match=said):
        read_table(tmp_path / name, COLUMNS)


def test_a_text_may_be_longer_than_fields_of_csv_are_by_default(tmp_path: Path):
    text = "word " * 40_000
    (tmp_path / "a.csv").write_text(f"text,label\n{text},x\n")
    (row,) = read_table(tmp_path / "a.csv", COLUMNS).rows
    assert row["text"] == text


def test_missing_files_and_empty_folders_are_named(tmp_path: Path):
    with pytest.raises(TrainingError, match=r"none\.csv doesn't exist"):
        read_table(tmp_path / "none.csv", COLUMNS)
    with pytest.raises(TrainingError, match="holds no data"):
        read_table(tmp_path, COLUMNS)


@given(st.lists(st.text(max_size=3), max_size=60), st.floats(0.1, 0.9))
def test_a_split_loses_nothing_and_parts_no_twins(texts: Sequence[str], share: float):
    rows = [{"text": text} for text in texts]
    train, validation = split_by_digest(rows, "text", share)
    assert sorted(row["text"] for row in [*train, *validation]) == sorted(texts)
    assert not {row["text"] for row in train} & {row["text"] for row in validation}


def test_a_split_holds_out_about_the_share_that_was_asked_for():
    rows = [{"text": f"text {number}"} for number in range(5000)]
    _, validation = split_by_digest(rows, "text", 0.2)
    assert 900 < len(validation) < 1100
