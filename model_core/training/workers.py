"""Several processes that train one model, on this machine or on those of a Ray cluster.

Ray Train starts them, connects them and starts them again when one dies; they then go on from the
last state. Nothing else here knows Ray. What they have to say comes through an actor, the desk;
through it they are told to stop. Folders have to be the same for all: on several machines, shared.
"""

import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import torch

from model_core.training.commands import EXPECTED_ERRORS, RECIPES
from model_core.training.crew import Crew
from model_core.training.desk import Desk
from model_core.training.errors import TrainingError
from model_core.training.execution import Surroundings, carry_out
from model_core.training.loop import Measurement, Step, Watch
from model_core.training.progress import TensorBoard, Together, has_tensorboard
from model_core.training.recipes.recipe import Prepared, Recipe
from model_core.training.report import Conclusion
from model_core.training.run_folder import RunFolder
from model_core.training.runs import Run

POLL_S: Final = 0.2
RESTARTS: Final = 3
"""How often the processes are started again after one has died."""

LONGEST_WAIT_S: Final = 6 * 3600
"""How long they wait for the first one, which measures while the others do nothing."""

ENVIRONMENT: Final = {
    # Paths of a run are relative to where its command runs.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class Reporter:
    """A watch that leaves at the desk what it sees."""

    def __init__(self, desk: Any) -> None:
        self.desk = desk

    def say(self, what: str) -> None:
        """What is being done beside the steps."""
        self.desk.post.remote("say", what)

    def on_step(self, step: Step, steps: int) -> None:
        self.desk.post.remote("step", (asdict(step), steps))

    def on_measurement(self, measurement: Measurement, is_best: bool) -> None:
        self.desk.post.remote("measurement", (asdict(measurement), is_best))


def work(order: Mapping[str, Any]) -> None:
    """What each process does: the run, from its beginning or its last state.

    A run that can't be done says so at the desk, and isn't tried again.
    """
    import ray

    library: Any = ray
    context: Any = import_module("ray.train").get_context()
    desk = order["desk"]
    if library.get(desk.failed.remote()):
        return
    os.chdir(order["folder"])
    torch.set_num_threads(order["threads"])
    device = "cuda" if order["gpu"] else "cpu"
    crew = Crew(context.get_world_rank(), context.get_world_size(), device)
    recipe: Recipe = import_module(f"{RECIPES}.{order['recipe']}").RECIPE
    reporter = Reporter(desk)

    def watch(folder: RunFolder, prepared: Prepared) -> Watch:
        if not crew.is_first:
            return Together([])
        desk.post.remote("tables", [table.summary() for table in prepared.tables])
        curves = [TensorBoard(folder.folder / "tensorboard")] if has_tensorboard() else []
        return Together([reporter, *curves])

    def say(what: str) -> None:
        if crew.is_first:
            reporter.say(what)

    output: Path = order["output"]
    # Also where another was killed before: what it saved last.
    resume = order["resume"] or RunFolder(output).newest_state() is not None
    around = Surroundings(
        order["cache"], say, watch, lambda: bool(library.get(desk.is_stopping.remote())), crew
    )
    try:
        outcome = carry_out(recipe, order["run"], output, around, resume=resume)
    except EXPECTED_ERRORS as error:
        library.get(desk.post.remote("error", str(error)))
        raise
    if crew.is_first:
        library.get(desk.post.remote("conclusion", asdict(outcome.conclusion)))


def train_together(
    recipe: str,
    run: Run,
    output: Path,
    around: Surroundings,
    watch: Watch,
    tell: Callable[[Sequence[str]], None],
    workers: int,
    *,
    resume: bool,
) -> Conclusion:
    """Carry out `run` by the recipe in module `recipe`, in so many processes.

    `watch` sees the steps, `tell` is told what was read. Raises `TrainingError` for what goes wrong
    with the run, and where processes die more often than they are started again.
    """
    folder = RunFolder(output)
    if resume:
        folder.read_state()
    else:
        folder.require_fresh()
    room = output.absolute() / ".ray"
    with cluster() as ray:
        desk = ray.remote(num_cpus=0)(Desk).remote()
        gpu = run.training.device != "cpu" and ray.cluster_resources().get("GPU", 0) >= workers
        if not gpu:
            training = run.training.model_copy(update={"device": "cpu"})
            run = run.model_copy(update={"training": training})
        cpus = os.cpu_count() or 1
        order = {
            "recipe": recipe, "run": run, "output": output, "cache": around.cache, "resume": resume,
            "desk": desk, "gpu": gpu, "folder": str(Path.cwd()),
            "threads": max(1, cpus // workers),
        }  # fmt: skip
        trainer = trainer_of(order, workers, gpu, min(1.0, cpus / workers), room)
        failures: list[BaseException] = []

        def fit() -> None:
            try:
                trainer.fit()
            except Exception as error:  # noqa: BLE001 - who waits tells it
                failures.append(error)

        # In a thread: here Ray would take Ctrl-C for itself.
        thread = threading.Thread(target=fit, daemon=True)
        thread.start()
        conclusion = None
        is_over = False
        while not is_over:
            thread.join(POLL_S)
            is_over = not thread.is_alive()
            if around.is_stopping():
                desk.stop.remote()
            for kind, what in ray.get(desk.take.remote()):
                match kind:
                    case "say":
                        around.say(what)
                    case "tables":
                        tell(what)
                    case "step":
                        watch.on_step(Step(**what[0]), what[1])
                    case "measurement":
                        watch.on_measurement(Measurement(**what[0]), what[1])
                    case "conclusion":
                        conclusion = Conclusion(**what)
                    case _:  # an error, which the desk keeps
                        pass
        shutil.rmtree(room, ignore_errors=True)
        if error := ray.get(desk.failed.remote()):
            raise TrainingError(error)
        if failures or conclusion is None:
            why = failures[0] if failures else "nothing was said"
            raise TrainingError(
                f"workers died, also after {RESTARTS} restarts: {why}. What was saved is in "
                f"{output}; go on with --resume"
            )
        return conclusion


def trainer_of(order: Mapping[str, Any], workers: int, gpu: bool, cpus: float, room: Path) -> Any:
    """Ray's trainer of so many processes, each with `cpus`; it keeps its own notes in `room`."""
    train: Any = import_module("ray.train")
    torch_train: Any = import_module("ray.train.torch")
    return torch_train.TorchTrainer(
        work,
        train_loop_config=dict(order),
        scaling_config=train.ScalingConfig(
            num_workers=workers, use_gpu=gpu, resources_per_worker={"CPU": cpus}
        ),
        torch_config=torch_train.TorchConfig(timeout_s=LONGEST_WAIT_S),
        run_config=train.RunConfig(
            name="run",
            storage_path=str(room),
            failure_config=train.FailureConfig(max_failures=RESTARTS),
        ),
    )


@contextmanager
def cluster() -> Generator[Any]:
    """Ray: the cluster that RAY_ADDRESS names, or one of this machine that ends with the block."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray

        import_module("ray.train")
    except ImportError as error:
        raise TrainingError(
            "several workers need Ray Train; pip install 'transformer-anatomy[train]'"
        ) from error
    library: Any = ray
    # Ray would end the process at once.
    kept = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    quiet: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    try:
        if "RAY_ADDRESS" in os.environ:
            library.init(**quiet)
        else:
            library.init(include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
    # Ray raises nothing narrower where a node doesn't start in time.
    except Exception as error:
        raise TrainingError(f"Ray could not be started: {error}") from error
    for kind, handler in kept.items():
        signal.signal(kind, handler)
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    try:
        yield library
    finally:
        with suppress(KeyboardInterrupt):
            library.shutdown()
