"""Training data as a person has it: files and folders, read to rows of named columns.

JSON lines, CSV, TSV, Parquet and plain text. What can't be used is counted, with the reason and the
first place; what means that nothing can be is a `TrainingError`.
"""

import csv
import hashlib
import io
import json
import math
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from model_core.training.errors import TrainingError

Row: TypeAlias = Mapping[str, Any]
"""The values of one example by the names of their columns."""

TEXT_COLUMN: Final = "text"
FOLDER_COLUMN: Final = "folder"
"""What a plain text file has: itself, and the name of the folder it lies in."""


@dataclass(frozen=True, slots=True)
class Record:
    """A row and where it stands, or why there is none."""

    place: str
    values: Row = field(default_factory=dict[str, Any])
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """How many rows were left out for one reason, and where the first of them stands."""

    count: int
    first: str


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of `source` that can be used, and what became of the others."""

    source: str
    rows: Sequence[Row]
    skipped: Mapping[str, Skipped]

    def summary(self) -> str:
        """One line for a person: how many were read, how many skipped, and why."""
        why = "; ".join(
            f"{skipped.count:,} {reason} (first: {skipped.first})"
            for reason, skipped in self.skipped.items()
        )
        return f"{self.source}: {len(self.rows):,} rows" + (f", skipped {why}" if why else "")


@dataclass(frozen=True, slots=True)
class Column:
    """A column to read: its name in the file, the flag that names it, and what its values become.

    `convert` raises `ValueError`, saying what is wrong, for a value that can't be used.
    """

    name: str
    flag: str
    convert: Callable[[Any], Any]


def as_text(value: Any) -> str:
    """A text that isn't blank. Numbers count as what they are written as."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"hold {type(value).__name__} instead of text")
    if not value.strip():
        raise ValueError("are blank")
    return value


def read_table(path: Path, columns: Sequence[Column]) -> Table:
    """The rows of a file, or of all files in a folder, that have every one of `columns`.

    Raises `TrainingError`: no such file, an unknown kind, not UTF-8, empty, a column that no row
    has, or no row that can be used.
    """
    rows: list[Row] = []
    first: dict[str, str] = {}
    counts: dict[str, int] = {}
    seen: dict[str, None] = {}
    total = 0
    for record in read_records(path):
        total += 1
        seen.update(dict.fromkeys(record.values))
        row, problem = take(record, columns)
        if problem:
            counts[problem] = counts.get(problem, 0) + 1
            first.setdefault(problem, record.place)
        else:
            rows.append(row)
    skipped = {reason: Skipped(count, first[reason]) for reason, count in counts.items()}
    if not total:
        raise TrainingError(f"{path} is empty: there is nothing to learn from")
    require_columns(path, columns, list(seen))
    if not rows:
        reasons = "; ".join(f"{reason} (first: {each.first})" for reason, each in skipped.items())
        raise TrainingError(f"none of the {total:,} rows of {path} can be used: {reasons}")
    return Table(str(path), rows, skipped)


def require_columns(path: Path, columns: Sequence[Column], seen: Sequence[str]) -> None:
    """Refuse data none of whose rows has a column, naming those that there are."""
    for column in columns:
        if seen and column.name not in seen:
            raise TrainingError(
                f"{path} has no column {column.name!r}; it has {', '.join(map(repr, seen))}. "
                f"Name another one with {column.flag}"
            )


def take(record: Record, columns: Sequence[Column]) -> tuple[Row, str]:
    """The values of `columns`, and what is wrong with the row, if anything is."""
    if record.problem:
        return {}, record.problem
    row: dict[str, Any] = {}
    for column in columns:
        value = record.values.get(column.name)
        # pandas writes what is missing as NaN, in JSON too, which knows no such number.
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return {}, f"have no {column.name!r}"
        try:
            row[column.name] = column.convert(value)
        except ValueError as error:
            return {}, f"have a {column.name!r} that can't be used: they {error}"
    return row, ""


def read_records(path: Path) -> Iterator[Record]:
    """What stands in a file, or in the files of a folder in the order of their names."""
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in READERS]
        if not files:
            raise TrainingError(f"{path} holds no data; files that are read: {accepted()}")
        for file in files:
            yield from read_records(file)
        return
    if not path.is_file():
        raise TrainingError(f"{path} doesn't exist; name a file or a folder: {accepted()}")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise TrainingError(f"{path} is of an unknown kind; files that are read: {accepted()}")
    yield from reader(path)


