"""Changing models over HTTP: who may, what is asked of the control, and how refusals are told."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from typer.testing import CliRunner

from service.admin_commands import KEY_VARIABLE
from service.admin_commands import app as commands
from service.api.keys import digest_of, new_key
from service.app import create_app
from service.errors import Conflict, UnusableModel
from service.metrics import Metrics
from service.registry import Registry
from service.settings import ServiceSettings
from service.specs import ModelSpec, Wanted
from tests.support.fakes import FakeEmbeddingModel
from tests.support.schema import require_told, strict
from tests.support.servers import running
from tests.support.service import client_of, document_of

ADMIN, USER = new_key(), new_key()
ONE, TWO = ModelSpec(source="/models/one-1234"), ModelSpec(source="hf:org/two")
BOTH: Wanted = (ONE, TWO)


class FakeControl:
    """Does what it is told, or refuses."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.wanted: Wanted = BOTH
        self.refusal = refusal
        self.kept = False

    def names(self) -> Mapping[ModelSpec, Sequence[str]]:
        return {spec: self.of(spec) for spec in self.wanted}

    def of(self, spec: ModelSpec) -> list[str]:
        return ["one", "head"] if spec == ONE else [spec.label]

    async def change(self, base: Wanted, wanted: Wanted, *, keep: bool = False) -> None:
        assert base == self.wanted
        self.kept = keep
        if self.refusal is not None:
            raise self.refusal
        self.wanted = wanted

    async def replicas(self) -> list[dict[str, Any]]:
        return [{"models": [], "loading": [], "draining": []} for _ in range(2)]


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Path]:
    files = {"admin_keys_file": tmp_path / "admins", "api_keys_file": tmp_path / "users"}
    for (_, path), key in zip(files.items(), (ADMIN, USER), strict=True):
        path.write_text(f"somebody {digest_of(key)}\n")
    return files


def app_of(control: FakeControl, **settings: Any) -> Starlette:
    registry = Registry()
    registry.add_embedding(FakeEmbeddingModel())
    registry.ready = True
    return create_app(registry, ServiceSettings(**settings), Metrics(), control=control)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_without_admin_keys_there_is_no_such_route(keys: dict[str, Path]) -> None:
    async with client_of(app_of(FakeControl())) as client:
        assert (await client.get("/admin/models")).status_code == 404
        assert (await client.post("/admin/models", json={"source": "x"})).status_code == 404
    async with client_of(app_of(FakeControl(), api_keys_file=keys["api_keys_file"])) as client:
        answer = await client.get("/admin/models", headers=bearer(USER))
        assert answer.status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/models"),
        ("POST", "/admin/models"),
        ("PUT", "/admin/models/one"),
        ("DELETE", "/admin/models/one"),
    ],
)
async def test_admin_keys_open_the_admin_routes_alone_and_no_other_key_does(
    keys: dict[str, Path], method: str, path: str
) -> None:
    control = FakeControl()
    async with client_of(app_of(control, **keys)) as client:
        for headers in ({}, bearer(USER), bearer(ADMIN + "x")):
            answer = await client.request(method, path, headers=headers, json={"source": "x"})
            assert answer.status_code == 401
            assert "admin key" in answer.json()["error"]["message"]
        assert control.wanted == BOTH
        assert (await client.get("/v1/models", headers=bearer(ADMIN))).status_code == 401
        assert (await client.get("/v1/models", headers=bearer(USER))).status_code == 200


async def test_admin_keys_alone_leave_the_other_routes_open(keys: dict[str, Path]) -> None:
    async with client_of(app_of(FakeControl(), admin_keys_file=keys["admin_keys_file"])) as client:
        assert (await client.get("/v1/models")).status_code == 200
        assert (await client.get("/admin/models")).status_code == 401


async def asked(
    control: FakeControl, keys: dict[str, Path], method: str, path: str, body: Any = None
) -> httpx.Response:
    async with client_of(app_of(control, **keys)) as client:
        return await client.request(method, path, headers=bearer(ADMIN), json=body)


async def test_a_model_is_added_at_the_end(keys: dict[str, Path]) -> None:
    control = FakeControl()
    body = {"source": "minilm", "precision": "int8", "name": "small", "threads": 1}
    answer = await asked(control, keys, "POST", "/admin/models", body)
    assert answer.status_code == 200
    assert control.wanted == (*BOTH, ModelSpec(**body))
    assert answer.json()["models"][0] == {
        "name": "one", "serves": ["one", "head"], "source": "/models/one-1234",
    }  # fmt: skip
    assert answer.json()["models"][-1] == body | {"serves": ["small"]}
    assert len(answer.json()["replicas"]) == 2


@pytest.mark.parametrize("name", ["one", "head"])
async def test_a_swap_takes_the_place_and_the_name(keys: dict[str, Path], name: str) -> None:
    control = FakeControl()
    answer = await asked(control, keys, "PUT", f"/admin/models/{name}", {"source": "/models/new"})
    assert answer.status_code == 200
    assert control.wanted == (ModelSpec(source="/models/new", name="one"), TWO)


