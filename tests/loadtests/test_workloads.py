"""What load tests send, and where they may send it."""

from pathlib import Path

import pytest

from loadtests.target import TargetRefused, check_target
from loadtests.workloads import MAX_CHARACTERS, WorkloadError, load_texts


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOADTESTS_CORPUS", raising=False)
    monkeypatch.delenv("LOADTESTS_ANYWHERE", raising=False)


def test_without_a_corpus_there_are_512_docstrings_of_many_lengths() -> None:
    texts = load_texts()
    assert len(texts) == len(set(texts)) == 512
    assert all(text == " ".join(text.split()) for text in texts)
    assert max(map(len, texts)) <= MAX_CHARACTERS
    assert min(map(len, texts)) < 50 < 1000 < max(map(len, texts))


def test_docstrings_are_the_same_on_every_run() -> None:
    assert load_texts(count=16) == load_texts(count=16) == load_texts()[:16]


def test_a_corpus_is_a_text_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("one\n\n  two   words \n" + "x" * 3000 + "\nfour\n", encoding="utf-8")
    monkeypatch.setenv("LOADTESTS_CORPUS", str(corpus))
    assert load_texts(count=3) == ("one", "two words", "x" * MAX_CHARACTERS)


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"\xff\xfe"])
def test_a_corpus_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None) -> None:
    corpus = tmp_path / "corpus.txt"
    if content is not None:
        corpus.write_bytes(content)
    with pytest.raises(WorkloadError, match=r"corpus\.txt"):
        load_texts(corpus)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000/v1"]
)
def test_this_machine_may_be_loaded(url: str) -> None:
    assert check_target(url) == url


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1:8000", "https://example.org", "http://127.0.0.1.example.org", "x", ""]
)
def test_other_machines_may_not(url: str) -> None:
    with pytest.raises(TargetRefused, match="LOADTESTS_ANYWHERE=1"):
        check_target(url)


def test_other_machines_may_when_somebody_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADTESTS_ANYWHERE", "1")
    assert check_target("http://192.0.2.1:8000")
