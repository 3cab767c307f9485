"""The texts that load tests send: from a corpus file, or from what every Python carries.

A workload is bounded however large the corpus is, and the same on every run.
"""

import ast
import hashlib
import os
import sysconfig
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from model_core.tokenization import Tokenizer

CORPUS_VARIABLE = "LOADTESTS_CORPUS"
TEXT_COUNT = 512
MAX_CHARACTERS = 2_000


class WorkloadError(Exception):
    """A corpus that can't be used; the message says why."""


def load_texts(corpus: Path | None = None, *, count: int = TEXT_COUNT) -> tuple[str, ...]:
    """At most `count` texts, whitespace folded, of at most 2,000 characters.

    They are the first lines of `corpus` or of the file that `LOADTESTS_CORPUS` names, or else
    docstrings of the running Python's standard library. Raises `WorkloadError`.
    """
    named = os.environ.get(CORPUS_VARIABLE)
    path = corpus or (Path(named) if named else None)
    texts = tuple(islice(read_lines(path), count)) if path else pick(read_docstrings(), count)
    if not texts:
        raise WorkloadError(f"{path or 'the standard library'} holds no text")
    return texts


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file that aren't blank, a text each."""
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if text := fold(line):
                    yield text
    except (OSError, UnicodeDecodeError) as error:
        raise WorkloadError(f"cannot read the corpus {path}: {error}") from error


def read_docstrings() -> Iterator[str]:
    """Docstrings of the standard library's top-level modules, read without importing them."""
    documented = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes(), path.name)):
            if isinstance(node, documented) and (text := fold(ast.get_docstring(node) or "")):
                yield text


def pick(texts: Iterator[str], count: int) -> tuple[str, ...]:
    """`count` different texts of mixed lengths: an arbitrary order that is always the same."""
    digests = {hashlib.sha256(text.encode()).digest(): text for text in texts}
    return tuple(digests[key] for key in sorted(digests)[:count])


def fold(text: str) -> str:
    """One line: runs of whitespace become a space; at most 2,000 characters."""
    return " ".join(text.split())[:MAX_CHARACTERS].rstrip()


def cut_to_fit(texts: Iterable[str], tokenizer: Tokenizer, max_tokens: int) -> tuple[str, ...]:
    """`texts` with words dropped from the end of those that have more than `max_tokens` tokens."""
    return tuple(cut_text(text, tokenizer, max_tokens) for text in texts)


def cut_text(text: str, tokenizer: Tokenizer, max_tokens: int) -> str:
    words = text.split(" ")
    while (excess := len(tokenizer.encode(" ".join(words))) - max_tokens) > 0:
        # A word has a token at least, so that this many can go without cutting too deep by much.
        del words[-max(1, excess // 4) :]
    return " ".join(words)
