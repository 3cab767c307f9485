"""The models of one replica while it lives: loaded, unloaded and swapped without a failed request.

What is wanted is a list of models, never a step: whoever brings the list, a replica that has run
for days and one that starts now come to the same. A change has two halves. `stage` loads what is
new beside what is served, and refuses what can't be; `apply` puts the list into effect at once.
Models that are gone from it close when the requests that may hold them have ended.
"""

import asyncio
import ctypes
import gc
import logging
import uuid
from collections.abc import AsyncGenerator, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from export.session import find_hardware
from service.errors import Conflict, UnusableModel
from service.loading import Loaded, load
from service.metrics import Metrics
from service.registry import Registry
from service.settings import ServiceSettings
from service.specs import ModelSpec, Wanted

STAGED_S = 300.0
"""How long models that were staged are kept for a change that nobody completes, in seconds."""

logger = logging.getLogger(__name__)


class Control(Protocol):
    """What changes the models of a group: of this process, or of every replica."""

    @property
    def wanted(self) -> Wanted:
        """The models as they were last put into effect, in their order."""
        ...

    def names(self) -> Mapping[ModelSpec, Sequence[str]]:
        """The names that each model is served under, its own first."""
        ...

    async def change(self, base: Wanted, wanted: Wanted, *, keep: bool = False) -> None:
        """Serve `wanted` in the place of `base`; returns when every replica does.

        Raises `UnusableModel`, and `Conflict` where another change came first, or where with `keep`
        a name would vanish or have another task; then what was served is served still.
        """
        ...

    async def replicas(self) -> list[dict[str, Any]]:
        """What each replica says of its models (`ModelGroup.told`)."""
        ...


