import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from httpx import AsyncClient, Response

from service.api import bodies
from tests.support.service import client_of, served

EMBED = {"model": "embedder", "input": "a text"}
COMPLETE = {"model": "generator", "prompt": "a text"}
CHAT = {"model": "generator", "messages": [{"role": "user", "content": "a text"}]}

# Route, what is sent beside a good body, status, the field that is named.
REFUSED = [
    ("embeddings", {"input": ""}, 400, "input"),
    ("embeddings", {"input": []}, 400, "input"),
    ("embeddings", {"input": ["a", ""]}, 400, "input[1]"),
    ("embeddings", {"input": [[1], []]}, 400, "input[1]"),
    ("embeddings", {"input": ["a", 1]}, 400, "input[1]"),
    ("embeddings", {"input": [1, "a"]}, 400, "input[1]"),
    ("embeddings", {"input": [1, True]}, 400, "input[1]"),
    ("embeddings", {"input": [True]}, 400, "input"),
    ("embeddings", {"input": None}, 400, "input"),
    ("embeddings", {"input": 5}, 400, "input"),
    ("embeddings", {"input": {"text": "a"}}, 400, "input"),
    ("embeddings", {"input": [1.0]}, 400, "input"),
    ("embeddings", {"input": [-1]}, 400, "input[0]"),
    ("embeddings", {"input": [1, 258]}, 400, "input[1]"),
    ("embeddings", {"input": [[1], [1, 10**15]]}, 400, "input[1][1]"),
    ("embeddings", {"input": [10**30]}, 400, "input[0]"),
    ("embeddings", {"input": "x" * 64}, 400, "input"),
    ("embeddings", {"input": ["a", "x" * 64]}, 400, "input[1]"),
    ("embeddings", {"input": "_" * 50_000}, 400, "input"),
    ("embeddings", {"input": ["a"] * 65}, 400, "input"),
    ("embeddings", {"model": "nobody"}, 404, "model"),
    ("embeddings", {"model": "generator"}, 404, "model"),
    ("embeddings", {"model": ""}, 400, "model"),
    ("embeddings", {"model": "x" * 1000}, 400, "model"),
    ("embeddings", {"model": None}, 400, "model"),
    ("embeddings", {"encoding_format": "int8"}, 400, "encoding_format"),
    ("embeddings", {"dimensions": 0}, 400, "dimensions"),
    ("embeddings", {"dimensions": 9}, 400, "dimensions"),
    ("embeddings", {"dimensions": 4.0}, 400, "dimensions"),
    ("embeddings", {"dimensions": "4"}, 400, "dimensions"),
    ("embeddings", {"truncate": True}, 400, "truncate"),
    ("classify", {"input": ""}, 400, "input"),
    ("classify", {"input": [300]}, 400, "input[0]"),
    ("classify", {"model": "embedder"}, 404, "model"),
    ("classify", {"threshold": 2}, 400, "threshold"),
    ("completions", {"prompt": ""}, 400, "prompt"),
    ("completions", {"prompt": ["a", ""]}, 400, "prompt[1]"),
    ("completions", {"prompt": [258]}, 400, "prompt[0]"),
    ("completions", {"prompt": "x" * 127}, 400, "prompt"),
    ("completions", {"prompt": "x" * 128}, 400, "prompt"),
    ("completions", {"prompt": ["a"] * 9, "n": 2}, 400, "prompt"),
    ("completions", {"max_tokens": 0}, 400, "max_tokens"),
    ("completions", {"max_tokens": -1}, 400, "max_tokens"),
    ("completions", {"max_tokens": 122}, 400, "max_tokens"),
    ("completions", {"max_tokens": 1.5}, 400, "max_tokens"),
    ("completions", {"temperature": -0.1}, 400, "temperature"),
    ("completions", {"temperature": 2.1}, 400, "temperature"),
    ("completions", {"temperature": float("nan")}, 400, "temperature"),
    ("completions", {"temperature": float("inf")}, 400, "temperature"),
    ("completions", {"temperature": "1"}, 400, "temperature"),
    ("completions", {"temperature": True}, 400, "temperature"),
    ("completions", {"top_p": 0}, 400, "top_p"),
    ("completions", {"top_p": 1.1}, 400, "top_p"),
    ("completions", {"top_k": -2}, 400, "top_k"),
    ("completions", {"min_p": 1.1}, 400, "min_p"),
    ("completions", {"n": 0}, 400, "n"),
    ("completions", {"n": 17}, 400, "n"),
    ("completions", {"stop": ["a", "b", "c", "d", "e"]}, 400, "stop"),
    ("completions", {"stop": ""}, 400, "stop"),
    ("completions", {"stop": ["a", ""]}, 400, "stop[1]"),
    ("completions", {"stop": 1}, 400, "stop"),
    ("completions", {"seed": 2**63}, 400, "seed"),
    ("completions", {"presence_penalty": 2.5}, 400, "presence_penalty"),
    ("completions", {"repetition_penalty": 0}, 400, "repetition_penalty"),
    ("completions", {"logit_bias": {"258": 1}}, 400, "logit_bias"),
    ("completions", {"logit_bias": {"-1": 1}}, 400, "logit_bias"),
    ("completions", {"logit_bias": {"1_0": 1}}, 400, "logit_bias"),
    ("completions", {"logit_bias": {"1": 101}}, 400, "logit_bias.1"),
    ("completions", {"logprobs": 21}, 400, "logprobs"),
    ("completions", {"logprobs": True}, 400, "logprobs"),
    ("completions", {"min_tokens": 17}, 400, "min_tokens"),
    ("completions", {"best_of": 2}, 400, "best_of"),
    ("completions", {"best_of": 0}, 400, "best_of"),
    ("completions", {"length_penalty": 2.0}, 400, "length_penalty"),
    ("completions", {"early_stopping": True}, 400, "early_stopping"),
    ("completions", {"use_beam_search": True}, 400, "best_of"),
    ("completions", {"use_beam_search": True, "best_of": 9}, 400, "best_of"),
    ("completions", {"use_beam_search": True, "best_of": 2, "n": 2}, 400, "n"),
    ("completions", {"use_beam_search": True, "best_of": 2, "top_p": 0.5}, 400, "top_p"),
    ("completions", {"use_beam_search": True, "best_of": 2, "logprobs": 1}, 400, "logprobs"),
    ("completions", {"use_beam_search": False, "best_of": 2}, 400, "best_of"),
    (
        "chat/completions",
        {"use_beam_search": True, "best_of": 2, "temperature": 1},
        400,
        "temperature",
    ),
    ("completions", {"suffix": "a"}, 400, "suffix"),
    ("completions", {"stream_options": {"include_usage": True}}, 400, "stream_options"),
    ("completions", {"stream": True, "stream_options": {"x": 1}}, 400, "stream_options.x"),
    ("completions", {"messages": []}, 400, "messages"),
    ("completions", {"model": "embedder"}, 404, "model"),
    ("chat/completions", {"messages": []}, 400, "messages"),
    ("chat/completions", {"messages": "hello"}, 400, "messages"),
    ("chat/completions", {"messages": [{"role": "user"}]}, 400, "messages[0].content"),
    ("chat/completions", {"messages": [{"role": "x", "content": "a"}]}, 400, "messages[0].role"),
    (
        "chat/completions",
        {"messages": [{"role": "user", "content": None}]},
        400,
        "messages[0].content",
    ),
    (
        "chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "text": "a"}]}]},
        400,
        "messages[0].content[0].type",
    ),
    ("chat/completions", {"messages": [{"role": "assistant", "content": "a"}]}, 400, "messages"),
    (
        "chat/completions",
        {"messages": [{"role": "user", "content": "x" * 200}]},
        400,
        "messages",
    ),
    (
        "chat/completions",
        {"messages": [{"role": "user", "content": ""}] * 5000},
        400,
        "messages",
    ),
    ("chat/completions", {"max_tokens": 5, "max_completion_tokens": 6}, 400, "max_tokens"),
    ("chat/completions", {"max_completion_tokens": 128}, 400, "max_completion_tokens"),
    ("chat/completions", {"top_logprobs": 2}, 400, "top_logprobs"),
    ("chat/completions", {"logprobs": True, "top_logprobs": 21}, 400, "top_logprobs"),
    ("chat/completions", {"logprobs": 1}, 400, "logprobs"),
    ("chat/completions", {"tools": [{"type": "function"}]}, 400, "tools[0].function"),
    ("chat/completions", {"tools": []}, 400, "tools"),
    ("chat/completions", {"store": True}, 400, "store"),
    ("chat/completions", {"store": 0}, 400, "store"),
    ("chat/completions", {"tool_choice": "required"}, 400, "tool_choice"),
    ("chat/completions", {"tool_choice": "some"}, 400, "tool_choice"),
    (
        "chat/completions",
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        400,
        "tools[0].function.name",
    ),
    (
        "chat/completions",
        {"response_format": {"type": "yaml"}},
        400,
        "response_format",
    ),
    ("chat/completions", {"chat_template": "{{ 1 }}"}, 400, "chat_template"),
    ("chat/completions", {"store": True}, 400, "store"),
]

