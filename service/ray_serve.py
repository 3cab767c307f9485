"""The service behind Ray Serve: the only file that knows Ray.

One deployment, `ModelGroup`: a replica holds the application and all models of the group, so that
a request makes no hop between deployments. HAProxy stands in front (28 times the throughput of
Ray's Python proxy on an empty application).
"""

# Ray's annotations are partial; what they leave open stays inside this file.
# pyright: reportUnknownMemberType=false, reportUntypedClassDecorator=false
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false

import asyncio
import logging
import os
import re
import shutil
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.exchange import BEFORE_KEY
from service.draining import replica_timeout_s
from service.errors import Conflict, UnusableModel
from service.groups import Group
from service.ray_environment import ENVIRONMENT, proxy_environment
from service.scaling import QUEUE
from service.serve_config import (
    DEPLOYMENT,
    Models,
    application,
    arguments,
    as_json,
    changed_configs,
    scale_of,
    specs_of_told,
)
from service.settings import ServiceSettings
from service.specs import ModelSpec, Wanted

# What holds models and counts is imported in a replica alone, once it is said where to count.
if TYPE_CHECKING:
    from service.living import ModelGroup as LivingModels

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Read when prometheus_client is imported, in each replica: set before that."""

DRAIN_MARGIN_S = 5.0
"""What Serve takes beside the drain itself, which it ends by then."""

MAX_ONGOING_REQUESTS = 4096
"""Above what the engines admit: they refuse with the reason and a Retry-After, Serve can't."""

SEEN_WITHIN_S = 60.0
"""How long Serve may take to bring a change to every replica, which have loaded it already."""

POLL_S = 0.1

MICROSECONDS = re.compile(rb"t=(\d{1,20})")


def build(args: Mapping[str, Any]) -> Any:
    """The Serve application for `args`: fields of `ServiceSettings`, and under `group` those of a
    `Group`, which without are one group at `/`.

    What `import_path` names in a Serve configuration (`deploy/kubernetes/`). `user_config` has the
    models as they are now.
    """
    from ray import serve

    settings, group = arguments(args)

    @serve.deployment(
        name=DEPLOYMENT,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        user_config=Models(models=group.models).as_config(),
        health_check_period_s=2,
        graceful_shutdown_timeout_s=replica_timeout_s(settings.drain_timeout_s),
        # The application's own log has a line for each request already.
        logging_config={"enable_access_log": False},
        **scale_of(group),
    )
    @serve.ingress()
    class ModelGroup:
        def __init__(self) -> None:
            os.environ.setdefault(METRICS_FOLDER, str(metrics_folder()))
            from service.replica import Replica

            self.replica = Replica(settings, group, EveryReplica)

        def __serve_build_asgi_app__(self) -> ASGIApp:
            return BehindProxy(self.replica.app())

        async def reconfigure(self, config: Mapping[str, Any]) -> None:
            await self.replica.reconfigure(Models.model_validate(config))

        async def stage(self, base: list[Any], wanted: list[Any], change: str) -> dict[str, Any]:
            return await self.replica.stage(base, wanted, change)

        async def discard(self, change: str) -> None:
            await self.replica.models.discard(change)

        async def told(self) -> dict[str, Any]:
            return self.replica.told()

        async def record_autoscaling_stats(self) -> dict[str, float]:
            return {QUEUE: self.replica.models.at_hand}

    return ModelGroup.bind()


