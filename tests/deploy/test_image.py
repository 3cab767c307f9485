"""The image's steps, run without an image engine: the server's environment, alone, serves."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from export.artifact import Artifact
from loadtests.service_process import serve

pytestmark = pytest.mark.image

ROOT = Path(__file__).resolve().parents[2]
STEPS = ROOT / "deploy" / "image" / "steps.sh"
DOCKERFILE = ROOT / "deploy" / "image" / "Dockerfile"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first stage leaves in /opt/anatomy."""
    prefix = tmp_path_factory.mktemp("image") / "anatomy"
    prefix.mkdir()
    for step in ("server", "bill"):
        run(str(STEPS), step, str(prefix))
    return prefix


def run(*command: str) -> str:
    # pip's own settings (an index, a proxy) are the machine's; what leads to our tree isn't.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def test_the_servers_environment_holds_no_torch(image: Path) -> None:
    held = run(str(image / "venv/bin/python"), "-m", "pip", "list", "--format=json")
    names = {package["name"] for package in json.loads(held)}
    assert {"transformer-anatomy", "ray", "onnxruntime-gpu"} <= names
    assert not names & {"torch", "onnx", "transformers", "safetensors"}


def test_it_serves_what_was_exported_elsewhere(
    image: Path, minilm_artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    program = str(image / "venv/bin/anatomy")
    with serve([str(minilm_artifact.folder), "--plain"], log=tmp_path / "log", program=program):
        pass  # it was ready: its golden outputs were reproduced


def test_the_bill_names_every_package_with_its_licence(image: Path) -> None:
    components = json.loads((image / "sbom.json").read_text())["components"]
    named: Mapping[str, str] = {each["name"]: each["version"] for each in components}
    assert {"ray", "onnxruntime-gpu", "tokenizers"} <= set(named)
    rows = (image / "licences.md").read_text().splitlines()[2:]
    unknown = [row for row in rows if "UNKNOWN" in row]
    assert len(rows) >= len(named) - 3
    assert unknown == []


def test_every_step_of_the_dockerfile_is_one_that_exists() -> None:
    called = {
        line.split("steps.sh", 1)[1].split()[0]
        for line in DOCKERFILE.read_text().splitlines()
        if "deploy/image/steps.sh " in line and not line.startswith("COPY")
    }
    defined = {
        line.removesuffix("() {")
        for line in STEPS.read_text().splitlines()
        if line.endswith("() {")
    }
    assert called == defined - {"install"}


@pytest.mark.parametrize(("extras", "options"), [("", []), ("cuda", ["--cuda"])])
def test_models_are_exported_for_the_device_of_the_image(
    extras: str, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server on a GPU looks for another artifact than one on a CPU, and has no exporter."""
    exporter = tmp_path / "bin" / "anatomy"
    exporter.parent.mkdir()
    exporter.write_text('#!/bin/sh\necho "$@" >>"$ANATOMY_CACHE_FOLDER/asked"\n')
    exporter.chmod(0o755)
    monkeypatch.setenv("ANATOMY_CACHE_FOLDER", str(tmp_path))
    run(str(STEPS), "artifacts", str(tmp_path), extras, "minilm", "hf:org/name")
    asked = [line.split() for line in (tmp_path / "asked").read_text().splitlines()]
    assert asked == [["export", *options, "minilm"], ["export", *options, "hf:org/name"]]


def test_haproxy_is_where_the_image_says(image: Path) -> None:
    for line in DOCKERFILE.read_text().splitlines():
        name, _, path = line.strip().rstrip(" \\").partition("=")
        if name in ("RAY_SERVE_HAPROXY_BINARY_PATH", "HAPROXY_BINARY"):
            there = image / Path(path).relative_to("/opt/anatomy")
            assert os.access(there, os.X_OK), there
