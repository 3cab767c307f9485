"""Faults that need a service of their own: it doesn't come out of them, or is started for them."""

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
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
JUMPS_S = (3600, -3600)


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


def test_the_time_of_day_may_jump(
    minilm_artifact: Artifact, smollm2_artifact: Artifact, tmp_path: Path
) -> None:
    if not FAKETIME:
        pytest.skip("faketime isn't installed (make setup-tools)")
    offset = tmp_path / "offset"
    offset.write_text("+0\n")
    settings = {
        "ANATOMY_THREADS": "1",
        "LD_PRELOAD": str(FAKETIME[0]),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    models = [str(artifact.folder) for artifact in (minilm_artifact, smollm2_artifact)]
    with (
        serve(models, log=tmp_path / "log", start_timeout_s=180, settings=settings) as running,
        watched(running, tmp_path, "`anatomy serve` with one replica under faketime") as scene,
        scene.fault(
            "clock-jump", "The time of day jumps an hour on, and then an hour back"
        ) as fault,
    ):
        fault.strike()
        for jump_s in JUMPS_S:
            offset.write_text(f"{jump_s:+d}s\n")
            time.sleep(12)
            said = httpx.get(f"{scene.url}/ready").headers.get("date", "")
            fault.remarks.append(f"At {jump_s:+d} s the service's answers were dated {said}.")
    assert fault.seen.failures == {}
    assert fault.seen.alerts == ()
