"""The Kubernetes manifests as they would be applied: rendered where kubectl is found."""

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"


@functools.cache
def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def read_documents(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(text) if document is not None]


def render(folder: Path) -> list[dict[str, Any]]:
    """The objects of a kustomization, as they would be applied."""
    renderers = {"kubectl": ["kubectl", "kustomize"], "kustomize": ["kustomize", "build"]}
    for program, command in renderers.items():
        if shutil.which(program):
            return read_documents(run(*command, str(folder)))
    pytest.skip("neither kubectl nor kustomize is on PATH to render the overlays")
