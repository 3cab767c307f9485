"""Reranking and scores, by a cross-encoder and by cosine."""

from typing import Any

import numpy as np
import pytest

from tests.support.fakes import FakeEmbeddingModel, FakeRanker
from tests.support.service import NOW_S, client_of, served

QUERY, DOCUMENTS = "abc", ["xyz", "abcx", "ab"]
BODY = {"query": QUERY, "documents": DOCUMENTS}


def cosines(query: str, documents: list[str]) -> list[float]:
    """What the fake's vectors of these texts give."""
    model = FakeEmbeddingModel()
    vectors = [model.vector(model.tokenizer.encode(text)) for text in (query, *documents)]
    return [float(vectors[0] @ vector) for vector in vectors[1:]]


async def posted(path: str, body: dict[str, Any], *, ranks: bool = True) -> Any:
    app = served(ranker=FakeRanker() if ranks else None)
    async with client_of(app) as client:
        answer = await client.post(path, json=body, headers={"x-request-id": "7"})
    return answer.json() | {"status": answer.status_code}


@pytest.mark.parametrize("version", ["1", "2"])
async def test_a_cross_encoder_ranks_where_one_is_served(version: str) -> None:
    answer = await posted(f"/v{version}/rerank", BODY)
    assert answer == {
        "id": "rerank-7",
        "object": "list",
        "model": "ranker",
        "scored_by": "cross-encoder",
        "results": [
            {"index": 2, "relevance_score": 1.0},
            {"index": 1, "relevance_score": 0.75},
            {"index": 0, "relevance_score": 0.0},
        ],
        "usage": {"prompt_tokens": 21, "total_tokens": 21},
        "meta": {"api_version": {"version": version}, "billed_units": {"search_units": 1}},
        "status": 200,
    }


async def test_cosines_rank_where_none_is_served_and_the_answer_says_so() -> None:
    answer = await posted("/v1/rerank", BODY, ranks=False)
    expected = cosines(QUERY, DOCUMENTS)
    assert answer["scored_by"] == "cosine"
    assert answer["model"] == "embedder"
    order = sorted(range(3), key=lambda place: -expected[place])
    assert [result["index"] for result in answer["results"]] == order
    found = [result["relevance_score"] for result in answer["results"]]
    np.testing.assert_allclose(found, [expected[place] for place in order], rtol=1e-5)
    # The query is read once.
    assert answer["usage"]["prompt_tokens"] == 4 + 4 + 5 + 3


async def test_an_embedding_model_ranks_when_it_is_named() -> None:
    assert (await posted("/v1/rerank", BODY | {"model": "embedder"}))["scored_by"] == "cosine"


async def test_the_best_are_given_with_their_texts_when_asked() -> None:
    documents = ["xyz", {"text": "abcx"}, "ab"]
    body = BODY | {"documents": documents, "top_n": 2, "return_documents": True}
    assert (await posted("/v1/rerank", body))["results"] == [
        {"index": 2, "relevance_score": 1.0, "document": {"text": "ab"}},
        {"index": 1, "relevance_score": 0.75, "document": {"text": "abcx"}},
    ]


async def test_raw_scores_are_the_models_own() -> None:
    answer = await posted("/v1/rerank", BODY | {"raw_scores": True})
    assert [result["relevance_score"] for result in answer["results"]] == [4.0, 3.0, 0.0]


async def test_of_equal_documents_the_first_comes_first() -> None:
    answer = await posted("/v1/rerank", BODY | {"documents": ["ab", "ba", "cab"]})
    assert [result["index"] for result in answer["results"]] == [0, 1, 2]


async def test_a_document_that_is_too_long_is_refused_by_name_or_cut_and_told() -> None:
    body = BODY | {"documents": ["ab", "a" * 100]}
    refused = await posted("/v1/rerank", body | {"truncation": "error"})
    assert refused["status"] == 400
    assert refused["error"]["param"] == "documents[1]"
    assert "query and documents[1] have" in refused["error"]["message"]
    # Cohere's clients expect long documents to be cut.
    cut = await posted("/v1/rerank", body)
    dropped = {item["index"]: item.get("dropped_tokens", 0) for item in cut["results"]}
    assert dropped == {0: 0, 1: 40}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"documents": []}, "documents"),
        ({"documents": ["a", ""]}, "documents[1]"),
        ({"documents": ["a", 7]}, "documents[1]"),
        ({"documents": ["a", {"title": "b"}]}, "documents[1].text"),
        ({"query": ""}, "query"),
        ({"documents": ["a"] * 3000}, "documents"),
        ({"truncation": "left"}, "truncation"),
        ({"top_n": 0}, "top_n"),
        ({"model": "classifier"}, "model"),
        ({"model": "nobody"}, "model"),
    ],
    ids=str,
)
async def test_bad_fields_are_refused_by_name(change: dict[str, Any], param: str) -> None:
    answer = await posted("/v1/rerank", BODY | change)
    assert answer["status"] in (400, 404)
    assert answer["error"]["param"] == param


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
async def test_one_text_is_scored_with_each_of_others(path: str) -> None:
    answer = await posted(path, {"text_1": QUERY, "text_2": DOCUMENTS})
    assert answer == {
        "id": "score-7",
        "object": "list",
        "created": NOW_S,
        "model": "ranker",
        "scored_by": "cross-encoder",
        "data": [
            {"index": index, "object": "score", "score": score}
            for index, score in enumerate([0.0, 0.75, 1.0])
        ],
        "usage": {"prompt_tokens": 21, "total_tokens": 21},
        "status": 200,
    }


async def test_as_many_of_both_are_scored_one_by_one() -> None:
    answer = await posted("/score", {"text_1": ["a", "b"], "text_2": ["b", "b"]})
    assert [item["score"] for item in answer["data"]] == [0.0, 1.0]


async def test_numbers_of_texts_that_dont_fit_are_refused_with_both() -> None:
    answer = await posted("/score", {"text_1": ["a", "b"], "text_2": ["b"] * 3})
    assert answer["status"] == 400
    assert "2 texts and text_2 3" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"text_1": "", "text_2": "a"}, "text_1"),
        ({"text_1": "a", "text_2": ["b", ""]}, "text_2[1]"),
        ({"text_1": ["a"] * 2049, "text_2": ["b"] * 2049}, "text_1"),
        ({"text_1": "a" * 3000, "text_2": "b"}, "text_1"),
        ({"text_1": "a" * 2000, "text_2": ["b" * 49] * 2048, "truncation": "right"}, "text_2"),
        ({"text_1": 7, "text_2": "b"}, "text_1"),
    ],
    ids=["empty", "second empty", "too many", "too long", "too much", "no text"],
)
@pytest.mark.parametrize("ranks", [True, False], ids=["cross-encoder", "cosine"])
async def test_what_cant_be_scored_is_refused_by_name(
    body: dict[str, Any], param: str, ranks: bool
) -> None:
    answer = await posted("/score", body, ranks=ranks)
    if not ranks and "truncation" in body:
        assert answer["status"] == 200, "each text is read once"
        return
    assert answer["status"] == 400
    assert answer["error"]["param"] == param


async def test_a_vector_that_is_not_finite_is_no_score() -> None:
    app = served(embedder=FakeEmbeddingModel(fill=0.0))
    async with client_of(app) as client:
        answer = await client.post("/v1/rerank", json=BODY)
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "output_not_finite"
