"""Models that come, go and change places while requests run: nobody is refused for it."""

import asyncio
import re
import shutil
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from export.artifact import ENCODER_GRAPH, GRAPH
from service import living
from service.app import create_app
from service.errors import Conflict, UnusableModel
from service.living import ModelGroup
from service.messages import GenerationModel, Sampling
from service.metrics import Metrics
from service.models import SlottedGeneration
from service.registry import Registry
from service.settings import ServiceSettings
from service.specs import ModelSpec
from tests.support.artifacts import golden, write_artifact
from tests.support.engines import until
from tests.support.service import client_of

REQUEST = {"model": "tiny", "prompt": "hello", "temperature": 0, "max_tokens": 8}

INFO_OF_OTHER = r'anatomy_model_info\{model_name="other",.*\} '


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("artifacts") / "tiny")


@asynccontextmanager
async def running(folder: Path, **settings: Any) -> AsyncIterator[ModelGroup]:
    group = ModelGroup(
        ServiceSettings(models=(str(folder),), threads=1, slots=4, **settings),
        Registry(),
        Metrics(),
    )
    async with group.lifespan():
        yield group


def another(folder: Path, name: str = "other", **limits: Any) -> ModelSpec:
    return ModelSpec(source=str(folder), name=name, **limits)


def names(group: ModelGroup) -> list[str]:
    return [card.name for card in group.registry.cards()]


async def test_a_model_is_loaded_beside_another_and_unloaded_again(folder: Path) -> None:
    async with running(folder) as group:
        first = group.wanted
        await group.change(first, (*first, another(folder)))
        assert names(group) == ["tiny", "other"]
        assert group.registry.generation().card.name == "tiny"
        assert re.search(INFO_OF_OTHER + "1.0", group.metrics.exposition().decode())
        await group.change(group.wanted, first)
        assert names(group) == ["tiny"]
        await until(lambda: not group.told()["draining"], "the model is unloaded")
        assert re.search(INFO_OF_OTHER + "0.0", group.metrics.exposition().decode())


async def test_a_swap_keeps_the_name_the_place_and_every_request(folder: Path) -> None:
    async with running(folder) as group:
        first = group.wanted
        await group.change(first, (*first, another(folder)))
        app = create_app(group.registry, group.settings, group.metrics)
        statuses: list[int] = []
        swapping = True

        async def ask() -> None:
            while swapping:
                statuses.append((await client.post("/v1/completions", json=REQUEST)).status_code)

        async with client_of(app) as client:
            asking = [asyncio.create_task(ask()) for _ in range(4)]
            for round_ in range(6):
                old, *rest = group.wanted
                new = another(folder, "tiny", max_context=18 + round_)
                await group.change((old, *rest), (new, *rest))
                assert names(group) == ["tiny", "other"]
                await asyncio.sleep(0.02)
            swapping = False
            await asyncio.gather(*asking)
        assert len(statuses) > 6
        assert set(statuses) == {200}


async def test_a_request_finishes_on_the_model_that_it_began_with(folder: Path) -> None:
    async with running(folder) as group:
        old = group.registry.generation("tiny")
        with group.registry.in_flight.request():
            await group.change(group.wanted, (another(folder, "tiny"),))
            assert group.registry.generation("tiny") is not old
            await asyncio.sleep(0.05)
            assert group.told()["draining"] == ["tiny"]
            # A model that a request found before is asked only now: its engine still answers.
            found = await ask_engine(old)
            assert found
        await until(lambda: not group.told()["draining"], "the old one has ended")


async def ask_engine(model: GenerationModel) -> list[int]:
    stream = model.generate(model.tokenizer.encode("hello"), Sampling(max_tokens=4, temperature=0))
    return [token async for chunk in stream for token in chunk.token_ids]


async def test_what_doesn_t_end_in_time_is_not_waited_for(folder: Path) -> None:
    async with running(folder, drain_timeout_s=0.05) as group:
        with group.registry.in_flight.request():
            await group.change(group.wanted, (another(folder, "tiny"),))
            await until(lambda: not group.told()["draining"], "the old one has ended")


def broken(folder: Path, target: Path, how: str) -> ModelSpec:
    if how == "golden outputs":
        wrong = golden(folder)
        wrong[GRAPH][1]["logits"] = wrong[GRAPH][1]["logits"] + 1
        return another(write_artifact(target / "wrong", golden=wrong), "tiny")
    copy = shutil.copytree(folder, target / "copy")
    if how == "digest":
        (copy / ENCODER_GRAPH).write_bytes(b"nothing")
    elif how == "format":
        manifest = copy / "manifest.json"
        manifest.write_text(
            manifest.read_text().replace('"format_version": ', '"format_version": 9')
        )
    elif how == "asked digest":
        return another(copy, "tiny", digest="0" * 64)
    return another(copy, "tiny")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("golden outputs", "golden outputs of model.onnx are off"),
        ("digest", "is corrupt: sha256"),
        ("format", "format version 9"),
        ("asked digest", "asked for is 000"),
    ],
)
async def test_a_bad_artifact_is_refused_and_the_old_one_goes_on(
    folder: Path, tmp_path: Path, how: str, said: str
) -> None:
    async with running(folder) as group:
        old, first = group.registry.generation("tiny"), group.wanted
        with pytest.raises(UnusableModel, match=said):
            await group.change(first, (broken(folder, tmp_path, how),))
        assert group.registry.generation("tiny") is old
        assert group.wanted == first
        assert await ask_engine(old)
        # Nothing is left of the attempt: the next change is free to come.
        await group.change(first, (another(folder, "tiny"),))


