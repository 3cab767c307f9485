"""One service behind Ray Serve for all tests here, on the real weights, as a user starts it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from export.artifact import Artifact
from loadtests.service_process import Running, serve


@pytest.fixture(scope="module")
def ray_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray") / "service.log"


@pytest.fixture(scope="module")
def service(
    minilm_artifact: Artifact, smollm2_artifact: Artifact, ray_log: Path
) -> Iterator[Running]:
    """`anatomy serve` on a free port of the loopback."""
    models = [str(minilm_artifact.folder), str(smollm2_artifact.folder)]
    with serve(models, log=ray_log, start_timeout_s=180) as running:
        yield running


@pytest.fixture
def openai(service: Running) -> Iterator[OpenAI]:
    with OpenAI(api_key="unused", base_url=f"{service.url}/v1", max_retries=0) as client:
        yield client
