"""Several groups in one process: each answers under its prefix as it would alone."""

from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from service.commands import app as commands
from service.groups import Group
from service.plain import build_groups
from service.settings import ServiceSettings
from service.specs import ModelSpec
from tests.support.artifacts import write_artifact
from tests.support.service import client_of


async def test_groups_answer_under_their_prefixes_and_know_of_one_another(tmp_path: Path) -> None:
    specs = [ModelSpec(source=str(write_artifact(tmp_path / name, name))) for name in ("a", "b")]
    groups = [
        Group(name="first", models=(specs[0],)),
        Group(name="second", prefix="/second", models=(specs[1],)),
    ]
    app = build_groups(ServiceSettings(threads=1, slots=4), groups).app
    async with client_of(app) as client:

        async def write(prefix: str, model: str) -> httpx.Response:
            body = {"model": model, "prompt": "hello", "max_tokens": 4}
            return await client.post(f"{prefix}/v1/completions", json=body)

        for prefix, model, other in (("", "a", "b"), ("/second", "b", "a")):
            assert (await client.get(f"{prefix}/ready")).status_code == 200
            told = (await client.get(f"{prefix}/openapi.json")).json()
            assert told["servers"] == [{"url": prefix or "/"}]
            listed = (await client.get(f"{prefix}/v1/models")).json()["data"]
            assert [row["id"] for row in listed] == [model]
            assert (await write(prefix, model)).status_code == 200
            refused = await write(prefix, other)
            assert refused.status_code == 404
            assert "it is served under /" in refused.text
            metrics = (await client.get(f"{prefix}/metrics")).text
            assert 'route="/v1/completions"' in metrics
        # A dialect is told by the path: below a prefix too.
        assert "error_type" in (await client.post("/second/embed", json={})).json()
        assert (await client.get("/third/ready")).status_code == 404


@pytest.mark.parametrize(
    ("text", "said"), [("prot: 1", "did you mean 'port'"), ("groups: [{name: a}]", "models: Field")]
)
def test_a_file_that_is_wrong_ends_the_command_with_a_line(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "anatomy.yaml"
    file.write_text(text)
    done = CliRunner().invoke(commands, ["serve", "--config", str(file)])
    assert done.exit_code == 1
    assert said in done.output


def test_a_misspelt_variable_ends_the_command_with_the_one_that_was_meant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANATOMY_SLOT", "4")
    done = CliRunner().invoke(commands, ["serve"])
    assert done.exit_code == 1
    assert "ANATOMY_SLOT is no setting; did you mean ANATOMY_SLOTS?" in done.output