class BehindProxy:
    """An application behind Ray Serve and HAProxy.

    Ray puts `x-request-id` on every answer, so that ours, which is the same, is taken off. When
    HAProxy got a request (`x-request-start: t=`, microseconds since 1970) becomes how long it took
    to come here; two machines' clocks may differ, by more than it took even.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)["x-request-id"]
            await send(message)

        for name, value in scope.get("headers", ()):
            if name == b"x-request-start" and (found := MICROSECONDS.fullmatch(value)):
                scope[BEFORE_KEY] = max(0.0, time.time() - int(found[1]) / 1e6)
        await self._app(scope, receive, send_without_id)


def metrics_folder() -> Path:
    """Where the replicas on this machine count together; each start of Ray has a folder of its own.

    Whichever of them is asked for the metrics shows those of all.
    """
    import ray

    session = ray.get_runtime_context().get_session_name()
    return Path(tempfile.gettempdir(), f"anatomy-metrics-{session}")


class EveryReplica:
    """Changes the models of all replicas of the group: each loads what is new, then Serve's
    configuration is changed, which every replica follows, those that start later too.
    """

    def __init__(self, here: "LivingModels") -> None:
        self._here = here

    @property
    def wanted(self) -> Wanted:
        """The models that are served, in their order."""
        return self._here.wanted

    def names(self) -> Mapping[ModelSpec, Sequence[str]]:
        """The names that each model is served under, its own first."""
        return self._here.names()

    async def replicas(self) -> list[dict[str, Any]]:
        """What each replica says of its models."""
        return await self._ask_all("told")

    async def change(self, base: Wanted, wanted: Wanted, *, keep: bool = False) -> None:
        """Serve `wanted` in the place of `base`, everywhere. Raises `UnusableModel`, `Conflict`."""
        change = uuid.uuid4().hex
        try:
            # Here first: what can't be used is refused before anybody else looks at it, and what
            # has to be exported is there for the replicas that have the same disk.
            names = await self._here.stage(base, wanted, change, keep=keep)
            raise_refusal(await self._ask_all("stage", as_json(base), as_json(wanted), change))
            await asyncio.to_thread(deploy, app_name(), wanted, names)
        except BaseException:
            await asyncio.shield(self._let_go(change))
            raise
        await self._seen_everywhere(wanted)

    async def _let_go(self, change: str) -> None:
        """Close what was staged; replicas that can't be asked do so by themselves after a while."""
        await self._here.discard(change)
        with suppress(Conflict):
            await self._ask_all("discard", change)

    async def _seen_everywhere(self, wanted: Wanted) -> None:
        """Wait until every replica serves `wanted`. Raises `Conflict` if one doesn't in time."""
        until = time.monotonic() + SEEN_WITHIN_S
        while time.monotonic() < until:
            told = await self.replicas()
            if all(specs_of_told(one) == wanted for one in told):
                return
            failures = [one["failure"] for one in told if "failure" in one]
            if failures:
                raise Conflict(f"the change is made, but a replica can't follow it: {failures[0]}")
            await asyncio.sleep(POLL_S)
        raise Conflict(
            f"the change is made, but not every replica follows it after {SEEN_WITHIN_S:g} s; "
            "GET /admin/models has what each says"
        )

    async def _ask_all(self, method: str, *args: Any) -> list[Any]:
        """The answer of every replica that runs. Raises `Conflict` where they can't be asked.

        A replica that takes over a configuration can't be asked meanwhile, the list of those that
        can is behind by a moment, and one may die: all are asked again then, so that what is asked
        has to bear it.
        """
        from ray import serve
        from ray.exceptions import RayActorError
        from ray.serve.exceptions import DeploymentUnavailableError

        handle = serve.get_deployment_handle(DEPLOYMENT, app_name())
        until = time.monotonic() + SEEN_WITHIN_S
        while time.monotonic() < until:
            running = await asyncio.to_thread(steady_replicas, app_name())
            if running:
                with suppress(DeploymentUnavailableError, RayActorError):
                    found: list[Any] = await handle.broadcast(method, *args).results_async()
                    if len(found) >= running:
                        return found
            await asyncio.sleep(POLL_S)
        raise Conflict(
            f"the replicas are changing, and can't be asked within {SEEN_WITHIN_S:g} s; try again"
        )


def steady_replicas(app: str) -> int:
    """How many replicas of a group run; 0 while one of them takes over a configuration."""
    from ray import serve

    deployment = serve.status().applications[app].deployments[DEPLOYMENT]
    states = cast("Mapping[str, int]", deployment.replica_states)
    return 0 if states.get("UPDATING") else states.get("RUNNING", 0)


def app_name() -> str:
    """The Serve application that this replica belongs to."""
    from ray import serve

    return serve.get_replica_context().app_name


def raise_refusal(staged: Sequence[Mapping[str, Any]]) -> None:
    """Raises what the first replica that refuses says."""
    kinds = {kind.__name__: kind for kind in (Conflict, UnusableModel)}
    for answer in staged:
        if "error" in answer:
            raise kinds.get(answer["error"], UnusableModel)(answer["message"])


