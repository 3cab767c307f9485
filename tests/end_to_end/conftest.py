"""One service behind Ray Serve for all tests here, on the real weights, as a user starts it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from export.artifact import Artifact
from loadtests.service_process import Running, serve
from model_core.checkpoints.load import Loaded
from tests.support.families import CASES
from tests.support.families.exported import export_case


@pytest.fixture(scope="module")
def ray_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray") / "service.log"


@pytest.fixture(scope="module")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Loaded]:
    """An encoder-decoder with random weights: its artifact, and itself in PyTorch."""
    (case,) = (case for case in CASES if case.name == "T5 v1.1")
    return export_case(case, tmp_path_factory.mktemp("t5"), name="t5")


@pytest.fixture(scope="module")
def service(
    minilm_artifact: Artifact,
    smollm2_artifact: Artifact,
    tiny_t5: tuple[Artifact, Loaded],
    ray_log: Path,
) -> Iterator[Running]:
    """`anatomy serve` on a free port of the loopback: a model of each kind."""
    artifacts = (minilm_artifact, smollm2_artifact, tiny_t5[0])
    models = [str(artifact.folder) for artifact in artifacts]
    with serve(models, log=ray_log, start_timeout_s=180) as running:
        yield running


@pytest.fixture
def openai(service: Running) -> Iterator[OpenAI]:
    with OpenAI(api_key="unused", base_url=f"{service.url}/v1", max_retries=0) as client:
        yield client
