"""Hugging Face's InferenceClient, which reaches a route by its URL."""

from typing import Any

import pytest

from tests.conformance.rows import CANT, covers
from tests.conformance.service import DEFINITION, LONG, TEXTS, Service

hub = pytest.importorskip("huggingface_hub")

CLIENT = "huggingface_hub"


def client_of(service: Service, path: str = "") -> Any:
    return hub.InferenceClient(model=service.url + path, token=service.key)


@covers(CLIENT, "feature_extraction at /embed and at the root")
@pytest.mark.parametrize("path", ["/embed", ""])
def test_features_are_the_services_vectors(service: Service, path: str) -> None:
    found = client_of(service, path).feature_extraction(TEXTS)
    for row, vector in zip(found.tolist(), service.vectors(TEXTS), strict=True):
        assert row == pytest.approx(vector, abs=1e-6)


@covers(CLIENT, "feature_extraction(normalize, truncate, truncation_direction, dimensions)")
def test_features_of_a_text_that_is_cut(service: Service) -> None:
    found = client_of(service, "/embed").feature_extraction(
        LONG, normalize=True, truncate=True, truncation_direction="left", dimensions=8
    )
    assert found.shape == (1, 8)


@covers(CLIENT, "sentence_similarity at /similarity")
def test_similarities_are_cosines(service: Service) -> None:
    found = client_of(service, "/similarity").sentence_similarity(TEXTS[0], TEXTS)
    one, other = service.vectors(TEXTS)
    expected = [1.0, sum(a * b for a, b in zip(one, other, strict=True))]
    assert found == pytest.approx(expected, abs=1e-5)


@covers(CLIENT, "text_classification at /predict, top_k")
def test_labels_are_the_services(service: Service) -> None:
    client = client_of(service, "/predict")
    expected = service.post("/predict", {"inputs": DEFINITION})
    for found, count in (
        (client.text_classification(DEFINITION), len(expected)),
        (client.text_classification(DEFINITION, top_k=3), 3),
    ):
        assert [item.label for item in found] == [row["label"] for row in expected[:count]]
        assert found[0].score == pytest.approx(expected[0]["score"], abs=1e-5)


@covers(
    CLIENT,
    "zero_shot_classification at /predict",
    outcome=CANT,
    why="text-embeddings-inference has no such route; labels of a request's own are for "
    "/v1/classify",
)
def test_labels_of_its_own_are_refused(service: Service) -> None:
    with pytest.raises(hub.errors.HfHubHTTPError) as refused:
        client_of(service, "/predict").zero_shot_classification(DEFINITION, ["animal", "food"])
    assert refused.value.response.status_code == 422


@covers(CLIENT, "chat_completion, whole and stream=True")
def test_a_streamed_answer_is_the_whole_one(service: Service) -> None:
    client = hub.InferenceClient(base_url=service.openai_url, api_key=service.key)
    messages = [{"role": "user", "content": "What does time do?"}]
    asked = {"model": "smollm2", "messages": messages, "max_tokens": 12, "temperature": 0}
    whole = client.chat_completion(**asked).choices[0].message.content
    pieces = client.chat_completion(**asked, stream=True)
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == whole == service.answer("What does time do?", 12)


@covers(CLIENT, "HfHubHTTPError: 401, 413, 422, 429")
def test_errors_are_the_clients_own(service: Service) -> None:
    wrong = hub.InferenceClient(model=f"{service.url}/embed", token="sk-wrong")
    with pytest.raises(hub.errors.HfHubHTTPError) as refused:
        wrong.feature_extraction("a")
    assert refused.value.response.status_code == 401
    for text, status in ((LONG, 413), ("", 422)):
        with pytest.raises(hub.errors.HfHubHTTPError) as told:
            client_of(service, "/embed").feature_extraction(text)
        assert told.value.response.status_code == status
    chat = hub.InferenceClient(base_url=service.openai_url, api_key=service.key)
    with service.without_room(), pytest.raises(hub.errors.HfHubHTTPError) as full:
        chat.chat_completion([{"role": "user", "content": "a"}], model="smollm2", max_tokens=1)
    assert full.value.response.status_code == 429
