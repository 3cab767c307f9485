"""API keys: every route refuses who has none, and nothing tells more than that."""

import stat
from pathlib import Path

import httpx
import pytest
from starlette.routing import Route
from typer.testing import CliRunner

from service.api.keys import OPEN_PATHS, ApiKeys, KeyFileError, digest_of, new_key
from service.commands import app as commands
from service.metrics import Metrics
from tests.support.service import client_of, served

ALICE, BOB = new_key(), new_key()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.txt"
    path.write_text(f"# who may ask\nalice {digest_of(ALICE)}\n\nbob  {digest_of(BOB)}\n")
    return path


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_every_route_wants_a_key_but_those_of_probes(keys: Path) -> None:
    app = served(api_keys_file=keys)
    routes = [route for route in app.routes if isinstance(route, Route)]
    assert len(routes) > 15
    async with client_of(app) as client:
        for route in routes:
            for method in route.methods or ():
                answer = await client.request(method, route.path.replace("{name:path}", "x"))
                assert (answer.status_code == 401) == (route.path not in OPEN_PATHS), route.path
        assert (await client.get("/nothing")).status_code == 401
        assert (await client.get("/v1/models", headers=bearer(ALICE))).status_code == 200
        assert (await client.get("/v1/models", headers=bearer(BOB))).status_code == 200


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", f"Basic {ALICE}", f"Bearer {ALICE}x", f"Bearer {ALICE[:-1]}", ALICE],
    # Keys are drawn anew in each run: a test's name should not be.
    ids=["nothing", "no key", "an empty key", "another scheme", "longer", "shorter", "no scheme"],
)
async def test_what_is_no_known_key_is_refused_in_openais_shape(keys: Path, header: str) -> None:
    async with client_of(served(api_keys_file=keys)) as client:
        answer = await client.get("/v1/models", headers={"authorization": header})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert ALICE[12:20] not in answer.text
    assert "x-request-id" in answer.headers


async def test_other_dialects_are_told_in_their_own_shape(keys: Path) -> None:
    async with client_of(served(api_keys_file=keys)) as client:
        answer = await client.post("/embed", json={"inputs": "a"})
    assert answer.status_code == 401
    assert answer.json()["error_type"] == "Unauthorized"


async def test_requests_are_counted_by_the_name_of_their_key(keys: Path) -> None:
    metrics = Metrics()
    async with client_of(served(api_keys_file=keys, metrics=metrics)) as client:
        for key in (ALICE, ALICE, BOB, "nobody's"):
            await client.get("/v1/models", headers=bearer(key))
    text = metrics.exposition().decode()
    assert 'anatomy_key_requests_total{key="alice"} 2.0' in text
    assert 'anatomy_key_requests_total{key="bob"} 1.0' in text
    assert 'anatomy_refusals_total{reason="invalid_api_key"} 1.0' in text
    assert ALICE not in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has none"),
        ("# nobody\n", "has none"),
        ("alice\n", "line 1"),
        (f"alice {ALICE}\n", "line 1"),
        (f"a b {digest_of(ALICE)}\n", "line 1"),
        (f"\nalice {digest_of(ALICE)}\nalice {digest_of(BOB)}\n", "line 3: the name 'alice'"),
    ],
    ids=["empty", "a comment", "a name", "a key itself", "three words", "a name twice"],
)
def test_a_file_that_cant_be_used_is_told_by_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(text)
    with pytest.raises(KeyFileError, match=said) as caught:
        ApiKeys.read(path)
    assert ALICE not in str(caught.value)


def test_a_file_that_isnt_there_is_told() -> None:
    with pytest.raises(KeyFileError, match="can't be read"):
        ApiKeys.read(Path("/nowhere/keys.txt"))


def test_the_command_shows_a_key_once_and_gives_the_line_that_knows_it(tmp_path: Path) -> None:
    done = CliRunner().invoke(commands, ["key", "carol"])
    assert done.exit_code == 0
    (key,) = [word for word in done.stderr.split() if word.startswith("sk-anatomy-")]
    path = tmp_path / "keys.txt"
    path.write_text(done.stdout)
    path.chmod(stat.S_IRUSR)
    assert key not in done.stdout
    assert ApiKeys.read(path).holder(key) == "carol"
    assert ApiKeys.read(path).holder(key + "x") is None


def test_the_command_refuses_what_is_no_name() -> None:
    done = CliRunner().invoke(commands, ["key", "a b"])
    assert done.exit_code != 0
    assert "'a b' is not a name" in done.stderr


def preflight(origin: str) -> dict[str, str]:
    return {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }


async def test_a_page_may_ask_only_where_its_origin_is_named(keys: Path) -> None:
    app = served(api_keys_file=keys, cors_origins="https://a.test")
    async with client_of(app) as client:
        path = "/v1/embeddings"
        allowed: httpx.Response = await client.options(path, headers=preflight("https://a.test"))
        other = await client.options(path, headers=preflight("https://b.test"))
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://a.test"
    assert "access-control-allow-origin" not in other.headers


async def test_without_origins_no_page_of_another_may_ask() -> None:
    async with client_of(served()) as client:
        answer = await client.get("/v1/models", headers={"origin": "https://a.test"})
    assert "access-control-allow-origin" not in answer.headers
