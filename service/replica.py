"""One replica of a model group: its application, and its models as they change. Knows no Ray."""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import ASGIApp

from service.app import create_app
from service.errors import AnatomyError
from service.groups import Group
from service.living import Control, ModelGroup
from service.logs import log_to_stderr
from service.metrics import Metrics
from service.plain import UnderPrefix
from service.registry import Registry
from service.serve_config import Models, specs_of
from service.settings import ServiceSettings
from service.shared_metrics import shared_folder
from service.tracers import tracer_of

logger = logging.getLogger(__name__)


class Replica:
    """One replica: its application, and its models, which Serve's configuration says."""

    def __init__(
        self, settings: ServiceSettings, group: Group, control: Callable[[ModelGroup], Control]
    ) -> None:
        self._metrics = Metrics(shared_folder())
        log_to_stderr(settings.log_format, settings.log_level, self._metrics.line_lost)
        self._prefix = group.prefix
        self._settings = settings
        self._registry = Registry()
        self._failure: str | None = None
        self.models = ModelGroup(settings, self._registry, self._metrics, group.models)
        self._control = control(self.models)

    def app(self) -> ASGIApp:
        """The application. Its models come with the first configuration, before any request."""
        app = create_app(
            self._registry,
            self._settings,
            self._metrics,
            tracer=tracer_of(self._settings),
            lifespan=self._ending,
            control=self._control,
        )
        return UnderPrefix(app, self._prefix)

    @asynccontextmanager
    async def _ending(self) -> AsyncGenerator[None]:
        """Closes its models after the last request; one that is killed doesn't come here."""
        async with self.models.closing():
            yield
            self._metrics.end()

    async def reconfigure(self, config: Models) -> None:
        """Serve the models of `config`.

        At the start one that can't be loaded ends the replica. Later the replica goes on with what
        it has, and says so: Serve would end a replica that raises, and each one after it.
        """
        self._registry.elsewhere = config.elsewhere.get
        try:
            await self.models.apply(config.models)
        except (AnatomyError, ValueError) as error:
            if not self._registry.ready:
                raise
            self._failure = str(error)
            logger.exception("the configuration can't be put into effect; the models stay")
        else:
            self._failure = None

    async def stage(self, base: list[Any], wanted: list[Any], change: str) -> dict[str, Any]:
        """Load what is new beside what is served; what went wrong is said, not raised, because
        Ray would wrap it."""
        try:
            names = await self.models.stage(specs_of(base), specs_of(wanted), change)
        except AnatomyError as error:
            return {"error": type(error).__name__, "message": error.message}
        return {"names": names}

    def told(self) -> dict[str, Any]:
        """What this replica says of its models, and what it couldn't put into effect."""
        return {**self.models.told(), **({"failure": self._failure} if self._failure else {})}
