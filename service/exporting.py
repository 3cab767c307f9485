"""From the name of a model to its artifact: the cached one, or one made by the exporter.

The exporter runs in a process of its own, so that a server never holds torch.
"""

import os
import re
import subprocess
import sys
from codecs import getincrementaldecoder
from contextlib import suppress
from pathlib import Path
from signal import strsignal
from typing import IO, cast

from export.artifact import MANIFEST, Artifact, Precision
from export.catalogue import fault_of_source, find_artifact, find_inspection, recipe
from export.session import Hardware, Provider
from service.settings import ServiceSettings

TERMINAL_CODES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
"""Colours and movements of the cursor (ECMA-48, control sequences)."""

ERROR = "error: "
"""What the exporter begins the line with that says why it gives up."""

KEPT = 8192
"""How many characters of the end of what the exporter says are looked at."""

STOPPING_S = 1.0
"""How long an exporter may take to clean up after Ctrl-C, in seconds."""


class ExportFailed(Exception):
    """The exporter ended without an artifact; the message has the reason that it gave."""


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
    fault = fault_of_source(model)
    if fault is not None:
        raise ExportFailed(f"could not export {model!r}: {fault}")
    options = ["--precision", settings.precision] if settings.precision else []
    options += ["--cuda"] if hardware.provider is Provider.CUDA else []
    fault = run_exporter(model, settings, *options)
    found = artifact_at_hand(model, settings, hardware)
    if fault is not None or found is None:
        raise ExportFailed(f"could not export {model!r}: {fault or 'no artifact was left'}")
    return found


def inspection_of(artifact: Artifact, settings: ServiceSettings) -> Path:
    """The folder of the graph that shows what is inside an artifact, made first where it isn't
    cached. Raises `ExportFailed`.
    """
    found = find_inspection(artifact, settings.cache_folder)
    if found is not None:
        return found
    fault = run_exporter(str(artifact.folder), settings, "--inspection")
    found = find_inspection(artifact, settings.cache_folder)
    if fault is not None or found is None:
        raise ExportFailed(
            f"could not make the inspection graph of {artifact.manifest.name!r}: "
            f"{fault or 'no artifact was left'}"
        )
    return found


def run_exporter(model: str, settings: ServiceSettings, *options: str) -> str | None:
    """Why the exporter failed; None where it didn't. What it says is on standard error too."""
    command = [sys.executable, "-m", "export.commands", model]
    command += ["--cache", str(settings.cache_folder), *options]
    # The exporter takes no setting from the environment but those of the command line above.
    environment = {
        name: value for name, value in os.environ.items() if name != "ANATOMY_CACHE_FOLDER"
    }
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment | terminal_of(sys.stderr),
    ) as process:
        try:
            said = passed_on(cast("IO[bytes]", process.stderr))
            status = process.wait()
        except KeyboardInterrupt:
            # The exporter had it too, and takes away what it had begun.
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOPPING_S)
            raise
        finally:
            process.kill()
    return None if status == 0 else reason_of(status, said)


def terminal_of(stream: IO[str]) -> dict[str, str]:
    """The variables by which `rich` draws its bars through a pipe as on the terminal behind it."""
    if not stream.isatty():
        return {}
    with suppress(OSError, ValueError):
        size = os.get_terminal_size(stream.fileno())
        if size.columns and size.lines:  # a terminal may not know
            return {"TTY_COMPATIBLE": "1", "COLUMNS": str(size.columns), "LINES": str(size.lines)}
    return {"TTY_COMPATIBLE": "1"}


def passed_on(said: IO[bytes]) -> str:
    """The end of what is read from `said`, which goes on to standard error as it comes."""
    decoder = getincrementaldecoder("utf-8")("replace")
    kept = ""
    while chunk := os.read(said.fileno(), KEPT):
        text = decoder.decode(chunk)
        kept = (kept + text)[-KEPT:]
        # A full disk or a terminal that is gone ends no export.
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()
    return kept


def reason_of(status: int, said: str) -> str:
    """Why an exporter that ended with `status` did so, from what it said: its error, or else its
    last line, with how it ended.
    """
    lines = [line.strip() for line in re.split(r"[\r\n]+", TERMINAL_CODES.sub("", said))]
    errors = [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)]
    if errors:
        return errors[-1]
    ended = f"status {status}" if status >= 0 else f"signal {-status} ({strsignal(-status)})"
    last = next((line for line in reversed(lines) if line), "")
    return f"the exporter ended with {ended}" + (f": {last}" if last else "")
