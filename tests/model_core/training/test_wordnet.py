"""The parser of wndb(5) and the split by lemma, on a folder written here and on the real one."""

from itertools import combinations, product
from pathlib import Path

import pytest

from model_core.training.data import read_classification_data
from model_core.training.errors import TrainingError
from model_core.training.wordnet import (
    LABELS,
    Split,
    Synset,
    definition_of,
    parse_synset,
    read_wordnet,
    split_by_lemma,
)

INSTALLED = Path("/usr/share/wordnet")
LICENCE_LINE = "  1 This software and database is being provided to you, the LICENSEE, by  \n"
NOUN = (
    '02121620 05 n 02 Cat 0 true_cat 0 001 @ 02120997 n 0000 | a "small" feline; "the cat sat"  \n'
)
VERB = "01926311 38 v 01 run 0 001 @ 01835496 v 0000 02 + 02 00 + 22 00 | move fast  \n"
ADJECTIVE = "00001234 00 s 01 out_of_print(p) 0 000 | no longer published  \n"
ADVERB = '00005678 02 r 01 fast 0 000 | "only an example here"  \n'


def write_wordnet(folder: Path, **changes: str) -> Path:
    lines = {"noun": NOUN, "verb": VERB, "adj": ADJECTIVE, "adv": ADVERB} | changes
    for name, line in lines.items():
        (folder / f"data.{name}").write_text(LICENCE_LINE + line, encoding="utf-8")
    return folder


def test_a_folder_is_read_without_its_licence_lines_examples_and_markers(tmp_path: Path):
    assert read_wordnet(write_wordnet(tmp_path)) == [
        Synset('a "small" feline', ("cat", "true cat"), LABELS.index("noun.animal")),
        Synset("move fast", ("run",), LABELS.index("verb.motion")),
        Synset("no longer published", ("out of print",), LABELS.index("adj.all")),
    ]


def test_a_count_of_words_is_hexadecimal():
    words = " ".join(f"word{number} 0" for number in range(16))
    assert len(parse_synset(f"00000001 03 n 10 {words} 000 | many").lemmas) == 16


@pytest.mark.parametrize(
    ("gloss", "definition"),
    [
        ("restrict or confine", "restrict or confine"),
        ('restrict or confine; "I limit you"; "and him"', "restrict or confine"),
        ('restrict or confine, "I limit you"', "restrict or confine"),
        ('restrict or confine: "I limit you"', "restrict or confine"),
        ("one thing; another", "one thing; another"),
        ('the letter "a" of it', 'the letter "a" of it'),
        ('"I limit you"', ""),
    ],
)
def test_a_definition_ends_where_example_sentences_begin(gloss: str, definition: str):
    assert definition_of(gloss) == definition


def test_a_missing_folder_is_answered_with_the_package_that_has_it(tmp_path: Path):
    with pytest.raises(TrainingError, match=r"data\.noun.*make setup-tools.*wordnet-base"):
        read_wordnet(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "line",
    [
        "nonsense\n",
        "00001740 03 n 01 entity 0 000 no gloss\n",
        "00001740 45 n 01 entity 0 000 | no such file\n",
        "00001740 03 n 04 entity 0 | fewer words than it says\n",
        "00001740 03 n 00 000 | no words\n",
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: str):
    folder = write_wordnet(tmp_path, verb=line)
    with pytest.raises(TrainingError, match=r"data\.verb, line 2 "):
        read_wordnet(folder)


def test_a_file_in_another_encoding_is_named(tmp_path: Path):
    folder = write_wordnet(tmp_path)
    (folder / "data.adj").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrainingError, match=r"data\.adj is not UTF-8"):
        read_wordnet(folder)


@pytest.mark.parametrize("source", ["/usr/share/wordnet", "csv:x", "wordnet:", ""])
def test_a_source_of_an_unknown_kind_is_refused_with_what_is_accepted(source: str):
    with pytest.raises(TrainingError, match="accepted: wordnet:FOLDER"):
        read_classification_data(source)


def assert_nothing_is_shared(split: Split) -> None:
    parts = (split.train, split.validation, split.test)
    lemmas = [{lemma for synset in part for lemma in synset.lemmas} for part in parts]
    definitions = [{synset.definition for synset in part} for part in parts]
    for first, second in combinations(range(3), 2):
        assert lemmas[first].isdisjoint(lemmas[second])
        assert definitions[first].isdisjoint(definitions[second])


def test_no_lemma_and_no_definition_is_in_two_parts():
    # Every two of forty words share a meaning, and every third meaning repeats a definition.
    words = [f"word {number}" for number in range(40)]
    synsets = [
        Synset(f"meaning {index - index % 3}", (first, second), index % len(LABELS))
        for index, (first, second) in enumerate(product(words, words))
    ]
    split = split_by_lemma(synsets)
    assert_nothing_is_shared(split)
    parts = len(split.train) + len(split.validation) + len(split.test)
    assert parts + split.dropped == len(synsets)


def test_the_split_is_the_same_whatever_the_order():
    synsets = [Synset(f"meaning {n}", (f"word {n}", f"word {n + 1}"), 0) for n in range(500)]
    there, back = split_by_lemma(synsets), split_by_lemma(reversed(synsets))
    assert set(there.test) == set(back.test)
    assert there.train
    assert there.validation


@pytest.mark.skipif(not (INSTALLED / "data.noun").is_file(), reason="wordnet-base isn't installed")
def test_wordnet_is_read_whole_and_splits_with_every_label_in_every_part():
    synsets = read_wordnet(INSTALLED)
    split = split_by_lemma(synsets)
    assert len(synsets) == 117_659  # wnstats(7)
    assert_nothing_is_shared(split)
    for part in (split.train, split.validation, split.test):
        assert {synset.label for synset in part} == set(range(len(LABELS)))
