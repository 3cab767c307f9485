"""The dialect of text-embeddings-inference: shapes, headers, errors."""

from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.fakes import BEGIN_ID, FakeEmbeddingModel, FakeRanker
from tests.support.service import client_of, served


async def posted(path: str, body: Any, **kinds: Any) -> httpx.Response:
    async with client_of(served(**kinds)) as client:
        return await client.post(path, json=body)


def vector_of(text: str) -> list[float]:
    model = FakeEmbeddingModel()
    return model.vector(model.tokenizer.encode(text)).tolist()


@pytest.mark.parametrize("path", ["/embed", "/"])
async def test_one_text_or_several_give_a_list_of_vectors(path: str) -> None:
    one, several = [
        (await posted(path, {"inputs": inputs})).json() for inputs in ("one", ["one", "two"])
    ]
    np.testing.assert_allclose(one, [vector_of("one")], rtol=1e-5)
    np.testing.assert_allclose(several, [vector_of("one"), vector_of("two")], rtol=1e-5)


async def test_token_ids_are_embedded_as_they_are() -> None:
    answer = await posted("/embed", {"inputs": [[BEGIN_ID, *b"one"]]})
    np.testing.assert_allclose(answer.json(), [vector_of("one")], rtol=1e-5)


async def test_a_vector_is_cut_and_normalised_again_unless_told_otherwise() -> None:
    cut = np.array(vector_of("one")[:3])
    whole = (await posted("/embed", {"inputs": "one", "dimensions": 3})).json()
    np.testing.assert_allclose(whole, [cut / np.linalg.norm(cut)], rtol=1e-5)
    body = {"inputs": "one", "dimensions": 3, "normalize": False}
    np.testing.assert_allclose((await posted("/embed", body)).json(), [cut], rtol=1e-5)


async def test_every_token_has_a_vector() -> None:
    answer = await posted("/embed_all", {"inputs": ["one", "a"]})
    shapes = [np.shape(rows) for rows in answer.json()]
    assert shapes == [(4, 8), (2, 8)]


@pytest.mark.parametrize(("direction", "kept"), [("Right", "a" * 63), ("left", "b" * 63)])
async def test_a_text_that_is_too_long_is_cut_at_the_end_that_is_named(
    direction: str, kept: str
) -> None:
    text = "a" * 100 + "b" * 100
    refused = await posted("/embed", {"inputs": text})
    assert (refused.status_code, refused.json()["error_type"]) == (413, "Validation")
    body = {"inputs": text, "truncate": True, "truncation_direction": direction}
    np.testing.assert_allclose((await posted("/embed", body)).json(), [vector_of(kept)], rtol=1e-5)


async def test_labels_come_with_the_likeliest_first_nested_for_several() -> None:
    one = [
        {"score": 0.75, "label": "verb"},
        {"score": 0.125, "label": "noun"},
        {"score": 0.125, "label": "adverb"},
    ]
    assert (await posted("/predict", {"inputs": "a"})).json() == one
    assert (await posted("/predict", {"inputs": [["a"], ["a"]]})).json() == [one, one]
    raw = (await posted("/predict", {"inputs": "a", "raw_scores": True})).json()
    assert [item["score"] for item in raw] == [6.0, 1.0, 1.0]


async def test_what_hugging_faces_client_sends_beside_a_text_is_taken() -> None:
    plain = (await posted("/predict", {"inputs": "a"})).json()
    assert (await posted("/predict", {"inputs": "a", "parameters": {}})).json() == [plain]
    cut = await posted("/predict", {"inputs": "a", "parameters": {"top_k": 2}})
    assert cut.json() == [plain[:2]]
    raw = await posted("/predict", {"inputs": "a", "parameters": {"function_to_apply": "none"}})
    assert raw.json() == [(await posted("/predict", {"inputs": "a", "raw_scores": True})).json()]


async def test_a_pair_is_predicted_on_together() -> None:
    pair = (await posted("/predict", {"inputs": ["a", "b"]})).json()
    assert pair[0]["label"] == "verb"
    mixed = await posted("/predict", {"inputs": [["a"], ["a", "b"]]})
    assert mixed.status_code == 422


async def test_texts_are_ranked_by_their_relevance_to_the_query() -> None:
    body = {"query": "abc", "texts": ["xyz", "abcx", "ab"], "return_text": True}
    assert (await posted("/rerank", body, ranker=FakeRanker())).json() == [
        {"index": 2, "score": 1.0, "text": "ab"},
        {"index": 1, "score": 0.75, "text": "abcx"},
        {"index": 0, "score": 0.0, "text": "xyz"},
    ]


async def test_sentences_are_compared_by_cosine() -> None:
    inputs = {"source_sentence": "one", "sentences": ["one", "two"]}
    found = (await posted("/similarity", {"inputs": inputs})).json()
    expected = np.array([vector_of("one"), vector_of("two")]) @ vector_of("one")
    np.testing.assert_allclose(found, expected, rtol=1e-5)