def accepted() -> str:
    """The endings that are read."""
    return ", ".join(READERS)


def read_text(path: Path) -> str:
    """A text file, a byte order mark dropped; the error says where it stops being UTF-8."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        likely = "utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "latin1"
        raise TrainingError(
            f"{path} is not UTF-8: byte 0x{data[error.start]:02x} in line {line} "
            f"({error.reason}); convert it first, for example: iconv -f {likely} -t utf-8"
        ) from error


def json_lines(path: Path) -> Iterator[Record]:
    """An object a line. Blank lines aren't rows."""
    # Not `splitlines`, which cuts at U+2028 too.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path.name}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            yield Record(place, problem="are no JSON")
            continue
        if isinstance(value, dict):
            yield Record(place, cast("Row", value))
        else:
            yield Record(place, problem="are no JSON objects")


def separated(path: Path) -> Iterator[Record]:
    """CSV, or TSV by its ending: a header line, then a row a line, quotes as RFC 4180 has them."""
    # A text may well be longer than the 131,072 characters that the library allows.
    csv.field_size_limit(LONGEST_FIELD)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    rows = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(rows, None)
        if header is None:
            return
        for row in rows:
            place = f"{path.name}, line {rows.line_num}"
            if not row:
                continue
            if len(row) != len(header):
                yield Record(place, problem=f"have not the {len(header)} fields of the header")
            else:
                yield Record(place, dict(zip(header, row, strict=True)))
    except csv.Error as error:
        raise TrainingError(f"{path}, line {rows.line_num} is not CSV: {error}") from error


def parquet(path: Path) -> Iterator[Record]:
    """The rows of a Parquet file, a batch in memory at once."""
    try:
        library: Any = import_module("pyarrow")
        reader: Any = import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise TrainingError(
            f"{path} needs the package pyarrow; pip install 'transformer-anatomy[train]'"
        ) from error
    try:
        file = reader.ParquetFile(path)
    except (library.ArrowInvalid, OSError) as error:
        raise TrainingError(f"{path} is no Parquet file: {error}") from error
    number = 0
    for batch in file.iter_batches():
        for values in batch.to_pylist():
            number += 1
            yield Record(f"{path.name}, row {number}", values)


def plain_text(path: Path) -> Iterator[Record]:
    """One row: the whole file, and the name of its folder."""
    yield Record(path.name, {TEXT_COLUMN: read_text(path), FOLDER_COLUMN: path.parent.name})


def pronouncing(path: Path) -> Iterator[Record]:
    """A pronouncing dictionary in CMUdict's format: a word and its phonemes a line.

    Further pronunciations of a word are marked, `read(2)`, and are rows of the same word here.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        entry = line.partition("#")[0].strip()
        if not entry or entry.startswith(";;;"):
            continue
        word, _, phonemes = entry.partition(" ")
        values = {"source": FURTHER.sub("", word), "target": phonemes.strip()}
        yield Record(f"{path.name}, line {number}", values)


LONGEST_FIELD: Final = 2**31 - 1
"""Characters of a field of CSV."""

FURTHER: Final = re.compile(r"\(\d+\)$")

READERS: Final[Mapping[str, Callable[[Path], Iterator[Record]]]] = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".csv": separated,
    ".tsv": separated,
    ".parquet": parquet,
    ".dict": pronouncing,
    ".txt": plain_text,
    ".md": plain_text,
}


def split_by_digest(
    rows: Iterable[Row], key: str, share: float
) -> tuple[Sequence[Row], Sequence[Row]]:
    """The rows to train on, and the `share` of them to validate on.

    A digest of the column `key` decides, so that what occurs twice is on one side alone, and more
    data leaves the parts of the old as they were.
    """
    train: list[Row] = []
    validation: list[Row] = []
    for row in rows:
        digest = hashlib.sha256(str(row[key]).encode("utf-8", "surrogatepass")).digest()
        is_held_out = int.from_bytes(digest[:8], "big") < share * 2**64
        (validation if is_held_out else train).append(row)
    return train, validation