async def test_a_swap_keeps_names_and_tasks_unless_the_request_says_otherwise(
    keys: dict[str, Path],
) -> None:
    control = FakeControl()
    for more, kept in (({}, True), ({"allow_loss": True}, False)):
        body = {"source": "/models/new", **more}
        answer = await asked(control, keys, "PUT", "/admin/models/one", body)
        assert (answer.status_code, control.kept) == (200, kept)
        assert control.wanted == (ModelSpec(source="/models/new", name="one"), TWO)
        control.wanted = BOTH


async def test_a_model_is_taken_away_by_its_name_but_the_last_one_stays(
    keys: dict[str, Path],
) -> None:
    control = FakeControl()
    assert (await asked(control, keys, "DELETE", "/admin/models/one")).status_code == 200
    assert control.wanted == (TWO,)
    answer = await asked(control, keys, "DELETE", "/admin/models/two")
    assert answer.status_code == 409
    assert control.wanted == (TWO,)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", "/admin/models", {"source": "two"}, 409, "'two' is served already; PUT"),
        ("POST", "/admin/models", {"source": "x", "name": "head"}, 409, "'head' is served already"),
        ("POST", "/admin/models", {"sorce": "x"}, 400, "did you mean 'source'"),
        ("POST", "/admin/models", {"source": "x", "slots": 0}, 400, "slots: 0 is not accepted"),
        ("POST", "/admin/models", {"source": "x", "digest": "12"}, 400, "digest"),
        ("POST", "/admin/models", {"source": "x", "name": "a b"}, 400, "name"),
        ("POST", "/admin/models", {"name": "a"}, 400, "source is missing"),
        ("PUT", "/admin/models/three", {"source": "x"}, 404, "'three' is not served; served: one"),
        ("DELETE", "/admin/models/three", None, 404, "'three' is not served; served: one, two"),
    ],
)
async def test_what_can_t_be_meant_is_refused_and_nothing_changes(
    keys: dict[str, Path], method: str, path: str, body: Any, status: int, said: str
) -> None:
    control = FakeControl()
    answer = await asked(control, keys, method, path, body)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]["message"]
    assert control.wanted == BOTH


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (UnusableModel("model 'x' can't be served: it is corrupt"), 422, "model_unusable"),
        (Conflict("another change is under way"), 409, "conflict"),
    ],
)
async def test_a_refusal_has_its_own_status_and_the_reason(
    keys: dict[str, Path], refusal: Exception, status: int, code: str
) -> None:
    answer = await asked(FakeControl(refusal), keys, "POST", "/admin/models", {"source": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["message"] == str(refusal)


def test_the_commands_ask_the_admin_routes(
    keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    control, here = FakeControl(), tmp_path / "artifact"
    here.mkdir()
    monkeypatch.setenv(KEY_VARIABLE, ADMIN)
    monkeypatch.chdir(tmp_path)
    with running(app_of(control, **keys)) as url:

        def call(*arguments: str) -> tuple[int, str]:
            done = CliRunner().invoke(commands, [*arguments, "--url", url])
            return done.exit_code, done.output

        status, said = call("load", "./artifact", "--name", "new", "--slots", "2")
        assert status == 0, said
        assert "in 2 replicas" in said
        assert control.wanted[-1] == ModelSpec.model_validate(
            {"source": str(here), "name": "new", "slots": 2}
        )
        assert call("swap", "one", "minilm", "--precision", "int8")[0] == 0
        assert control.wanted[0] == ModelSpec.model_validate(
            {"source": "minilm", "name": "one", "precision": "int8"}
        )
        assert call("unload", "new")[0] == 0
        assert len(control.wanted) == 2
        status, said = call("unload", "nobody")
        assert status == 1
        assert "404: model 'nobody' is not served" in said
        monkeypatch.setenv(KEY_VARIABLE, USER)
        said = call("unload", "two")[1]
        assert "the admin key is not known" in said
        assert "ANATOMY_ADMIN_KEY in the environment" in said
    with running(app_of(control)) as url:
        assert "ANATOMY_ADMIN_KEYS_FILE" in call("unload", "two")[1]


def test_a_service_passes_over_the_key_of_those_who_ask_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, ADMIN)
    assert ServiceSettings().admin_keys_file is None


async def test_the_routes_are_told_and_answer_as_told(keys: dict[str, Path]) -> None:
    body = {"source": "hf:org/three", "precision": "int8", "slots": 4}
    app = app_of(FakeControl(), admin_keys_file=keys["admin_keys_file"])
    document = strict(await document_of(app))
    async with client_of(app) as client:
        for method, path in (("post", "/admin/models"), ("get", "/admin/models")):
            answer = await client.request(method, path, headers=bearer(ADMIN), json=body)
            require_told(document, path, method, answer)
        for method in ("put", "delete"):
            path = "/admin/models/{name}"
            url = path.replace("{name}", "one")
            require_told(document, path, method, await client.request(method, url))
            answer = await client.request(method, url, headers=bearer(ADMIN), json=body)
            assert answer.status_code == 200
            require_told(document, path, method, answer)
