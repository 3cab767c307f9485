"""A rolling update of the service on this machine, as whoever changes Serve's configuration.

    python -m tests.faults.update [NAME=VALUE …]

What replicas are built of changes (`args`), so that Serve replaces each by a new one; these have
the variables that are named.
"""

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from service.ray_environment import ENVIRONMENT
from service.ray_serve import all_run, put_into_effect, serve_controller

WITHIN_S = 100.0


def main(variables: Mapping[str, str]) -> int:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray
    from ray import serve

    ray.init(address="auto", namespace="serve", log_to_driver=False)
    found: Any = ray.get(serve_controller().get_app_configs.remote())
    configs = [config.model_dump(exclude_unset=True) for config in found.values()]
    for config in configs:
        config["args"]["request_timeout_s"] = 600 + (config["args"]["request_timeout_s"] or 0)
        if variables:
            (deployment,) = config["deployments"]
            options = {"num_cpus": 0, "runtime_env": {"env_vars": dict(variables)}}
            deployment["ray_actor_options"] = options
    put_into_effect(configs, None)
    deadline = time.monotonic() + WITHIN_S
    while not updated() and time.monotonic() < deadline:
        time.sleep(0.1)
    print({name: app.status for name, app in serve.status().applications.items()})
    return 0 if all_run() else 1


def updated() -> bool:
    """Whether all groups run, and no replica starts or ends."""
    from ray import serve

    states = [
        set(deployment.replica_states)
        for app in serve.status().applications.values()
        for deployment in app.deployments.values()
    ]
    return all_run() and all(each == {"RUNNING"} for each in states)


if __name__ == "__main__":
    sys.exit(main(dict(argument.split("=", 1) for argument in sys.argv[1:])))