RAW_REFUSED = [
    (b"", "JSON"),
    (b"{", "JSON"),
    (b"\xff\xfe{}", "JSON"),
    (b'{"model": "embedder", "input": "\xed\xa0\x80"}', "JSON"),
    (b'{"model": "embedder", "input": ' + b"[" * 100_000, "deep"),
    (b'{"model": "embedder", "input": ' + b"[" * 5000 + b"]" * 5000 + b"}", "deep"),
    (b'{"model": "embedder", "input": [1' + b"0" * 5000 + b"]}", "JSON"),
    (b"[]", "object"),
    (b"null", "object"),
    (b'"text"', "object"),
]


@pytest.fixture
async def client() -> AsyncIterator[AsyncClient]:
    async with client_of(served(max_body_bytes=200_000, max_inputs=64, max_choices=16)) as client:
        yield client


def good_body(route: str) -> dict[str, object]:
    if route == "chat/completions":
        return dict(CHAT)
    if route == "completions":
        return dict(COMPLETE)
    return {"model": "classifier", "input": "a text"} if route == "classify" else dict(EMBED)


async def post(client: AsyncClient, route: str, content: bytes, **headers: str) -> Response:
    sent = {"content-type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return await client.post(f"/v1/{route}", content=content, headers=sent)


@pytest.mark.parametrize(("route", "fault", "status", "field"), REFUSED)
async def test_a_bad_field_is_named(
    client: AsyncClient, route: str, fault: dict[str, object], status: int, field: str
) -> None:
    content = json.dumps(good_body(route) | fault).encode()
    answer = await post(client, route, content)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["param"] == field
    assert error["type"] == "invalid_request_error"
    assert 0 < len(error["message"]) < 600


@pytest.mark.parametrize("route", ["embeddings", "classify", "completions", "chat/completions"])
async def test_the_bodies_that_the_faults_are_put_into_are_good(
    client: AsyncClient, route: str
) -> None:
    answer = await post(client, route, json.dumps(good_body(route)).encode())
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(("content", "said"), RAW_REFUSED)
async def test_what_is_no_json_object_is_refused(
    client: AsyncClient, content: bytes, said: str
) -> None:
    answer = await post(client, "embeddings", content)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("route", "fault", "said"),
    [
        (
            "classify",
            {"labels": []},
            "labels: [] is not accepted; list should have at least 2 items",
        ),
        ("classify", {"labels": ["x", "y", "x"]}, "'x' is there twice"),
        ("completions", {"n": True}, "n: true is not accepted; input should be a valid integer"),
        ("completions", {"model": None}, "model: null is not accepted"),
        ("completions", {"prompt": [None, False]}, "prompt: [null, false] is not accepted"),
        ("completions", {"max_tokens": 0}, "needs echo to be true"),
        ("completions", {"early_stopping": True}, "early_stopping true needs use_beam_search"),
    ],
)
async def test_what_is_said_is_in_the_words_of_json(
    client: AsyncClient, route: str, fault: dict[str, object], said: str
) -> None:
    answer = await client.post(f"/v1/{route}", json=good_body(route) | fault)
    message = answer.json()["error"]["message"]
    assert answer.status_code == 400
    assert said in message
    assert not any(word in message for word in ("after validation", "None", "True", "alue error"))


