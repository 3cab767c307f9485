"""Groups, and models that change in every replica while requests run: behind Ray Serve, where one
group has two replicas, and in one process under uvicorn.
"""

import asyncio
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtests.service_process import Running, anatomy_program, serve
from service.admin_commands import KEY_VARIABLE
from service.api.keys import digest_of, new_key
from tests.support.artifacts import golden, write_artifact

KEY = new_key()
HEADERS = {"authorization": f"Bearer {KEY}"}
TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three writers and one whose golden outputs are wrong."""
    folder = tmp_path_factory.mktemp("artifacts")
    for name in ("writer", "painter", "new"):
        write_artifact(folder / name, name)
    wrong = golden(folder / "new")
    wrong["model.onnx"][1]["logits"] = wrong["model.onnx"][1]["logits"] + 1
    write_artifact(folder / "wrong", "wrong", golden=wrong)
    return folder


@pytest.fixture(scope="module", params=[pytest.param(2, marks=pytest.mark.ray), 1])
def replicas(request: pytest.FixtureRequest) -> int:
    """How many replicas the group at the root has; one where there is no Ray."""
    return request.param


@pytest.fixture(scope="module")
def service(
    replicas: int, artifacts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A group at the root, and another that scales by its queue."""
    folder = tmp_path_factory.mktemp("living")
    (folder / "admins").write_text(f"somebody {digest_of(KEY)}\n")
    file = folder / "anatomy.yaml"
    file.write_text(f"""
admin_keys_file: {folder / "admins"}
threads: 1
groups:
  - name: writers
    models: [{{source: {artifacts / "writer"}, slots: 4}}]
    replicas: {replicas}
  - name: painters
    prefix: /painters
    models: [{{source: {artifacts / "painter"}, slots: 4}}]
    autoscaling: {{min: 1, max: 2, target_queue: 4}}
""")
    options = ["--config", str(file), *(["--plain"] if replicas == 1 else [])]
    with serve(options, log=folder / "log", start_timeout_s=90) as running:
        wait_for(f"{running.url}/painters/ready")
        yield running


def wait_for(url: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        if httpx.get(url, timeout=TIMEOUT_S).status_code == 200:
            return
        time.sleep(0.1)
    pytest.fail(f"{url} was not ready")


def write(url: str, model: str) -> httpx.Response:
    body = {"model": model, "prompt": "hello", "temperature": 0, "max_tokens": 4}
    return httpx.post(f"{url}/v1/completions", json=body, timeout=TIMEOUT_S)


def test_a_model_of_another_group_is_a_404_that_names_its_prefix(service: Running) -> None:
    assert write(service.url, "writer").status_code == 200
    assert write(f"{service.url}/painters", "painter").status_code == 200
    for url, model, prefix in [
        (service.url, "painter", "/painters"),
        (f"{service.url}/painters", "writer", "/"),
    ]:
        answer = write(url, model)
        assert answer.status_code == 404
        assert f"is served under {prefix}," in answer.json()["error"]["message"]


def test_models_come_and_go_in_every_replica_and_no_request_fails(
    service: Running, artifacts: Path, replicas: int
) -> None:
    seen: Counter[tuple[str, int]] = Counter()

    async def change(
        client: httpx.AsyncClient, method: str, name: str, source: str = ""
    ) -> httpx.Response:
        path = f"/admin/models/{name}" if name else "/admin/models"
        body = {"source": str(artifacts / source), "slots": 4} if source else None
        return await client.request(method, path, json=body, headers=HEADERS)

    def served(answer: httpx.Response) -> list[list[str]]:
        assert answer.status_code == 200, answer.text
        return [[m["name"] for m in one["models"]] for one in answer.json()["replicas"]]

    async def run() -> None:
        is_over = False

        async def ask(client: httpx.AsyncClient, stream: bool) -> None:
            body = {"model": "writer", "prompt": "hello", "max_tokens": 8, "stream": stream}
            while not is_over:
                answer = await client.post("/v1/completions", json=body)
                is_whole = not stream or "[DONE]" in answer.text
                seen["whole" if is_whole else "cut", answer.status_code] += 1

        async with httpx.AsyncClient(base_url=service.url, timeout=TIMEOUT_S) as client:
            asking = [asyncio.create_task(ask(client, stream=i % 2 == 0)) for i in range(6)]
            loaded = await change(client, "POST", "", "new")
            assert served(loaded) == [["writer", "new"]] * replicas
            for answer in await asyncio.gather(*(asked_new(client) for _ in range(12))):
                assert answer.status_code == 200, answer.text
            swapped = await change(client, "PUT", "writer", "painter")
            assert served(swapped) == [["writer", "new"]] * replicas
            refused = await change(client, "PUT", "writer", "wrong")
            assert refused.status_code == 422
            assert "golden outputs of model.onnx are off" in refused.text
            unloaded = await change(client, "DELETE", "new")
            assert served(unloaded) == [["writer"]] * replicas
            is_over = True
            await asyncio.gather(*asking)

    async def asked_new(client: httpx.AsyncClient) -> httpx.Response:
        body: dict[str, Any] = {"model": "new", "prompt": "hello", "max_tokens": 4}
        return await client.post("/v1/completions", json=body)

    asyncio.run(run())
    assert set(seen) == {("whole", 200)}, seen
    assert seen["whole", 200] > 12


def test_a_group_of_one_replica_changes_without_a_gap_and_the_others_hear_of_it(
    service: Running, artifacts: Path
) -> None:
    url = f"{service.url}/painters"
    environment = {**os.environ, KEY_VARIABLE: KEY}

    def command(*arguments: str) -> str:
        done = subprocess.run(
            [anatomy_program(), *arguments, "--url", url],
            env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "fresh" in command("load", str(artifacts / "new"), "--name", "fresh", "--slots", "2")
    assert write(url, "fresh").status_code == 200
    assert write(url, "painter").status_code == 200
    told = write(service.url, "fresh")
    assert told.status_code == 404
    assert "is served under /painters," in told.text
    assert "fresh" not in command("unload", "fresh")
    assert write(url, "painter").status_code == 200
