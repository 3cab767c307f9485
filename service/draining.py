"""How long a stop may take: one setting, and the waits around the process that follow from it.

`drain_timeout_s` is how long requests may go on once they have been told to end: their model was
swapped, or the service stops. Whoever stops the process has to wait longer than it does. The
manifests of `deploy/kubernetes` have these numbers, and a test holds them to this file.
"""

import math
import os

MIN_DRAINING = "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"
"""Ray's own variable: how long a replica that is to end goes on taking requests (30 s without)."""

TOLD_S = 5
"""Kubernetes: until everybody who sends requests has heard that a pod leaves."""

MARGIN_S = 15
"""What a process takes beside its requests: closing models, ending what it started."""


def replica_timeout_s(drain_s: float, told_s: float | None = None) -> int:
    """Ray Serve's `graceful_shutdown_timeout_s`, which counts from when a replica is told to end.

    It takes requests for `told_s` more (`MIN_DRAINING` of the environment, if it isn't given), and
    what comes at the end of that has the whole drain before it.
    """
    told = float(os.environ.get(MIN_DRAINING, "30")) if told_s is None else told_s
    return math.ceil(told + drain_s)


def pod_timeout_s(drain_s: float) -> int:
    """Kubernetes' `terminationGracePeriodSeconds`, of which `preStop` takes the first `TOLD_S`."""
    return replica_timeout_s(drain_s, TOLD_S) + MARGIN_S