def deploy(app: str, wanted: Wanted, names: Sequence[str]) -> None:
    """Change Serve's configuration: `app` serves `wanted`, under `names`, and other groups know.

    Nothing but `user_config` changes, so that no replica is restarted.
    """
    import ray

    controller = serve_controller()
    stored: Any = ray.get(controller.get_app_configs.remote())
    configs = {name: config.model_dump(exclude_unset=True) for name, config in stored.items()}
    details: Any = ray.get(controller.get_serve_instance_details.remote())
    put_into_effect(
        changed_configs(configs, app, wanted, names).values(), details.get("target_capacity")
    )


def put_into_effect(applications: Iterable[Mapping[str, Any]], capacity: float | None) -> None:
    """Give Serve these applications, and take from it any others that it was given this way."""
    import ray
    from ray.serve.schema import ServeDeploySchema

    config = ServeDeploySchema.model_validate(
        {"applications": list(applications), "target_capacity": capacity}
    )
    ray.get(serve_controller().apply_config.remote(config))


def serve_controller() -> Any:
    """The actor that has Serve's configuration. What `serve deploy` reaches by way of a dashboard,
    which isn't everywhere."""
    from ray.serve.context import _get_global_client  # pyright: ignore[reportPrivateUsage]

    client: Any = _get_global_client()
    return client._controller


def all_run() -> bool:
    """Whether every group runs. Raises `UnusableModel` for one that can't."""
    from ray import serve

    applications = serve.status().applications
    for name, found in applications.items():
        if found.status == "DEPLOY_FAILED":
            raise UnusableModel(f"the group {name!r} can't be served: {found.message}")
    return all(found.status == "RUNNING" for found in applications.values())


def all_answer(settings: ServiceSettings, groups: Iterable[Group]) -> bool:
    """Whether every group says that it is ready, asked as clients ask: HAProxy learns of a group a
    moment after it runs."""
    import httpx

    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    with httpx.Client(base_url=f"http://{host}:{settings.port}", trust_env=False) as client:
        try:
            return all(
                client.get(f"{group.prefix.rstrip('/')}/ready").is_success for group in groups
            )
        except httpx.TransportError:
            return False


def run(
    settings: ServiceSettings,
    groups: Sequence[Group],
    prefixes: Mapping[str, str],
    tell_ready: Callable[[], None],
) -> None:
    """Start Ray on this machine, serve, and stop both on Ctrl-C or SIGTERM.

    `prefixes` has the route prefix of each model's group; `tell_ready` is called once, when all
    groups answer. Raises `UnusableModel` when Serve gives a group up.
    """
    for name, value in (ENVIRONMENT | proxy_environment(settings)).items():
        os.environ.setdefault(name, value)
    import ray
    from ray import serve

    stopping = threading.Event()

    def stop(*_: object) -> None:
        # Ray's own handler of SIGTERM, if it was the first, has set an alarm of three seconds that
        # would abort the process.
        signal.alarm(0)
        stopping.set()

    def listen() -> None:
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, stop)

    listen()
    ray.init(
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        logging_level=logging.WARNING,
        log_to_driver=True,
    )
    listen()  # in the place of what Ray has put there
    metrics = metrics_folder()
    try:
        serve.start(http_options={"host": settings.host, "port": settings.port})
        applications = [
            application(
                settings,
                group,
                {name: prefix for name, prefix in prefixes.items() if prefix != group.prefix},
            )
            for group in groups
        ]
        put_into_effect(applications, None)
        while not stopping.wait(POLL_S):
            if all_run() and all_answer(settings, groups):
                tell_ready()
                break
        stopping.wait()
    finally:
        drain(replica_timeout_s(settings.drain_timeout_s))
        serve.shutdown()
        ray.shutdown()
        shutil.rmtree(metrics, ignore_errors=True)


def drain(limit_s: float) -> None:
    """Take every application away, and wait until its replicas have ended what they had begun.

    `serve.shutdown` ends the proxies at once, and with them every answer that is on its way.
    """
    from ray import serve

    deadline = time.monotonic() + limit_s + DRAIN_MARGIN_S
    for name in serve.status().applications:
        serve.delete(name, _blocking=False)
    while serve.status().applications and time.monotonic() < deadline:
        time.sleep(POLL_S)
