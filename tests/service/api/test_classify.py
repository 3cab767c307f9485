import pytest

from tests.support.service import NOW_S, client_of, served


@pytest.mark.parametrize("path", ["/v1/classify", "/classify"])
async def test_each_input_has_its_label_and_the_probabilities_of_all(path: str) -> None:
    async with client_of(served()) as client:
        body = {"model": "classifier", "input": ["a", "b"]}
        answer = await client.post(path, json=body, headers={"x-request-id": "7"})
    assert answer.json() == {
        "id": "classify-7",
        "object": "list",
        "created": NOW_S,
        "model": "classifier",
        "data": [
            {"index": 0, "label": "verb", "probs": [0.125, 0.75, 0.125], "num_classes": 3},
            {"index": 1, "label": "adverb", "probs": [0.125, 0.125, 0.75], "num_classes": 3},
        ],
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }


async def test_without_a_model_the_default_classifier_answers() -> None:
    async with client_of(served()) as client:
        answer = await client.post("/classify", json={"input": "a"})
    assert answer.json()["model"] == "classifier"