async def test_a_body_may_be_200_deep_and_is_told_so(client: AsyncClient) -> None:
    for depth, is_deep in ((200, False), (203, True)):
        content = (
            b'{"model": "embedder", "input": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
        )
        message = (await post(client, "embeddings", content)).json()["error"]["message"]
        assert ("nested too deeply" in message and "200 deep" in message) is is_deep, message


@pytest.mark.parametrize("field", ["model", "input"])
async def test_a_missing_field_is_named(client: AsyncClient, field: str) -> None:
    body = {name: value for name, value in EMBED.items() if name != field}
    answer = await post(client, "embeddings", json.dumps(body).encode())
    assert answer.json()["error"]["message"] == f"{field} is missing"


async def test_too_many_tokens_are_told_with_both_counts(client: AsyncClient) -> None:
    error = (await client.post("/v1/embeddings", json=EMBED | {"input": "x" * 70})).json()["error"]
    assert "71 tokens" in error["message"]
    assert "64" in error["message"]
    assert error["code"] == "context_length_exceeded"


async def test_a_field_that_is_not_supported_is_told_from_one_that_is_not_known(
    client: AsyncClient,
) -> None:
    for field, said in (("functions", "not supported"), ("tolls", "not a known field")):
        answer = await client.post("/v1/chat/completions", json=CHAT | {field: [1]})
        assert said in answer.json()["error"]["message"]