async def test_two_models_can_t_have_one_name(folder: Path) -> None:
    async with running(folder) as group:
        first = group.wanted
        with pytest.raises(Conflict, match="two models would be called tiny"):
            await group.change(first, (*first, another(folder, "tiny", slots=2)))
        assert names(group) == ["tiny"]


async def test_changes_don_t_overtake_one_another(folder: Path) -> None:
    async with running(folder) as group:
        first = group.wanted
        await group.stage(first, (*first, another(folder)), "one")
        with pytest.raises(Conflict, match="another change"):
            await group.stage(first, first, "two")
        await group.discard("two")  # not its own
        await group.apply((*first, another(folder)))
        with pytest.raises(Conflict, match="have changed meanwhile"):
            await group.stage(first, (*first, another(folder, "third")), "three")
        assert names(group) == ["tiny", "other"]


async def test_what_was_staged_and_discarded_is_gone(folder: Path) -> None:
    async with running(folder) as group:
        first = group.wanted
        await group.stage(first, (*first, another(folder)), "one")
        assert names(group) == ["tiny"]
        await group.discard("one")
        await group.change(first, (*first, another(folder)))
        assert names(group) == ["tiny", "other"]


async def test_a_change_that_is_given_up_while_it_loads_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(folder) as group:
        first, may_go_on, load = group.wanted, threading.Event(), living.load

        def held_up(*arguments: Any) -> Any:
            may_go_on.wait(1)  # long enough to be seen
            return load(*arguments)

        monkeypatch.setattr(living, "load", held_up)
        staging = asyncio.create_task(group.stage(first, (*first, another(folder)), "one"))
        await until(lambda: bool(group.registry.loading), "the model is being loaded")
        await group.discard("one")
        with pytest.raises(Conflict, match="given up"):
            await staging
        cancelled = asyncio.create_task(group.change(first, (*first, another(folder))))
        await until(lambda: bool(group.registry.loading), "the model is being loaded")
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        may_go_on.set()
        assert names(group) == ["tiny"]
        await group.change(first, (*first, another(folder)))
        assert names(group) == ["tiny", "other"]


async def test_a_model_that_loads_is_told_apart_from_one_that_doesn_t_exist(folder: Path) -> None:
    async with running(folder) as group:
        app = create_app(group.registry, group.settings, group.metrics)
        async with client_of(app) as client:
            group.registry.loading = frozenset({"other"})
            assert (await client.get("/ready")).json() == {"status": "ready", "loading": ["other"]}
            assert (await client.get("/v1/models/other")).status_code == 503
            assert (await client.get("/v1/models/nobody")).status_code == 404
            assert (await client.post("/v1/completions", json=REQUEST)).status_code == 200
            group.registry.loading = frozenset()


async def test_a_replica_that_starts_comes_to_the_same_as_one_that_has_changed(
    folder: Path,
) -> None:
    """What is wanted is a list: nobody needs to know how it came about."""
    wanted = (another(folder), another(folder, "third"))
    async with running(folder) as old:
        await old.change(old.wanted, wanted)
        fresh = ModelGroup(old.settings, Registry(), Metrics())
        async with fresh.closing():
            assert not fresh.registry.ready
            await fresh.apply(wanted)
            assert fresh.registry.ready
            assert names(fresh) == names(old) == ["other", "third"]


async def test_the_memory_of_an_unloaded_model_is_free_without_the_collector(
    folder: Path,
) -> None:
    """What was loaded at the start is frozen: the collector never looks at it again."""
    async with running(folder) as group:
        model = group.registry.generation("tiny")
        assert isinstance(model, SlottedGeneration)
        engine = weakref.ref(model.engine)
        del model
        await group.change(group.wanted, (another(folder, "tiny"),))
        await until(lambda: not group.told()["draining"], "the old one has ended")
        await until(lambda: engine() is None, "its engine is let go of")


async def test_a_swap_that_would_lose_a_name_is_refused_and_names_it(folder: Path) -> None:
    async with running(folder) as group:
        first = group.wanted
        with pytest.raises(Conflict, match=r"no longer served would be: tiny \(generate\)"):
            await group.change(first, (another(folder),), keep=True)
        assert names(group) == ["tiny"]
        await group.change(first, (another(folder, "tiny"),), keep=True)
        await group.change(group.wanted, (another(folder),))
        assert names(group) == ["other"]


async def test_more_context_than_a_model_has_is_refused(folder: Path) -> None:
    async with running(folder) as group:
        first = group.wanted
        with pytest.raises(UnusableModel, match=r"max_context is 1000000; other takes 24 tokens"):
            await group.change(first, (*first, another(folder, max_context=1000000)))
        assert names(group) == ["tiny"]