class ModelGroup:
    """The models of one replica: `registry` has those that are served.

    Used on one event loop, but for `load` and `close`, which block.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        registry: Registry,
        metrics: Metrics,
        models: Sequence[ModelSpec] | None = None,
    ) -> None:
        self.settings = settings
        self.registry = registry
        self.metrics = metrics
        self._first = (
            tuple(ModelSpec(source=model) for model in settings.models)
            if models is None
            else tuple(models)
        )
        self._hardware = find_hardware()
        self._live: dict[ModelSpec, Loaded] = {}
        self._staged: dict[ModelSpec, Loaded] = {}
        self._change: str | None = None
        self._applying = asyncio.Lock()
        self._expiry: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining: list[str] = []

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Loads before the first request, closes after the last."""
        async with self.closing():
            await asyncio.to_thread(self.load)
            yield

    @asynccontextmanager
    async def closing(self) -> AsyncGenerator[None]:
        """Closes after the last request, and leaves loading to `apply`."""
        try:
            yield
        finally:
            if self._expiry is not None:
                self._expiry.cancel()
            await asyncio.to_thread(self.close)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def load(self) -> None:
        """Load all that is wanted at first, and only then be ready.

        Raises `ArtifactError`, `ExportFailed`, or `ValueError` for a name that is taken twice.
        """
        for spec in self._first:
            self._live[spec] = self._load(spec)
        self._switch(self._live)
        settle_memory()
        self.registry.ready = True

    def close(self) -> None:
        """Refuse new work, end what waits, stop the engines' threads."""
        self.registry.ready = False
        for loaded in (*self._live.values(), *self._staged.values()):
            loaded.close()
        self._staged.clear()

    # What a change asks of a replica ---------------------------------------------------------

    @property
    def wanted(self) -> Wanted:
        """The models that are served, in their order."""
        return tuple(self._live)

    def names(self) -> Mapping[ModelSpec, Sequence[str]]:
        """The names that each model is served under."""
        return {spec: names_of(loaded) for spec, loaded in self._live.items()}

    @property
    def at_hand(self) -> int:
        """Texts that wait for a batch, and generations that run or wait."""
        return sum(loaded.at_hand() for loaded in self._live.values())

    async def stage(
        self, base: Wanted, wanted: Wanted, change: str, *, keep: bool = False
    ) -> list[str]:
        """Load what is new in `wanted` beside what is served, for `change` to be applied or
        discarded; gives the names that will be served. May be asked again for the same change.

        Raises `Conflict` if `base` isn't what is served, another change is under way, two models
        have one name, or with `keep` a name would vanish or have another task; `UnusableModel` for
        a model that can't be loaded or doesn't reproduce its golden outputs. Then nothing is
        staged.
        """
        if self._change not in (None, change):
            raise Conflict("another change of the models is under way; try again after it")
        if base != self.wanted:
            raise Conflict("the models have changed meanwhile; look at them and try again")
        self._change = change
        try:
            for spec in wanted:
                if spec not in self._live and spec not in self._staged:
                    loaded = await self._load_beside(spec)
                    if self._change != change:
                        await asyncio.to_thread(loaded.close)
                        raise Conflict("the change was given up while its models were loaded")
                    self._staged[spec] = loaded
            names = [name for spec in wanted for name in names_of(self._found(spec))]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise Conflict(
                    f"two models would be called {', '.join(twice)}; give one a name of its own"
                )
            if keep:
                require_kept(self._live.values(), [self._found(spec) for spec in wanted])
        except BaseException:
            await self.discard(change)
            raise
        if self._expiry is None:
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(STAGED_S, lambda: self._start(self.discard(change)))
        return names

    async def discard(self, change: str) -> None:
        """Close what was staged for `change`, if it still is."""
        if self._change == change:
            await self._end_staging()

    async def apply(self, wanted: Wanted) -> None:
        """Serve `wanted` and nothing else from now on; what isn't staged is loaded first.

        Raises `UnusableModel`, or `ValueError` for a name that is taken twice, and then changes
        nothing.
        """
        async with self._applying:
            live: dict[ModelSpec, Loaded] = {}
            try:
                for spec in wanted:
                    if spec not in self._live and spec not in self._staged:
                        self._staged[spec] = await self._load_beside(spec)
                    live[spec] = self._found(spec)
                gone = [loaded for spec, loaded in self._live.items() if spec not in live]
                self._switch(live)
            except BaseException:
                await self._end_staging()
                raise
            self._live = live
            self._staged = {spec: it for spec, it in self._staged.items() if spec not in live}
            if gone:
                self._draining += [loaded.name for loaded in gone]
                self._start(self._retire(gone))
            if not self.registry.ready:
                settle_memory()
                self.registry.ready = True
            await self._end_staging()

    def told(self) -> dict[str, Any]:
        """The state of this replica's models, as JSON."""
        return {
            "models": [
                {
                    "asked": told_of(spec),
                    "name": loaded.name,
                    "serves": names_of(loaded),
                    "at_hand": loaded.at_hand(),
                }
                for spec, loaded in self._live.items()
            ],
            "loading": sorted(self.registry.loading),
            "draining": list(self._draining),
        }

    # Control, of this process alone ----------------------------------------------------------

    async def change(self, base: Wanted, wanted: Wanted, *, keep: bool = False) -> None:
        """Serve `wanted` in the place of `base`. Raises `UnusableModel`, `Conflict`."""
        change = uuid.uuid4().hex
        await self.stage(base, wanted, change, keep=keep)
        await self.apply(wanted)

    async def replicas(self) -> list[dict[str, Any]]:
        """What this process says of its models: it is the only one."""
        return [self.told()]

    # -----------------------------------------------------------------------------------------

    def _load(self, spec: ModelSpec) -> Loaded:
        return load(spec, self.settings, self.metrics, self._hardware)

    def _found(self, spec: ModelSpec) -> Loaded:
        return self._live.get(spec) or self._staged[spec]

    async def _load_beside(self, spec: ModelSpec) -> Loaded:
        """Load while others are served. Raises `UnusableModel`."""
        self.registry.loading |= {spec.label}
        loading = asyncio.create_task(asyncio.to_thread(self._load, spec))
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            # The thread goes on; what it makes is nobody's.
            loading.add_done_callback(close_result)
            raise
        except Exception as error:
            logger.warning("model %s can't be loaded: %s", spec.label, error)
            raise UnusableModel(
                f"model {spec.label!r} can't be served: {error}", field="source"
            ) from error
        finally:
            self.registry.loading -= {spec.label}

    def _switch(self, live: Mapping[ModelSpec, Loaded]) -> None:
        self.registry.serve(
            [model for loaded in live.values() for model in loaded.served],
            [model for loaded in live.values() for model in loaded.inspected],
        )
        for loaded in live.values():
            loaded.watch()

    async def _end_staging(self) -> None:
        staged, self._staged, self._change = self._staged, {}, None
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        for loaded in staged.values():
            await asyncio.to_thread(loaded.close)

    async def _retire(self, gone: Sequence[Loaded]) -> None:
        """Close models that are served no more, after the last request that may hold one."""
        labels = [loaded.name for loaded in gone]
        limit = self.settings.drain_timeout_s
        try:
            if not await self.registry.in_flight.drained(limit):
                logger.warning(
                    "%s: requests still ran after %g s; they end now", ", ".join(labels), limit
                )
        finally:
            for loaded in gone:
                await asyncio.to_thread(loaded.close)
        served = {name for loaded in self._live.values() for name in names_of(loaded)}
        for loaded in gone:
            for name in names_of(loaded):
                if name not in served:
                    self.metrics.forget(name)
            loaded.forget()
            self._draining.remove(loaded.name)
        await asyncio.to_thread(return_memory)
        logger.info("%s: served no more", ", ".join(labels))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def names_of(loaded: Loaded) -> list[str]:
    """What a model is served as, its own name first."""
    names = [model.card.name for model in loaded.served]
    return sorted(names, key=lambda name: name != loaded.name)


def require_kept(served: Iterable[Loaded], wanted: Iterable[Loaded]) -> None:
    """Raises `Conflict` for a name of `served` that `wanted` lack, or has for another task."""
    tasks = {model.card.name: model.card.task for it in wanted for model in it.served}
    lost = [
        f"{card.name} ({card.task.value}"
        + (f"; it would be {tasks[card.name].value})" if card.name in tasks else ")")
        for card in (model.card for it in served for model in it.served)
        if tasks.get(card.name) is not card.task
    ]
    if lost:
        raise Conflict(
            f"no longer served would be: {', '.join(lost)}; if that is meant, send "
            '"allow_loss": true (`anatomy swap --allow-loss`)',
            field="source",
        )


def told_of(spec: ModelSpec) -> dict[str, Any]:
    """A model as it was asked for, as JSON."""
    return spec.model_dump(mode="json", exclude_none=True)


def close_result(loading: asyncio.Task[Loaded]) -> None:
    """End the engines that a task made for nobody."""
    if not loading.cancelled() and loading.exception() is None:
        loading.get_loop().run_in_executor(None, loading.result().close)


def settle_memory() -> None:
    """What has been loaded stays: the collector need not walk through it again."""
    gc.collect()
    gc.freeze()
    return_memory()


def return_memory() -> None:
    """Give the operating system what is free of the heap, which glibc keeps otherwise: after a few
    swaps that would be more than the models take. Other C libraries have no such call, nor need it.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
