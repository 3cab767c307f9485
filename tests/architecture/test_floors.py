"""The floors: imports only go down, and the service holds no torch."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "onnx", "onnxscript", "onnx_ir", "transformers", "sentence_transformers")
RAY = "service.ray_serve"


def modules_of(package: str) -> list[str]:
    """Every module of a package, by dotted name."""
    paths = sorted((ROOT / package).rglob("*.py"))
    dotted = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths)
    return [name.removesuffix(".__init__") for name in dotted]


LIGHT = ("export.artifact", "export.catalogue", "export.session", "model_core.tokenization")


@pytest.mark.parametrize(
    ("modules", "banned"),
    [
        (["service.app"], (*HEAVY, "ray")),
        ([name for name in modules_of("service") if name != RAY], (*HEAVY, "ray")),
        ([*LIGHT, "model_core.config"], (*HEAVY, "ray")),
    ],
    ids=["app", "service", "light"],
)
def test_serving_loads_no_torch(modules: list[str], banned: tuple[str, ...]) -> None:
    script = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(*sorted(set({banned!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_imports_only_go_down() -> None:
    pytest.importorskip("importlinter", reason="import-linter comes with the extra `check`")
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [command, "--no-cache"], check=False, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
