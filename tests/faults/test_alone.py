"""A fault that the service doesn't come out of by itself."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from export.artifact import Artifact
from loadtests.service_process import HOST, Running, serve
from tests.faults.load import EMBEDDINGS
from tests.faults.prometheus import prometheus
from tests.faults.scene import Scene
from tests.support.processes import descendants

pytestmark = [pytest.mark.faults, pytest.mark.ray]

ENDS_WITHIN_S = 120.0


@contextmanager
def watched(running: Running, folder: Path, described: str) -> Iterator[Scene]:
    with prometheus([f"{HOST}:{running.port}"], folder / "prometheus") as watch:
        yield Scene(running, watch, described, folder)


def test_requests_are_answered_for_a_while_without_the_control_service(
    minilm_artifact: Artifact, tmp_path: Path
) -> None:
    """Without Redis a new one knows nothing of the old: the service is started again."""
    models = [str(minilm_artifact.folder)]
    with (
        serve(models, log=tmp_path / "log") as running,
        watched(running, tmp_path, "`anatomy serve` with one replica, without Redis") as scene,
        ExitStack() as after,
        scene.fault(
            "gcs-killed",
            "Ray's control service (GCS) is killed",
            alert="AnatomyDown",
            tasks=[EMBEDDINGS],
        ) as fault,
    ):
        assert running.process_id is not None
        family = {running.process_id, *descendants(running.process_id)}
        (control,) = scene.processes("gcs_server")
        fault.strike()
        os.kill(control, signal.SIGKILL)
        ended_s = seconds_until_silence(scene)
        fault.remarks.append(f"Requests were answered for {ended_s:.0f} s more.")
        # What is left is ended, as a pod's container is with its first process.
        for process in family | descendants(running.process_id):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        scene.wait_for(lambda: scene.alerts(fault.struck, "AnatomyDown"), "no alert fired")
        began = time.monotonic()
        after.enter_context(serve(models, log=tmp_path / "again", port=running.port))
        fault.wait_until("a service that was started anew answers", scene.answers)
        fault.remarks.append(f"The new start took {time.monotonic() - began:.0f} s of it.")
    assert ended_s >= 5


def seconds_until_silence(scene: Scene) -> float:
    """How long requests are answered still; at most `ENDS_WITHIN_S`."""
    began = time.monotonic()
    while time.monotonic() - began < ENDS_WITHIN_S:
        try:
            if not scene.answers():
                break
        except httpx.HTTPError:
            break
        time.sleep(0.25)
    return time.monotonic() - began
