"""A person who stops a run is heard once it can be saved, and at once the second time."""

import io
import signal

import pytest
from rich.console import Console
from rich.progress import Progress

from model_core.training.loop import Measurement, Step
from model_core.training.progress import Bar, Together, smoothed, stoppable


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_to_stop_and_a_second_interrupt_stops_at_once(kind: signal.Signals):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stoppable() as stop:
        assert not stop.wanted
        signal.raise_signal(kind)
        assert stop.wanted
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_the_bar_shows_loss_speed_and_how_far_it_is():
    console = Console(file=io.StringIO(), width=200)
    progress = Progress(console=console)
    bar = Bar(progress, console)
    watch = Together([bar])
    watch.on_step(Step(1, 4.0, 1e-3, 1.0, 1000, 0.5), 10)
    watch.on_step(Step(2, 3.0, 1e-3, 1.0, 1000, 0.5), 10)
    (task,) = progress.tasks
    assert (task.completed, task.total) == (2, 10)
    assert task.description == "loss 3.900 · 2,000 tokens/s"
    watch.on_measurement(Measurement(2, {"macro_f1": 0.5}), is_best=True)
    assert "step 2: macro f1 0.5 (best)" in console.file.getvalue()  # type: ignore[attr-defined]


def test_smoothing_begins_with_the_first_value():
    assert smoothed(None, 5.0) == 5.0
    assert smoothed(5.0, 5.0) == 5.0
