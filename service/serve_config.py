"""What Serve's configuration says of a model group. Knows nothing of Ray.

Serve keeps two things of a group: `args`, of which a replica is built, and `user_config`, which
may change while it runs and which every replica follows, those that start later too. The models
are in the second. Light: whoever only configures loads no engine.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from service.groups import Group
from service.settings import ServiceSettings
from service.specs import ModelSpec, Part, Wanted

IMPORT_PATH = "service.ray_serve:build"
DEPLOYMENT = "ModelGroup"


class Models(Part):
    """What `user_config` has: the models of a group, and the prefixes of what others serve."""

    models: tuple[ModelSpec, ...]
    elsewhere: dict[str, str] = Field(default_factory=dict[str, str])

    def as_config(self) -> dict[str, Any]:
        """As JSON."""
        return self.model_dump(mode="json", exclude_none=True)


def as_json(wanted: Wanted) -> list[Any]:
    """Models as Serve's configuration has them."""
    return Models(models=wanted).as_config()["models"]


def specs_of(models: Sequence[Any]) -> Wanted:
    """The other way."""
    return Models.model_validate({"models": models}).models


def specs_of_told(told: Mapping[str, Any]) -> Wanted:
    """The models of what a replica tells."""
    return specs_of([model["asked"] for model in told["models"]])


def arguments(args: Mapping[str, Any]) -> tuple[ServiceSettings, Group]:
    """The settings and the group that `args` of an application stand for."""
    rest = dict(args)
    group = rest.pop("group", None)
    settings = ServiceSettings(**rest)
    return settings, Group.of(settings) if group is None else Group.model_validate(group)


def scale_of(group: Group) -> dict[str, Any]:
    """How many replicas there are of a group and what each reserves, as Serve's options."""
    # Accounting only: on two cores, a replica that asked for one would wait for Ray's own.
    options: dict[str, Any] = {"ray_actor_options": group.resources.model_dump()}
    scaling = group.autoscaling
    if scaling is None:
        return {**options, "num_replicas": group.replicas}
    policy = {
        "policy_function": "service.scaling:QueuePolicy",
        "policy_kwargs": {"target_queue": scaling.target_queue},
    }
    return {
        **options,
        "autoscaling_config": {
            "min_replicas": scaling.min,
            "max_replicas": scaling.max,
            "upscale_delay_s": scaling.upscale_delay_s,
            "downscale_delay_s": scaling.downscale_delay_s,
            "look_back_period_s": scaling.look_back_s,
            "policy": policy,
        },
    }


def application(
    settings: ServiceSettings, group: Group, elsewhere: Mapping[str, str]
) -> dict[str, Any]:
    """A group as Serve's configuration has it; `elsewhere` has the prefixes of others' models."""
    return {
        "name": group.name,
        "route_prefix": group.prefix,
        "import_path": IMPORT_PATH,
        "args": {
            **settings.model_dump(mode="json"),
            "group": group.model_dump(mode="json", exclude_unset=True),
        },
        "deployments": [
            {
                "name": DEPLOYMENT,
                "user_config": Models(models=group.models, elsewhere=dict(elsewhere)).as_config(),
            }
        ],
    }


def changed_configs(
    configs: Mapping[str, Mapping[str, Any]], app: str, wanted: Wanted, names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The applications' configurations with the models of `app` in `user_config`.

    In those of other groups the names that were said to be under its prefix are `names` now.
    """
    prefix = configs[app].get("route_prefix", "/")
    changed: dict[str, dict[str, Any]] = {}
    for name, config in configs.items():
        changed[name] = copy.deepcopy(dict(config))
        if config.get("import_path") != IMPORT_PATH:
            continue
        mine = deployment_of(changed[name])
        now = Models.model_validate(
            mine.get("user_config") or {"models": arguments(config.get("args", {}))[1].models}
        )
        if name == app:
            now = now.model_copy(update={"models": wanted})
        else:
            others = {n: p for n, p in now.elsewhere.items() if p != prefix}
            now = now.model_copy(update={"elsewhere": others | dict.fromkeys(names, prefix)})
        mine["user_config"] = now.as_config()
    return changed


def deployment_of(config: dict[str, Any]) -> dict[str, Any]:
    """What an application's configuration says of its deployment, added if it says nothing."""
    deployments: list[dict[str, Any]] = config.setdefault("deployments", [])
    for deployment in deployments:
        if deployment["name"] == DEPLOYMENT:
            return deployment
    deployments.append({"name": DEPLOYMENT})
    return deployments[-1]
