"""Long texts in windows: every token is read, and the vector is what the windows' come to."""

import base64
import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_core.tokenization import Tokenizer
from service.chunks import (
    Chunked,
    Parts,
    averaged,
    chunked,
    parts_of_ids,
    parts_of_text,
    windows_of,
)
from service.engines.pooling import unit
from tests.support.fakes import BEGIN_ID, FakeEmbeddingModel
from tests.support.service import client_of, served

# The fake model takes 64 tokens: a beginning, and 63 of the text.
LONG = "".join(chr(97 + place % 26) for place in range(150))


def vector_of(text: str) -> np.ndarray:
    model = FakeEmbeddingModel()
    return model.vector(model.tokenizer.encode(text))


async def embedded(embedder: FakeEmbeddingModel | None = None, **body: Any) -> Any:
    async with client_of(served(embedder=embedder)) as client:
        return await client.post(
            "/v1/embeddings", json={"model": "embedder", "truncation": "chunk"} | body
        )


@pytest.mark.parametrize("overlap", [0, 1, 3, 6])
@pytest.mark.parametrize("count", [*range(25)])
def test_windows_have_every_token_and_share_as_many_as_they_should(
    count: int, overlap: int
) -> None:
    parts = Parts([100, 101], list(range(count)), [102])
    windows = windows_of(parts, 10, overlap)
    assert all(window[:2] == [100, 101] and window[-1] == 102 for window in windows)
    assert all(len(window) <= 10 for window in windows)
    own = [window[2:-1] for window in windows]
    joined = own[0] + [token for window in own[1:] for token in window[overlap:]]
    assert joined == list(range(count))
    for one, other in itertools.pairwise(own):
        assert one[len(one) - overlap :] == other[:overlap]
        assert len(one) == 7
    assert all(len(window) > overlap for window in own[1:]), "none says nothing new"


def test_a_mean_is_weighted_by_tokens_and_as_long_as_the_windows_are() -> None:
    raw = np.array([[3, 0], [0, 1], [5, 5]], np.float32)
    found = Chunked([[1], [2], [3]], [2, 1], [3, 1, 4])
    np.testing.assert_allclose(averaged(raw, found), [[2.25, 0.25], [5, 5]])
    units = unit(raw)
    mean = averaged(units, found)
    np.testing.assert_allclose(mean[0], np.array([3, 1]) / np.sqrt(10), rtol=1e-6)
    assert (mean[1] == units[2]).all(), "a text that fits has its vector bit for bit"


async def test_a_long_text_has_the_mean_of_its_windows_and_says_so() -> None:
    answer = (await embedded(input=["short", LONG])).json()
    short, long = answer["data"]
    np.testing.assert_allclose(short["embedding"], vector_of("short"), rtol=1e-6)
    assert "chunks" not in short
    assert long["chunks"] == 3
    assert "truncated" not in long
    pieces = [LONG[:63], LONG[63:126], LONG[126:]]
    mean = np.average([vector_of(piece) for piece in pieces], axis=0, weights=[63, 63, 24])
    np.testing.assert_allclose(long["embedding"], mean / np.linalg.norm(mean), rtol=1e-5)
    assert answer["usage"]["prompt_tokens"] == 6 + 64 + 64 + 25


async def test_token_ids_overlaps_and_encodings_go_together_with_windows() -> None:
    ids = [BEGIN_ID, *LONG.encode()]
    by_ids = (await embedded(input=ids, chunk_overlap=20)).json()["data"][0]
    by_text = (await embedded(input=LONG, chunk_overlap=20, encoding_format="base64")).json()
    raw = base64.b64decode(by_text["data"][0]["embedding"])
    np.testing.assert_allclose(by_ids["embedding"], np.frombuffer(raw, "<f4"), rtol=1e-6)
    assert by_ids["chunks"] == by_text["data"][0]["chunks"] == 4
    cut = (await embedded(input=LONG, dimensions=3)).json()["data"][0]
    assert np.linalg.norm(cut["embedding"]) == pytest.approx(1.0)


async def test_what_the_authors_put_before_a_text_stands_in_every_window() -> None:
    model = FakeEmbeddingModel()
    model.card = replace(model.card, prompt="q: ")
    answer = (await embedded(model, input=LONG)).json()["data"][0]
    pieces = [f"q: {LONG[at : at + 60]}" for at in (0, 60, 120)]
    mean = np.average([vector_of(piece) for piece in pieces], axis=0, weights=[60, 60, 30])
    np.testing.assert_allclose(answer["embedding"], mean / np.linalg.norm(mean), rtol=1e-5)


@pytest.mark.parametrize(("body", "param", "said"), [
    ({"input": LONG, "chunk_overlap": 63}, "chunk_overlap", "room for 63"),
    ({"input": LONG, "chunk_overlap": -1}, "chunk_overlap", "greater"),
    ({"input": LONG, "truncation": "right", "chunk_overlap": 2}, "chunk_overlap", "truncation"),
    ({"input": ["a", ""]}, "input[1]", "is empty"),
    ({"input": [[97, 9999]]}, "input[0][1]", "vocabulary"),
    ({"input": ["a"] * 2049}, "input", "2049 items"),
    ({"input": ["a" * 60_000, "b" * 10_000]}, "input", "tokens in its windows"),
    ({"input": "a" * 6000, "chunk_overlap": 62}, "input", "windows"),
    ({"input": "é" * 2_000_000}, "input", "bytes together"),
])  # fmt: skip
async def test_what_cant_be_read_in_windows_is_refused_by_name(
    body: Mapping[str, Any], param: str, said: str
) -> None:
    answer = await embedded(**body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["param"], said in error["message"]) == (param, True), error


@pytest.mark.parametrize(("path", "body"), [
    ("/v1/rerank", {"query": "a", "documents": ["b"]}),
    ("/v1/score", {"text_1": "a", "text_2": "b"}),
    ("/v1/classify", {"input": "a"}),
])  # fmt: skip
async def test_what_has_no_mean_refuses_windows(path: str, body: dict[str, Any]) -> None:
    async with client_of(served()) as client:
        answer = await client.post(path, json=body | {"truncation": "chunk"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "truncation"
    assert "accepted are error, right, left" in answer.json()["error"]["message"]


def test_parts_of_a_real_vocabulary_make_the_text_again(
    minilm_files: Mapping[str, Path],
) -> None:
    tokenizer = Tokenizer.from_files(minilm_files)
    text = "An arrow, and unbelievably long sentences about fruit flies " * 20
    ids = tokenizer.encode(text)
    parts = parts_of_text(text, tokenizer, "")
    assert parts == parts_of_ids(ids, tokenizer)
    assert [*parts.before, *parts.own, *parts.behind] == ids
    windows = chunked([parts], 32, 0).windows
    assert [token for window in windows for token in window[1:-1]] == ids[1:-1]
    prompted = parts_of_text(text, tokenizer, "query: ")
    assert prompted.own == parts.own
    assert [*prompted.before, *prompted.own, *prompted.behind] == tokenizer.encode("query: " + text)
