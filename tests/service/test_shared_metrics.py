"""Several real processes that count into one folder: how replicas on a machine are seen as one."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.metrics import Metrics
from service.shared_metrics import VARIABLE

ROOT = Path(__file__).parents[2]
# What one replica does: counts as often as it is told to, and answers with the page.
REPLICA = """
import json, sys
from service.metrics import Metrics
from service.shared_metrics import shared_folder
metrics = Metrics(shared_folder())
waiting = [0.0]
metrics.watch_queue("m", lambda: waiting[0])
metrics.loaded("m")
metrics.watch_model("m", "embed", "fp32", "cpu")
for line in sys.stdin:
    if line == "end\\n":
        metrics.end()
        sys.exit()
    asked = json.loads(line)
    waiting[0] = asked["waiting"]
    for _ in range(asked["requests"]):
        metrics.request("/embed", "m", 200, 0.004)
    print(json.dumps(metrics.exposition().decode()), flush=True)
"""


class Replica:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def counts(self, *, requests: int = 0, waiting: float = 0) -> dict[str, float]:
        """Has it count; gives the samples of the page that it then shows."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        asked: dict[str, Any] = {"requests": requests, "waiting": waiting}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        page: str = json.loads(self.process.stdout.readline())
        rows = [line.rpartition(" ") for line in page.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in rows}

    def end(self) -> None:
        """As one that was asked to."""
        assert self.process.stdin is not None
        self.process.stdin.write("end\n")
        self.process.stdin.flush()
        self.process.wait(10)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)


@contextmanager
def replicas(folder: Path, count: int) -> Iterator[Sequence[Replica]]:
    environment = os.environ | {VARIABLE: str(folder), "PYTHONPATH": str(ROOT)}
    with ExitStack() as stack:
        started: list[Replica] = []
        for _ in range(count):
            process = subprocess.Popen(
                [sys.executable, "-c", REPLICA],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            started.append(Replica(process))
        yield started


REQUESTS = 'anatomy_requests_total{model_name="m",route="/embed",status="200"}'
DURATIONS = 'anatomy_request_duration_seconds_%s{%smodel_name="m",route="/embed",status="200"}'
QUEUE = 'te_queue_size{model_name="m"}'
INFO = 'anatomy_model_info{model_name="m",precision="fp32",provider="cpu",task="embed"}'


def test_whichever_replica_is_asked_answers_for_all_and_the_dead_leave_only_what_they_counted(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "shared"
    with replicas(folder, 3) as (first, second, third):
        first.counts(requests=2, waiting=5)
        third.counts()
        second.counts(requests=3, waiting=7)
        for asked, waiting in ((first, 5), (second, 7)):
            seen = asked.counts(waiting=waiting)
            assert seen[REQUESTS] == 5
            assert seen[DURATIONS % ("count", "")] == 5
            assert seen[DURATIONS % ("bucket", 'le="0.005",')] == 5
            assert seen[DURATIONS % ("bucket", 'le="0.003",')] == 0
            assert seen[QUEUE] == 12
            assert seen["anatomy_replicas"] == 3
            assert seen[INFO] == 1

        second.kill()
        seen = third.counts(requests=1)
        assert seen[REQUESTS] == 6
        assert seen[QUEUE] == 5
        assert seen["anatomy_replicas"] == 2

        # Nobody lives whose gauges could be there but the one that comes new.
        first.kill()
        third.kill()
        with replicas(folder, 1) as (fourth,):
            seen = fourth.counts(requests=1)
            assert seen[REQUESTS] == 7
            assert seen[QUEUE] == 0
            assert seen["anatomy_replicas"] == 1


def test_one_that_was_not_asked_to_end_is_counted_once(tmp_path: Path) -> None:
    died = "anatomy_replicas_died_total"
    with replicas(tmp_path / "shared", 4) as (first, second, third, fourth):
        assert all(each.counts()[died] == 0 for each in (first, second, third, fourth))
        first.kill()
        second.end()
        assert [third.counts()[died], fourth.counts()[died], third.counts()[died]] == [1, 1, 1]
        assert third.counts()["anatomy_replicas"] == 2
        third.kill()
        assert fourth.counts()[died] == 2


def test_a_folder_that_is_named_too_late_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=f"{VARIABLE} must name"):
        Metrics(tmp_path)
