"""From the name of a model to its artifact: the cached one, or one made by the exporter.

The exporter runs in a process of its own, so that a server never holds torch.
"""

import os
import subprocess
import sys
from pathlib import Path

from export.artifact import MANIFEST, Artifact, Precision
from export.catalogue import find_artifact, find_inspection, recipe
from export.session import Hardware, Provider
from service.settings import ServiceSettings


class ExportFailed(Exception):
    """The exporter ended without an artifact; what it said is on standard error."""


def artifact_at_hand(model: str, settings: ServiceSettings, hardware: Hardware) -> Path | None:
    """The folder of `model`'s artifact; None where it has to be exported."""
    if (Path(model) / MANIFEST).is_file():
        return Path(model)
    precision = Precision(settings.precision) if settings.precision else None
    wanted = recipe(model, precision, cuda=hardware.provider is Provider.CUDA)
    return find_artifact(wanted, settings.cache_folder)


def artifact_of(model: str, settings: ServiceSettings, hardware: Hardware) -> Path:
    """The folder of `model`'s artifact, exported first where it isn't cached.

    `model` is an embedded name, a source, or an artifact's own folder. Raises `ExportFailed`.
    """
    found = artifact_at_hand(model, settings, hardware)
    if found is not None:
        return found
    options = ["--precision", settings.precision] if settings.precision else []
    options += ["--cuda"] if hardware.provider is Provider.CUDA else []
    status = run_exporter(model, settings, *options)
    found = artifact_at_hand(model, settings, hardware)
    if status != 0 or found is None:
        raise ExportFailed(
            f"could not export {model!r}: the exporter ended with status {status}; "
            "what it said is on standard error"
        )
    return found


def inspection_of(artifact: Artifact, settings: ServiceSettings) -> Path:
    """The folder of the graph that shows what is inside an artifact, made first where it isn't
    cached. Raises `ExportFailed`.
    """
    found = find_inspection(artifact, settings.cache_folder)
    if found is not None:
        return found
    status = run_exporter(str(artifact.folder), settings, "--inspection")
    found = find_inspection(artifact, settings.cache_folder)
    if status != 0 or found is None:
        raise ExportFailed(
            f"could not make the inspection graph of {artifact.manifest.name!r}: the exporter "
            f"ended with status {status}; what it said is on standard error"
        )
    return found


def run_exporter(model: str, settings: ServiceSettings, *options: str) -> int:
    """The status with which the exporter ended."""
    command = [sys.executable, "-m", "export.commands", model]
    command += ["--cache", str(settings.cache_folder), *options]
    # The exporter takes no setting from the environment but those of the command line above.
    environment = {
        name: value for name, value in os.environ.items() if name != "ANATOMY_CACHE_FOLDER"
    }
    return subprocess.run(
        command, stdout=subprocess.DEVNULL, env=environment, check=False
    ).returncode
