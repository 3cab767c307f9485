"""The service as its users meet it: behind Ray Serve, through the official client, on loopback."""

import asyncio
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import numpy as np
import openai as openai_library
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from loadtests.service_process import Running
from service.api.boundary import REQUEST_ID

pytestmark = pytest.mark.ray

QUESTION: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of France?"}
]


def metric(service: Running, name: str) -> float:
    """The value of a metric that has one series."""
    text = httpx.get(f"{service.url}/metrics").text
    found = re.search(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    assert found is not None, f"{name} is not exposed"
    return float(found[1])


def test_similar_texts_have_similar_embeddings(openai: OpenAI) -> None:
    texts = ["A cat sits on the mat.", "A kitten is sitting on a rug.", "Interest rates rose."]
    answer = openai.embeddings.create(model="minilm", input=texts)
    cat, kitten, rates = (np.array(row.embedding) for row in answer.data)
    assert cat.shape == (384,)
    assert abs(np.linalg.norm(cat) - 1) < 1e-5  # normalised in float32
    assert cat @ kitten > 0.6 > 0.2 > cat @ rates
    assert answer.usage.prompt_tokens > 0


def test_floats_and_base64_are_the_same_numbers(openai: OpenAI) -> None:
    one = openai.embeddings.create(model="minilm", input="time flies like an arrow")
    other = openai.embeddings.create(
        model="minilm", input="time flies like an arrow", encoding_format="float"
    )
    assert one.data[0].embedding == pytest.approx(other.data[0].embedding, rel=0, abs=1e-8)


@pytest.mark.parametrize(("sent", "kept"), [("mine-1", True), ("not one!", False), (None, False)])
def test_an_answer_has_one_request_id(service: Running, sent: str | None, kept: bool) -> None:
    answer = httpx.get(f"{service.url}/health", headers={"x-request-id": sent} if sent else {})
    (found,) = answer.headers.get_list("x-request-id")
    assert (found == sent) is kept
    assert REQUEST_ID.fullmatch(found)
    # The way from HAProxy to here: of one machine, so that its clock is the same.
    way = answer.headers["server-timing"].partition("proxy;dur=")[2].partition(",")[0]
    assert 0 <= float(way) < 10_000


@pytest.mark.parametrize(
    ("definition", "label"),
    [
        ("a large wild cat with stripes that lives in Asia", "noun.animal"),
        ("a person who repairs shoes", "noun.person"),
        ("a yellow fruit that grows in bunches in the tropics", "noun.food"),
    ],
)
def test_a_definition_gets_its_supersense(service: Running, definition: str, label: str) -> None:
    answer = httpx.post(
        f"{service.url}/v1/classify", json={"model": "supersense", "input": definition}
    ).json()
    row = answer["data"][0]
    # Food and plants are told apart by a hair in WordNet itself.
    assert row["label"] in {label, "noun.plant"} if label == "noun.food" else row["label"] == label
    assert row["num_classes"] == len(row["probs"]) == 45
    assert sum(row["probs"]) == pytest.approx(1, abs=1e-5)


def test_a_chat_is_answered(openai: OpenAI) -> None:
    answer = openai.chat.completions.create(
        model="smollm2", messages=QUESTION, temperature=0, max_tokens=40
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"


def test_a_stream_says_what_the_whole_answer_says(openai: OpenAI) -> None:
    ask = partial(
        openai.chat.completions.create,
        model="smollm2",
        messages=QUESTION,
        temperature=0.8,
        seed=7,
        max_tokens=48,
    )
    whole = ask()
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    # The second may find the prompt in the cache, and says so.
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert len(chunks) > 4


def test_a_completion_continues_token_ids(openai: OpenAI) -> None:
    answer = openai.completions.create(
        model="smollm2", prompt=[[788, 1057], [42]], max_tokens=5, temperature=0
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 3


def test_errors_are_the_clients_own_exceptions(openai: OpenAI) -> None:
    with pytest.raises(openai_library.NotFoundError, match="nobody"):
        openai.embeddings.create(model="nobody", input="x")
    with pytest.raises(openai_library.BadRequestError, match="temperature"):
        openai.chat.completions.create(model="smollm2", messages=QUESTION, temperature=3)
    with pytest.raises(openai_library.BadRequestError, match="256"):
        openai.embeddings.create(model="minilm", input="word " * 300)
    with pytest.raises(openai_library.BadRequestError, match="2048"):
        openai.completions.create(model="smollm2", prompt=[1] * 2040, max_tokens=100)


def test_64_streams_at_once_all_finish(service: Running) -> None:
    async def one(client: AsyncOpenAI, number: int) -> int:
        stream = await client.chat.completions.create(
            model="smollm2",
            messages=[{"role": "user", "content": f"Count from {number} upwards."}],
            max_tokens=24,
            stream=True,
            extra_body={"ignore_eos": True},
            stream_options={"include_usage": True},
        )
        usage = [chunk.usage async for chunk in stream][-1]
        assert usage is not None
        return usage.completion_tokens

    async def run() -> list[int]:
        async with AsyncOpenAI(api_key="-", base_url=f"{service.url}/v1", max_retries=0) as client:
            return await asyncio.gather(*(one(client, number) for number in range(64)))

    assert asyncio.run(run()) == [24] * 64
    assert metric(service, "vllm:num_requests_running") == 0
    assert metric(service, "vllm:num_requests_waiting") == 0


def test_a_client_that_leaves_frees_its_slot(service: Running) -> None:
    aborted = 'vllm:request_success_total{finished_reason="abort",model_name="smollm2"}'
    body = {
        "model": "smollm2",
        "prompt": "Once upon a time",
        "max_tokens": 2000,
        "stream": True,
        "ignore_eos": True,
    }
    with httpx.stream("POST", f"{service.url}/v1/completions", json=body) as stream:
        lines = stream.iter_lines()  # kept: httpx closes the connection with its iterator
        next(lines)
        assert metric(service, "vllm:num_requests_running") == 1
        left_after = metric(service, "vllm:generation_tokens_total")
    deadline = time.monotonic() + 10
    while metric(service, "vllm:num_requests_running") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert metric(service, "vllm:num_requests_running") == 0
    # Nowhere near the 2,000 that it asked for: the engine stopped within a few steps.
    assert metric(service, "vllm:generation_tokens_total") - left_after < 500
    assert aborted in httpx.get(f"{service.url}/metrics").text


def test_an_embedding_is_the_same_alone_and_in_a_crowd(service: Running) -> None:
    texts = [f"Text number {number} " + "and more " * (number % 23) for number in range(96)]

    def embed(text: str) -> list[float]:
        body = {"model": "minilm", "input": text}
        answer = httpx.post(f"{service.url}/v1/embeddings", json=body, timeout=60)
        return answer.json()["data"][0]["embedding"]

    alone = [embed(text) for text in texts[:8]]
    with ThreadPoolExecutor(32) as crowd:
        together = list(crowd.map(embed, texts))
    assert together[:8] == alone


def test_only_loopback_is_listened_on(service: Running) -> None:
    """But for one port of Ray Serve's replica, which has no setting (the README names it)."""
    try:
        listing = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip("ss is not installed: `make setup-tools`")
    ours = [line for line in listing.stdout.splitlines() if re.search(r"ray|haproxy|gcs", line)]
    assert any(f":{service.port} " in line for line in ours)
    opened = [
        line
        for line in ours
        if not re.search(r"(127\.0\.0\.1|\[::1\]|\[::ffff:127\.0\.0\.1\]):\d+\s", line)
    ]
    assert all("ray::ServeRepli" in line for line in opened), opened
    assert len(opened) <= 1


def test_the_service_says_where_and_why_it_runs(service: Running) -> None:
    info = httpx.get(f"{service.url}/info").json()
    models = {model["name"]: model for model in info["models"]}
    assert set(models) == {"minilm", "supersense", "smollm2", "t5"}
    assert models["minilm"]["precision"] == "fp32"
    assert models["smollm2"]["precision"] == "int8"
    assert models["smollm2"]["provider"] in {"cpu", "cuda"}
    assert models["smollm2"]["provider_reason"]