async def test_null_is_as_good_as_nothing(client: AsyncClient) -> None:
    unused = dict.fromkeys(
        ("tools", "tool_choice", "stop", "seed", "max_tokens", "temperature", "response_format")
    )
    assert (await client.post("/v1/chat/completions", json=CHAT | unused)).status_code == 200


async def test_a_nul_is_a_character_like_others(client: AsyncClient) -> None:
    answer = await post(client, "embeddings", b'{"model": "embedder", "input": "a\\u0000b"}')
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "text/plain"},
        {"content_type": "application/x-www-form-urlencoded"},
        {"content_type": ""},
        {"content_encoding": "gzip"},
        {"content_encoding": "br, gzip"},
    ],
)
async def test_another_media_type_or_a_compressed_body_is_a_415(
    client: AsyncClient, headers: dict[str, str]
) -> None:
    answer = await post(client, "embeddings", json.dumps(EMBED).encode(), **headers)
    assert answer.status_code == 415
    assert answer.json()["error"]["code"] == "unsupported_media_type"


async def test_a_body_over_the_limit_is_refused_before_it_is_parsed(client: AsyncClient) -> None:
    answer = await post(client, "embeddings", b"{" * 200_001)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"


async def test_a_chunked_body_over_the_limit_is_not_read_to_its_end(client: AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b" " * 10_000

    answer = await client.post(
        "/v1/embeddings", content=endless(), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 413
    assert sent == 21


async def test_a_body_that_does_not_arrive_is_a_408() -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)
        yield b"}"

    async with client_of(served(body_timeout_s=0.05)) as client:
        answer = await client.post(
            "/v1/embeddings", content=stalled(), headers={"content-type": "application/json"}
        )
    assert answer.status_code == 408


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b'{"model": "embedder", "input": "\\ud800"}', "input"),
        (b'{"model": "embedder", "input": ["fine", "half \\udc00"]}', "input[1]"),
        (b'{"\\ud800": "\\ud800"}', "\\ud800"),
    ],
)
async def test_half_a_surrogate_pair_is_refused_by_field(
    client: AsyncClient, raw: bytes, field: str
) -> None:
    answer = await client.post(
        "/v1/embeddings", content=raw, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == field
    assert "surrogate" in error["message"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"model": "embedder", "input": ["a"' + b",1" * 50_000 + b"]}", "input[1]"),
        (b'{"model": "embedder", "input": [[1' + b',""' * 50_000 + b"]]}", "input[0][1]"),
        (b'{"model": "generator", "messages": [{}' + b",{}" * 50_000 + b"]}", "messages[0].role"),
    ],
)
async def test_only_the_first_of_many_wrong_items_is_looked_at(
    client: AsyncClient, body: bytes, field: str
) -> None:
    route = "/v1/chat/completions" if b"messages" in body else "/v1/embeddings"
    answer = await client.post(route, content=body, headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, field)
    assert "more" not in error["message"]


async def test_a_body_of_nothing_but_keys_is_refused_unread(
    monkeypatch: pytest.MonkeyPatch, client: AsyncClient
) -> None:
    monkeypatch.setattr(bodies, "MAX_KEYS", 10)
    body = {f"key{number}": number for number in range(20)}
    answer = await client.post("/v1/embeddings", json=body)
    assert answer.status_code == 400
    assert "more keys" in answer.json()["error"]["message"]
