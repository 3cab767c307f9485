"""A real Prometheus over a service, its rules made faster, and the alerts that fire."""

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from loadtests.service_process import HOST, free_port

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "monitoring" / "rules" / "anatomy.yaml"
FASTER = 30
"""Every duration of the rules is divided by this: five minutes are ten seconds, a minute is two.
A fault that lasts a second here stands for one of half a minute there."""
POLL_S = 0.25
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"(\d+)([smhd])")
CLEARED_WITHIN_S = 90.0
"""After the fault is over; the longest window of a rule that pages is an hour, here two minutes,
but each has a short one beside it."""


def divided(duration: str, by: int = FASTER) -> str:
    """`5m` divided by 30 is `10000ms`."""
    count, unit = DURATION.fullmatch(duration).groups()  # pyright: ignore[reportOptionalMemberAccess]
    return f"{int(count) * UNITS_S[unit] * 1000 // by}ms"


def faster(rules: str) -> str:
    """The same rules, all durations divided: intervals, `for`, and the windows of expressions."""
    parsed = yaml.safe_load(rules)
    for group in parsed["groups"]:
        group["interval"] = divided(group.get("interval", "15s"))
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = divided(rule["for"])
            rule["expr"] = re.sub(
                r"\[(\w+)\]", lambda window: f"[{divided(window[1])}]", rule["expr"]
            )
    return yaml.safe_dump(parsed)


@dataclass
class Watch:
    """The alerts of a Prometheus as they came and went; times are on `time.monotonic`."""

    url: str
    fired: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """When each began to fire, the newest last."""
    cleared: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    unquiet: set[str] = field(default_factory=set[str])
    """Those that fire now, or are about to."""
    _over: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        """Until told to end."""
        now_firing: set[str] = set()
        with httpx.Client(timeout=5) as client:
            while not self._over.wait(POLL_S):
                with suppress(httpx.HTTPError):
                    answer = client.get(f"{self.url}/api/v1/alerts").raise_for_status()
                    found = alerts_in(answer.json(), {"firing"})
                    self.unquiet = alerts_in(answer.json(), {"firing", "pending"})
                    at = time.monotonic()
                    for name in found - now_firing:
                        self.fired.setdefault(name, []).append(at)
                    for name in now_firing - found:
                        self.cleared.setdefault(name, []).append(at)
                    now_firing = found

    def slowest_scrape_s(self) -> float:
        """Of the last two minutes."""
        query = {"query": "max(max_over_time(scrape_duration_seconds[2m]))"}
        answer = httpx.get(f"{self.url}/api/v1/query", params=query).raise_for_status()
        return float(answer.json()["data"]["result"][0]["value"][1])

    def end(self) -> None:
        self._over.set()


def alerts_in(answer: Mapping[str, Any], states: Set[str]) -> set[str]:
    """Names of the alerts that are in one of `states`, of an answer of `/api/v1/alerts`."""
    return {
        alert["labels"]["alertname"]
        for alert in answer["data"]["alerts"]
        if alert["state"] in states
    }


@contextmanager
def prometheus(targets: Sequence[str], folder: Path) -> Iterator[Watch]:
    """Debian's Prometheus over `targets`, until the block ends; skips where there is none."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus isn't installed (make setup-tools)")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rules.yaml").write_text(faster(RULES.read_text()))
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "500ms"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "anatomy", "static_configs": [{"targets": list(targets)}]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    address = f"{HOST}:{free_port()}"
    command = [
        program,
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'series'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    watch = Watch(f"http://{address}")
    looking = threading.Thread(target=watch.look, name="alerts")
    try:
        wait_for_scrapes(watch.url, process, folder / "log")
        looking.start()
        yield watch
    finally:
        watch.end()
        if looking.is_alive():
            looking.join()
        process.terminate()
        process.wait(20)


def wait_for_scrapes(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until every target was scraped well, once."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with suppress(httpx.HTTPError):  # it says 503 until it has started
            answer = httpx.get(f"{url}/api/v1/targets").raise_for_status()
            found = answer.json()["data"]["activeTargets"]
            if found and all(target["health"] == "up" for target in found):
                return
        time.sleep(0.2)
    raise AssertionError(f"Prometheus has scraped nothing in 30 s: {log.read_text()}")
