"""A run's folder: its checkpoints, the state to go on from, and how both are written whole.

    run.yaml                the run
    tokenizer/              the vocabulary that it made, if it made one
    checkpoints/step-200/   models in the ecosystem's layout
    best, last              links to two of them; best is the result
    states/step-400/        parameters, moments and figures to go on from: safetensors and JSON
    report.md, curves.png   what came of it

Every folder is made under another name and then renamed; a link is replaced by renaming. So a run
that is killed at any moment leaves a folder to go on from.
"""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import (
    load_file,  # pyright: ignore[reportUnknownVariableType]
    save_file,  # pyright: ignore[reportUnknownVariableType]
)
from torch import Tensor, nn

from model_core.training.errors import TrainingError

RUN_FILE: Final = "run.yaml"
STATE_FORMAT: Final = 1
PARAMETERS_FILE: Final = "parameters.safetensors"
MOMENTS_FILE: Final = "moments.safetensors"
FIGURES_FILE: Final = "figures.json"
BEST: Final = "best"
LAST: Final = "last"


@dataclass(frozen=True, slots=True)
class State:
    """All that a run needs to go on as if it had never stopped.

    Parameters by our names, the optimiser's moments by "moment parameter", and plain `figures`.
    Schedule, data position and random numbers are functions of the step, which is one of these.
    """

    parameters: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    figures: Mapping[str, Any]


class RunFolder:
    """The folder of one run; one process writes into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.states = folder / "states"

    @property
    def run_file(self) -> Path:
        """The whole run, as YAML."""
        return self.folder / RUN_FILE

    def require_fresh(self) -> None:
        """Refuse, before the work, a folder that can't be written or holds a run already."""
        if self.folder.exists() and not self.folder.is_dir():
            raise TrainingError(f"{self.folder} is a file; name a folder for the run")
        if self.newest_state() is not None:
            raise TrainingError(
                f"{self.folder} holds a run already: go on with it (--resume), or name another "
                "folder"
            )
        above = (self.folder, *self.folder.absolute().parents)
        existing = next(folder for folder in above if folder.exists())
        if not os.access(existing, os.W_OK):
            raise TrainingError(f"{existing} can't be written to; name another folder")

    @contextmanager
    def claimed(self) -> Generator[None]:
        """Make the folder if need be, and refuse it while another process writes into it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # On the folder itself, by the kernel: nothing is left of it when a process is killed.
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # Some network file systems lock no folders; a run there is as before.
            with suppress(OSError):
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise TrainingError(
                        f"another process trains in {self.folder}; wait for it, or name another "
                        "folder"
                    ) from error
            yield
        finally:
            os.close(handle)

    def newest_state(self) -> Path | None:
        """The state of the latest step, if there is one."""
        return max(self.states.glob("step-*"), key=step_of, default=None)

    def read_state(self) -> State:
        """The latest state; raises `TrainingError` where there is none, or it is damaged."""
        newest = self.newest_state()
        if newest is None:
            raise TrainingError(
                f"{self.folder} holds no run to go on with: it has no {self.states.name}/"
            )
        try:
            figures = json.loads((newest / FIGURES_FILE).read_text(encoding="utf-8"))
            parameters = load_file(newest / PARAMETERS_FILE)
            moments = load_file(newest / MOMENTS_FILE)
        except (OSError, ValueError, SafetensorError) as error:
            raise TrainingError(f"{newest} is damaged: {error}") from error
        if figures.get("format") != STATE_FORMAT:
            raise TrainingError(
                f"{newest} is of format {figures.get('format')!r}, expected {STATE_FORMAT}"
            )
        return State(parameters, moments, figures)

    def write_state(self, step: int, state: State) -> None:
        """Keep `state`, and let the older ones go."""

        def fill(folder: Path) -> None:
            save_file(dict(state.parameters), folder / PARAMETERS_FILE)
            save_file(dict(state.moments), folder / MOMENTS_FILE)
            figures = {"format": STATE_FORMAT, **state.figures}
            (folder / FIGURES_FILE).write_text(json.dumps(figures) + "\n", encoding="utf-8")

        written = write_folder(self.states / name_of(step), fill)
        remove_besides(self.states, {written})

    def write_checkpoint(self, step: int, fill: Callable[[Path], None]) -> Path:
        """What `fill` writes into a folder, as the checkpoint of `step`, which is the last now."""
        written = write_folder(self.checkpoints / name_of(step), fill)
        self.point(LAST, written)
        return written

    def write_result(self, name: str, fill: Callable[[Path], None]) -> Path:
        """What `fill` writes, as a checkpoint of no one step; it is the best from now on."""
        written = write_folder(self.checkpoints / name, fill)
        self.point(BEST, written)
        return written

    def keep(self, last: int) -> None:
        """Let go of all checkpoints but the best and the `last` ones."""
        by_step = sorted(self.checkpoints.glob("step-*"), key=step_of)
        named = {self.path(name) for name in (BEST, LAST)}
        remove_besides(self.checkpoints, {*by_step[-last:], *named})

    def last_checkpoints(self, count: int) -> list[Path]:
        """The last checkpoints that are kept, up to `count`, in the order of their steps."""
        return sorted(self.checkpoints.glob("step-*"), key=step_of)[-count:]

    def point(self, name: str, checkpoint: Path) -> None:
        """Let `name` (best, last) stand for a checkpoint from now on."""
        fresh = self.folder / f".{name}"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(checkpoint.relative_to(self.folder), target_is_directory=True)
        fresh.replace(self.folder / name)

    def path(self, name: str) -> Path | None:
        """The checkpoint that `name` stands for."""
        link = self.folder / name
        return self.folder / link.readlink() if link.is_symlink() else None


def name_of(step: int) -> str:
    """The folder of a step."""
    return f"step-{step}"


def step_of(folder: Path) -> int:
    """The step of a folder."""
    digits = folder.name.removeprefix("step-")
    return int(digits) if digits.isdecimal() else -1


def write_folder(target: Path, fill: Callable[[Path], None]) -> Path:
    """`target`, with what `fill` wrote into it: whole or not there at all.

    One that is there already, of the same step before a crash, gives way.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as room:
        fresh, old = Path(room) / "fresh", Path(room) / "old"
        fresh.mkdir()
        try:
            fill(fresh)
            for file in fresh.rglob("*"):
                sync(file)
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"{target} can't be written: {error}") from error
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    return target


