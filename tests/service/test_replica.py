"""What Serve's configuration says of groups, and a replica that follows it. No Ray."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from service.errors import UnusableModel
from service.groups import Autoscaling, Group
from service.replica import Replica
from service.serve_config import (
    DEPLOYMENT,
    IMPORT_PATH,
    Models,
    application,
    arguments,
    changed_configs,
    deployment_of,
    scale_of,
)
from service.settings import ServiceSettings
from service.specs import ModelSpec
from tests.support.artifacts import write_artifact
from tests.support.service import BASE_URL

A, B, C = (ModelSpec(source=name) for name in "abc")


def configs() -> dict[str, dict[str, Any]]:
    settings = ServiceSettings()
    encoders = Group(name="encoders", models=(A,))
    writers = Group(name="writers", prefix="/writers", models=(B,))
    return {
        "encoders": application(settings, encoders, {"b": "/writers"}),
        "writers": application(settings, writers, {"a": "/"}),
    }


def models_of(config: dict[str, Any]) -> Models:
    return Models.model_validate(deployment_of(config)["user_config"])


def test_an_application_is_built_again_of_its_own_arguments() -> None:
    group = Group(
        name="writers",
        prefix="/writers",
        models=(ModelSpec.model_validate({"source": "b", "slots": 3}),),
        autoscaling=Autoscaling(max=4),
    )
    settings = ServiceSettings(port=1, slots=9)
    found = application(settings, group, {})
    assert found["import_path"] == IMPORT_PATH
    assert arguments(found["args"]) == (settings, group)


def test_arguments_without_a_group_are_one_group_at_the_root() -> None:
    settings, group = arguments({"models": ["minilm", "smollm2"]})
    assert group == Group.of(settings)
    assert group.prefix == "/"


def test_a_change_touches_nothing_but_the_models_and_tells_the_other_groups() -> None:
    before = configs()
    changed = changed_configs(before, "encoders", (A, C), ["a", "c", "c-head"])
    assert models_of(changed["encoders"]) == Models(models=(A, C), elsewhere={"b": "/writers"})
    elsewhere = {"a": "/", "c": "/", "c-head": "/"}
    assert models_of(changed["writers"]) == Models(models=(B,), elsewhere=elsewhere)
    again = changed_configs(changed, "encoders", (C,), ["c"])
    assert models_of(again["writers"]).elsewhere == {"c": "/"}
    for name, config in before.items():
        for key in ("args", "import_path", "route_prefix"):
            assert again[name][key] == config[key]
    assert models_of(before["encoders"]).models == (A,)


def test_a_configuration_that_others_wrote_is_changed_too_and_foreign_ones_are_left() -> None:
    theirs = {
        "anatomy": {
            "name": "anatomy",
            "route_prefix": "/",
            "import_path": IMPORT_PATH,
            "args": {"models": ["a", "b"]},
            "deployments": [{"name": DEPLOYMENT, "num_replicas": 2}],
        },
        "foreign": {"name": "foreign", "route_prefix": "/x", "import_path": "their.module:app"},
    }
    changed = changed_configs(theirs, "anatomy", (A, B, C), ["a", "b", "c"])
    assert changed["foreign"] == theirs["foreign"]
    assert deployment_of(changed["anatomy"])["num_replicas"] == 2
    assert models_of(changed["anatomy"]).models == (A, B, C)
    told = {**theirs, "other": {**theirs["anatomy"], "name": "other", "route_prefix": "/other"}}
    changed = changed_configs(told, "other", (C,), ["c"])
    assert models_of(changed["anatomy"]) == Models(models=(A, B), elsewhere={"c": "/other"})


def test_replicas_or_autoscaling_is_said_as_serve_takes_it() -> None:
    assert scale_of(Group(models=(A,), replicas=3))["num_replicas"] == 3
    scaled = scale_of(Group(models=(A,), autoscaling=Autoscaling(min=0, max=4, target_queue=6)))
    assert "num_replicas" not in scaled
    assert scaled["autoscaling_config"]["policy"]["policy_kwargs"] == {"target_queue": 6}


@pytest.fixture
def tiny(tmp_path: Path) -> ModelSpec:
    return ModelSpec(source=str(write_artifact(tmp_path / "tiny")))


async def test_a_replica_follows_its_configuration_and_stays_as_it_is_where_it_can_t(
    tiny: ModelSpec, tmp_path: Path
) -> None:
    bad = ModelSpec(source=str(tmp_path / "tiny"), name="bad", digest="0" * 64)
    other = tiny.model_copy(update={"name": "other"})
    group = Group(prefix="/group", models=(tiny,))
    replica = Replica(ServiceSettings(threads=1, slots=4), group, lambda models: models)
    app = replica.app()
    transport = httpx.ASGITransport(app)
    async with (
        replica.models.closing(),
        httpx.AsyncClient(transport=transport, base_url=BASE_URL) as client,
    ):

        async def names() -> list[str]:
            listed = (await client.get("/group/v1/models")).json()["data"]
            return [model["id"] for model in listed]

        assert (await client.get("/group/ready")).status_code == 503
        with pytest.raises(UnusableModel):
            await replica.reconfigure(Models(models=(bad,)))
        assert (await client.get("/group/ready")).status_code == 503
        await replica.reconfigure(Models(models=(tiny,)))
        assert (await client.get("/group/ready")).status_code == 200
        assert await names() == ["tiny"]

        await replica.reconfigure(Models(models=(tiny, bad), elsewhere={"far": "/far"}))
        assert await names() == ["tiny"]
        assert "asked for is 000" in replica.told()["failure"]
        far = await client.get("/group/v1/models/far")
        assert far.status_code == 404
        assert "served under /far" in far.text

        await replica.reconfigure(Models(models=(other, tiny)))
        assert await names() == ["other", "tiny"]
        assert "failure" not in replica.told()


async def test_what_a_replica_refuses_to_stage_is_an_answer(tiny: ModelSpec) -> None:
    group = Group(models=(tiny,))
    replica = Replica(ServiceSettings(threads=1, slots=4), group, lambda models: models)
    async with replica.models.closing():
        await replica.reconfigure(Models(models=(tiny,)))
        base = [tiny.model_dump(mode="json")]
        wrong = [{"source": tiny.source, "name": "bad", "digest": "0" * 64}]
        refused = await replica.stage(base, wrong, "one")
        assert refused["error"] == "UnusableModel"
        assert (await replica.stage(wrong, base, "two"))["error"] == "Conflict"
        assert await replica.stage(base, base, "three") == {"names": ["tiny"]}
