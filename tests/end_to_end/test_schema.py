"""The service on its default models keeps to its schema: thousands of requests by schemathesis.

`make fuzz`, or SCHEMA_EXAMPLES=100 for so many of each route beside the edge cases.
"""

import collections
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from loadtests.service_process import Running, serve
from tests.support.schema import of_a_client_that_knows, strict

EXAMPLES = os.environ.get("SCHEMA_EXAMPLES", "")
HOOKS = Path(__file__).parents[1] / "support" / "schema_hooks.py"
LEAST_REQUESTS = 2000
NO_ANSWER = 599

pytestmark = pytest.mark.skipif(not EXAMPLES, reason="takes minutes: `make fuzz` runs it")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`anatomy serve --plain` on the default models."""
    with serve(["--plain"], log=tmp_path_factory.mktemp("plain") / "service.log") as running:
        yield running


def test_thousands_of_requests_get_answers_that_the_schema_tells_of(
    plain: Running, tmp_path: Path
) -> None:
    document = httpx.get(f"{plain.url}/openapi.json").raise_for_status().json()
    told, log = tmp_path / "openapi.json", tmp_path / "requests.ndjson"
    told.write_text(json.dumps(of_a_client_that_knows(strict(document))))
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", str(told)]
    command += ["--url", plain.url, "--max-examples", EXAMPLES, "--seed", "0", "--workers", "2"]
    command += ["--exclude-checks", "positive_data_acceptance", "--continue-on-failure"]
    command += ["--report-ndjson-path", str(log), "--request-timeout", "60"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(HOOKS)},
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout[-20000:])
    statuses = statuses_in(log)
    print(sum(statuses.values()), "requests:", dict(sorted(statuses.items())))
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
    assert sum(statuses.values()) >= LEAST_REQUESTS
    assert not [status for status in statuses if status >= 500]


def statuses_in(log: Path) -> collections.Counter[int]:
    """How often each status was answered, by schemathesis' own log."""
    found: collections.Counter[int] = collections.Counter()
    with log.open() as lines:
        for line in lines:
            recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
            for exchange in recorder.get("interactions", {}).values():
                answer = exchange.get("response")
                found[answer["status_code"] if answer else NO_ANSWER] += 1
    return found