def sync(file: Path) -> None:
    """Have a file's bytes on the disk before a rename makes them count."""
    if file.is_file():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


def remove_besides(folder: Path, kept: set[Path | None] | set[Path]) -> None:
    """Remove the folders of steps that aren't `kept`."""
    for found in folder.glob("step-*"):
        if found not in kept:
            shutil.rmtree(found)


# --- parameters and moments -----------------------------------------------------------------------


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter that is trained, once, by our names."""
    return {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """The values of what is trained, on the CPU."""
    return {
        name: parameter.detach().cpu().clone().contiguous()
        for name, parameter in trained_parameters(model).items()
    }


@torch.no_grad()
def restore_parameters(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Give a model back its parameters; raises `TrainingError` where they are another model's."""
    own = trained_parameters(model)
    strange = sorted(own.keys() ^ values.keys())
    misshaped = [
        name for name in own.keys() & values.keys() if own[name].shape != values[name].shape
    ]
    if strange or misshaped:
        raise TrainingError(
            "the state is another model's: " + ", ".join([*strange[:5], *misshaped[:5]])
        )
    for name, parameter in own.items():
        parameter.copy_(values[name])


def moments_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimiser keeps of each parameter, by "moment parameter"."""
    return {
        f"{kind} {name}": value.detach().cpu().clone().contiguous()
        for name, parameter in trained_parameters(model).items()
        for kind, value in cast("Mapping[str, Tensor]", optimizer.state.get(parameter, {})).items()
    }


def restore_moments(
    model: nn.Module, optimizer: torch.optim.Optimizer, values: Mapping[str, Tensor]
) -> None:
    """Give an optimiser back what it kept."""
    parameters = trained_parameters(model)
    for key, value in values.items():
        kind, _, name = key.partition(" ")
        parameter = parameters[name]
        optimizer.state[parameter][kind] = value.to(parameter.device)
