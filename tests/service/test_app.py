import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.metrics import Metrics
from tests.support.fakes import FakeGenerationModel
from tests.support.service import client_of, served


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "route_not_found"),
        ("POST", "/v1/embeddings/", 404, "route_not_found"),
        ("GET", "/v1/embeddings", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("BREW", "/health", 405, "method_not_allowed"),
    ],
)
async def test_routing_errors_have_the_same_body_as_all_errors(
    method: str, path: str, status: int, code: str
) -> None:
    async with client_of(served()) as client:
        answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert path in answer.json()["error"]["message"]
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize("path", ["/health", "/nothing", "/v1/models/nobody"])
async def test_a_request_id_is_taken_and_given_back(path: str) -> None:
    async with client_of(served()) as client:
        answer = await client.get(path, headers={"x-request-id": "mine-1"})
        assert answer.headers["x-request-id"] == "mine-1"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a\tb", "ä"])
async def test_a_request_id_that_is_not_safe_is_replaced(given: str) -> None:
    async with client_of(served()) as client:
        answer = await client.get("/health", headers=[(b"x-request-id", given.encode())])
        assert answer.headers["x-request-id"] != given
        assert len(answer.headers["x-request-id"]) == 32


async def test_what_nobody_expected_is_a_500_that_tells_only_the_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(request: Request) -> Response:
        raise ValueError("a secret")

    app = served()
    app.router.routes.append(Route("/broken", broken))
    async with client_of(app) as client:
        answer = await client.get("/broken", headers={"x-request-id": "mine-1"})
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "mine-1"
    assert "mine-1" in answer.json()["error"]["message"]
    assert "secret" not in answer.text
    assert "a secret" in caplog.text


async def test_labels_are_templates_and_served_names_alone() -> None:
    metrics = Metrics()
    async with client_of(served(metrics=metrics)) as client:
        for number in range(20):
            await client.get(f"/nothing/{number}")
            await client.get(f"/v1/models/nobody-{number}")
            await client.request(f"M{number}", "/health")
            body = {"model": f"nobody-{number}", "input": "a"}
            await client.post("/v1/embeddings", json=body)
        await client.post("/v1/embeddings", json={"model": "embedder", "input": "a"})
    text = metrics.exposition().decode()
    assert "nobody-" not in text
    counted = [line for line in text.splitlines() if line.startswith("anatomy_requests_total{")]
    assert sorted(line.rpartition(" ")[0] for line in counted) == [
        'anatomy_requests_total{model_name="",route="/health",status="405"}',
        'anatomy_requests_total{model_name="",route="/v1/embeddings",status="404"}',
        'anatomy_requests_total{model_name="",route="/v1/models/{name:path}",status="404"}',
        'anatomy_requests_total{model_name="",route="unmatched",status="404"}',
        'anatomy_requests_total{model_name="embedder",route="/v1/embeddings",status="200"}',
    ]
    assert 'anatomy_refusals_total{reason="model_not_found"} 40.0' in text


@pytest.mark.parametrize(
    ("setting", "header"), [(0.05, None), (None, "0.05"), (60, "0.05"), (0.05, "60")]
)
async def test_a_request_past_its_deadline_is_dropped_and_told(
    setting: float | None, header: str | None
) -> None:
    model = FakeGenerationModel(pause_s=5.0)
    async with client_of(served(generator=model, request_timeout_s=setting)) as client:
        answer = await client.post(
            "/v1/completions",
            json={"model": "generator", "prompt": "a"},
            headers={"x-request-timeout": header} if header else {},
        )
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    assert "within 0.05 s" in answer.json()["error"]["message"]
    assert model.started[0].is_closed


@pytest.mark.parametrize("header", ["-1", "0", "0.0", "soon", "1e3", "", "nan", "1 2"])
async def test_a_deadline_that_is_no_number_of_seconds_is_refused(header: str) -> None:
    async with client_of(served()) as client:
        headers = {"x-request-timeout": header, "x-request-id": "7"}
        answers = [
            await client.post(path, json=body, headers=headers)
            for path, body in (
                ("/v1/embeddings", {"model": "embedder", "input": "a"}),
                ("/embed", {"inputs": "a"}),
            )
        ]
    assert [answer.status_code for answer in answers] == [400, 422]
    assert all(answer.headers["x-request-id"] == "7" for answer in answers)
    error = answers[0].json()["error"]
    assert error["param"] == "x-request-timeout"
    assert f"{header!r} is not accepted; it is a number of seconds" in error["message"]
    assert answers[1].json()["error_type"] == "Validation"