async def test_tokens_have_their_places() -> None:
    begin: dict[str, Any] = {
        "id": BEGIN_ID,
        "text": "<s>",
        "special": True,
        "start": None,
        "stop": None,
    }
    letter = {"id": 97, "text": "a", "special": False, "start": 0, "stop": 1}
    assert (await posted("/tokenize", {"inputs": "a"})).json() == [[begin, letter]]
    body = {"inputs": ["a", "a"], "add_special_tokens": False}
    assert (await posted("/tokenize", body)).json() == [[letter], [letter]]


async def test_ids_are_decoded_one_list_or_several() -> None:
    assert (await posted("/decode", {"ids": [97, 98]})).json() == ["ab"]
    assert (await posted("/decode", {"ids": [[97], [98]]})).json() == ["a", "b"]
    refused = await posted("/decode", {"ids": [[97], [9999]]})
    assert refused.status_code == 422
    assert "ids[1][0]: token id 9999" in refused.json()["error"]


async def test_headers_tell_what_was_read_and_how_long_it_took() -> None:
    answer = await posted("/embed", {"inputs": ["one", "to"]})
    headers = answer.headers
    assert headers["x-compute-characters"] == "5"
    assert headers["x-compute-tokens"] == "7"
    assert (headers["x-queue-time"], headers["x-inference-time"]) == ("2", "3")
    names = ("x-compute-time", "x-total-time", "x-tokenization-time")
    assert all(headers[name].isdecimal() for name in names)
    assert headers["x-compute-type"] == "CPUExecutionProvider"


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/embed", {}, 422, "Validation"),
        ("/embed", {"inputs": ""}, 422, "Validation"),
        ("/embed", {"inputs": []}, 422, "Validation"),
        ("/embed", {"inputs": "a", "dimensions": 9}, 422, "Validation"),
        ("/embed", {"inputs": "a", "prompt_name": "query"}, 422, "Validation"),
        ("/embed", {"inputs": "a", "truncation_direction": "up"}, 422, "Validation"),
        ("/predict", {"inputs": ["a", "b", "c"]}, 422, "Validation"),
        ("/predict", {"inputs": 7}, 422, "Validation"),
        ("/rerank", {"query": "a", "texts": []}, 422, "Validation"),
        ("/similarity", {"inputs": {"source_sentence": "a"}}, 422, "Validation"),
        ("/tokenize", {"inputs": 7}, 422, "Validation"),
        ("/decode", {"ids": "a"}, 422, "Validation"),
        ("/embed", {"inputs": ["a"] * 2049}, 422, "Validation"),
        ("/predict", {"inputs": [["a"]] * 2049}, 422, "Validation"),
        ("/rerank", {"query": "a", "texts": ["b"] * 2049}, 422, "Validation"),
        ("/tokenize", {"inputs": "a" * 300_000}, 422, "Validation"),
        ("/decode", {"ids": [97] * 300_000}, 422, "Validation"),
        ("/decode", {"ids": [[97]] * 2049}, 422, "Validation"),
        ("/embed_all", {"inputs": "a", "dimensions": 2}, 422, "Validation"),
    ],
)
async def test_what_is_wrong_is_told_in_this_dialect(
    path: str, body: Any, status: int, kind: str
) -> None:
    answer = await posted(path, body)
    assert answer.status_code == status
    assert answer.json().keys() == {"error", "error_type"}
    assert answer.json()["error_type"] == kind


async def test_vectors_of_tokens_have_a_bound() -> None:
    # 2,048 texts of 64 tokens of 8 numbers are within it, of 64 numbers beyond.
    inputs = [[BEGIN_ID, *b"a" * 63]] * 2048
    answer = await posted("/embed_all", {"inputs": inputs}, embedder=FakeEmbeddingModel(dim=64))
    assert answer.status_code == 422
    assert "131072 tokens have 8388608 numbers" in answer.json()["error"]


async def test_a_very_long_text_is_cut_before_it_is_read() -> None:
    text = "a" * 100_000
    answer = await posted("/embed", {"inputs": text, "truncate": True})
    np.testing.assert_allclose(answer.json(), [vector_of("a" * 63)], rtol=1e-5)


@pytest.mark.parametrize("path", ["/embed", "/rerank", "/decode"])
async def test_whatever_refuses_a_request_tells_it_in_this_dialect(path: str) -> None:
    async with client_of(served()) as client:
        answers = [
            await client.get(path),
            await client.post(path, content=b"{}", headers={"content-type": "text/plain"}),
        ]
    for answer in answers:
        assert answer.json().keys() == {"error", "error_type"}, answer.text


async def test_before_it_is_ready_the_service_is_unhealthy() -> None:
    answer = await posted("/embed", {"inputs": "a"}, ready=False)
    assert (answer.status_code, answer.json()["error_type"]) == (503, "Unhealthy")


async def test_a_vector_that_is_not_finite_never_leaves() -> None:
    answer = await posted("/embed", {"inputs": "a"}, embedder=FakeEmbeddingModel(fill=np.nan))
    assert (answer.status_code, answer.json()["error_type"]) == (424, "Backend")
