"""Real weights and what is exported of them: fetched and made once, kept between runs.

They live in `.cache/tests` of the repository, or where TESTS_CACHE says.
"""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG  # where httpx's own functions look it up

from export.artifact import Artifact, Precision
from export.catalogue import EMBEDDED, find_artifact, recipe
from export.pipeline import export
from model_core.checkpoints.errors import SourceUnreachable
from model_core.checkpoints.sources import Located, locate
from tests.support.reports import silent

if TYPE_CHECKING:
    from tests.support.families.exported import Exports

ROOT = Path(__file__).parents[1]

# Not as long as httpx waits by itself: no test is about that, and a busy machine takes longer.
DEFAULT_TIMEOUT_CONFIG.connect = DEFAULT_TIMEOUT_CONFIG.read = 60.0

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As it is for what a shell starts in the background: whatever tests start would inherit that,
    # and go on where it is told to end by Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def model_cache() -> Path:
    """The folder of wheels and artifacts that outlives a run."""
    return Path(os.environ.get("TESTS_CACHE", ROOT / ".cache" / "tests"))


def located_or_skip(model: str, model_cache: Path) -> Located:
    """The files of an embedded model; skips, with the reason, where no network leads to them.

    Anything else that is wrong with them, a digest or a damaged copy, fails.
    """
    try:
        return locate(EMBEDDED[model].source, cache=model_cache)
    except SourceUnreachable as error:
        pytest.skip(f"{model} can't be fetched: {error}")


def exported(model: str, precision: Precision | None, model_cache: Path) -> Artifact:
    """The artifact of an embedded model, from the cache or made now."""
    wanted = recipe(model, precision)
    folder = find_artifact(wanted, model_cache)
    if folder is None:
        located_or_skip(model, model_cache)
        folder = export(wanted, model_cache, silent)
    return Artifact.open(folder)


@pytest.fixture(scope="session")
def family_exports(tmp_path_factory: pytest.TempPathFactory) -> "Exports":
    """What cases of the family tree are exported to, made once for all."""
    # Here, because most tests need none of the references that it brings along.
    from tests.support.families.exported import Exports

    return Exports(tmp_path_factory.mktemp("families"))


@pytest.fixture(scope="session")
def minilm_files(model_cache: Path) -> Mapping[str, Path]:
    """all-MiniLM-L6-v2 as its authors published it."""
    return located_or_skip("minilm", model_cache).files


@pytest.fixture(scope="session")
def smollm2_gguf(model_cache: Path) -> Path:
    """SmolLM2-135M-Instruct, quantised to Q4_1."""
    path = located_or_skip("smollm2", model_cache).gguf
    assert path is not None
    return path


@pytest.fixture(scope="session")
def minilm_artifact(model_cache: Path) -> Artifact:
    """fp32, the default."""
    return exported("minilm", Precision.FP32, model_cache)


@pytest.fixture(scope="session")
def minilm_int8_artifact(model_cache: Path) -> Artifact:
    return exported("minilm", Precision.INT8, model_cache)


@pytest.fixture(scope="session")
def smollm2_artifact(model_cache: Path) -> Artifact:
    """int8, the default on a CPU."""
    return exported("smollm2", Precision.INT8, model_cache)


@pytest.fixture(scope="session")
def smollm2_fp32_artifact(model_cache: Path) -> Artifact:
    return exported("smollm2", Precision.FP32, model_cache)


@pytest.fixture(scope="session")
def g2p_artifact(model_cache: Path) -> Artifact:
    """fp32."""
    return exported("g2p", Precision.FP32, model_cache)


@pytest.fixture(scope="session")
def int8_g2p_artifact(model_cache: Path) -> Artifact:
    """What a CPU is given."""
    return exported("g2p", Precision.INT8, model_cache)
