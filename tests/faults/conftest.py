"""One service of two replicas behind Ray Serve for the faults here, as a user starts it."""

from collections.abc import Iterator

import pytest

from export.artifact import Artifact
from loadtests.service_process import serve
from service.api.keys import digest_of, new_key
from tests.faults.prometheus import prometheus
from tests.faults.scene import Scene

HEAD_TIMEOUT_S = 3
SLOTS = 4


@pytest.fixture(scope="session")
def admin_key() -> str:
    return new_key()


@pytest.fixture(scope="session")
def scene(
    minilm_artifact: Artifact,
    smollm2_artifact: Artifact,
    admin_key: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Scene]:
    """minilm and smollm2 in two replicas; clients have 3 s for their headers, not 30."""
    folder = tmp_path_factory.mktemp("faults")
    admins = folder / "admins"
    admins.write_text(f"somebody {digest_of(admin_key)}\n")
    models = [str(artifact.folder) for artifact in (minilm_artifact, smollm2_artifact)]
    settings = {
        "ANATOMY_REPLICAS": "2",
        "ANATOMY_THREADS": "1",
        "ANATOMY_SLOTS": str(SLOTS),
        "ANATOMY_ADMIN_KEYS_FILE": str(admins),
        "HAPROXY_HEAD_TIMEOUT": f"{HEAD_TIMEOUT_S}s",
    }
    log = folder / "log"
    with (
        serve(models, log=log, start_timeout_s=180, settings=settings) as running,
        prometheus([f"127.0.0.1:{running.port}"], folder / "prometheus") as watch,
    ):
        yield Scene(
            running, watch, "`anatomy serve`, two replicas of one thread on one node", folder
        )
