"""A service under load with a Prometheus over it, and the faults that are done to it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from loadtests.rows import write_csv
from loadtests.service_process import HOST, Running
from tests.faults.load import EMBEDDINGS, STREAMS, Load, load, said
from tests.faults.prometheus import CLEARED_WITHIN_S, Watch
from tests.faults.seen import Alert, Seen, write
from tests.support.processes import descendants

BEFORE_S, AFTER_S = 4.0, 3.0
WHOLE_WITHIN_S = 120.0
"""Far beyond the goal, which the page tells: what is slow is seen, and no test of speed."""


@dataclass
class Fault:
    """A fault while it is done and watched; `seen` has what came of it, after the block."""

    load: Load
    struck: float = 0.0
    whole_s: float | None = None
    whole: str = ""
    remarks: list[str] = field(default_factory=list[str])
    result: Seen | None = None

    def strike(self) -> None:
        """The fault begins now."""
        self.struck = time.monotonic()

    def wait_until(self, whole: str, is_whole: Callable[[], bool]) -> None:
        """Wait until the service is as it was, which `whole` names; takes the time.

        Raises `AssertionError` if it isn't in time.
        """
        self.whole = whole
        deadline = time.monotonic() + WHOLE_WITHIN_S
        while time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                if is_whole():
                    self.whole_s = time.monotonic() - self.struck
                    return
            time.sleep(0.1)
        raise AssertionError(f"after {WHOLE_WITHIN_S} s it is not so that {whole}")

    @property
    def seen(self) -> Seen:
        assert self.result is not None, "the block has not ended"
        return self.result


@dataclass
class Scene:
    """A service, and the Prometheus that watches it."""

    service: Running
    watch: Watch
    described: str
    rows: Path
    """A folder for the rows of each load."""
    host: str = HOST

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.service.port}"

    @contextmanager
    def fault(
        self,
        name: str,
        fault: str,
        *,
        alert: str | None = None,
        tasks: Sequence[str] = (EMBEDDINGS, STREAMS),
    ) -> Iterator[Fault]:
        """Load before, during and after what the block does; what was seen is written.

        Waits until `alert` has fired and until every alert has gone again.
        """
        self.wait_for_quiet()
        with load(self.service.port, host=self.host, tasks=tasks) as offered:
            done = Fault(offered)
            time.sleep(BEFORE_S)
            yield done
            assert done.struck, "the block did nothing"
            if alert is not None:
                self.wait_for(lambda: self.alerts(done.struck, alert), f"{alert} did not fire")
            self.wait_for_quiet()
            time.sleep(AFTER_S)
        if self.alerts(done.struck, "AnatomyDown") and not offered.failures():
            done.remarks.append(
                f"A scrape took up to {self.watch.slowest_scrape_s():.1f} s, where 1 s is given."
            )
        done.result = Seen(
            name=name,
            fault=fault,
            service=self.described,
            clients=offered.outcomes(),
            failures=offered.failures(),
            longest_gap_s=round(offered.longest_gap_s(), 2),
            whole_s=None if done.whole_s is None else round(done.whole_s, 1),
            whole=done.whole,
            alerts=tuple(self.alerts(done.struck)),
            remarks=tuple(done.remarks),
        )
        write(done.result)
        write_csv(offered.rows, self.rows / f"{name}.csv")
        print(f"\n{name}: {said(done.result.clients)} {done.result}")

    def alerts(self, since: float, name: str | None = None) -> list[Alert]:
        """Those that have fired since then, cleared or not."""
        found = list[Alert]()
        for each, times in self.watch.fired.items():
            for at in times:
                if at >= since and name in (None, each):
                    ends = [end for end in self.watch.cleared.get(each, ()) if end > at]
                    cleared = round(ends[0] - since, 1) if ends else None
                    found.append(Alert(each, round(at - since, 1), cleared))
        return found

    def wait_for_quiet(self) -> None:
        """Until no alert fires or is about to."""
        self.wait_for(
            lambda: not self.watch.unquiet, "alerts did not clear", lambda: self.watch.unquiet
        )

    def wait_for(
        self, is_so: Callable[[], object], otherwise: str, more: Callable[[], object] = lambda: ""
    ) -> None:
        deadline = time.monotonic() + CLEARED_WITHIN_S
        while not is_so():
            assert time.monotonic() < deadline, f"{otherwise} {more()}"
            time.sleep(0.1)

    def sample(self, name: str) -> float:
        """The sum of a metric's series, from whichever replica answers."""
        page = httpx.get(f"{self.url}/metrics", timeout=5).raise_for_status().text
        return sum(
            float(line.rpartition(" ")[2])
            for line in page.splitlines()
            if line.split("{")[0].split(" ")[0] == name
        )

    def answers(self) -> bool:
        """Whether an embedding is answered."""
        body = {"model": "minilm", "input": "a"}
        return httpx.post(f"{self.url}/v1/embeddings", json=body, timeout=10).status_code == 200

    def processes(self, named: str) -> set[int]:
        assert self.service.process_id is not None
        return descendants(self.service.process_id, named)
