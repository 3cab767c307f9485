"""Gathers the rows of a locust run, also from its workers, and judges and reports it at the end."""

import sys
import time
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests.report.page import write_reports
from loadtests.rows import Row
from loadtests.slos import Slos

CONTEXT_KEY = "row"
"""Where a request's context has its row, timed on `time.perf_counter`."""


class Collector:
    """Listens to a run from its start to its end.

    A worker hands its rows to the master with every report. Whoever isn't one writes the reports
    once the users have stopped, and again if rows came after that, and sets the exit code: 1 for
    a run that broke a threshold.
    """

    def __init__(self, environment: Environment, slos: Slos, folder: Path) -> None:
        self._environment = environment
        self._slos = slos
        self._folder = folder
        self._rows: list[Row] = []
        self._began = self._ended = time.perf_counter()
        self._started = False
        self._written = self._workers = 0
        events = environment.events
        events.test_start.add_listener(self._begin)
        events.request.add_listener(self._take)
        events.report_to_master.add_listener(self._hand_over)
        events.worker_report.add_listener(self._take_over)
        events.test_stopping.add_listener(self._end)
        events.test_stop.add_listener(self._write)
        events.quitting.add_listener(self._write)

    def _begin(self, **_: Any) -> None:
        self._rows.clear()
        self._started = True
        self._written = 0
        self._began = self._ended = time.perf_counter()

    def _end(self, **_: Any) -> None:
        self._ended = time.perf_counter()
        runner = self._environment.runner
        # Later some have left already.
        self._workers = runner.worker_count if isinstance(runner, MasterRunner) else 0

    def _take(self, context: dict[str, Any], **_: Any) -> None:
        row = context.get(CONTEXT_KEY)
        if row is not None:
            self._rows.append(replace(row, due_s=row.due_s - self._began))

    def _hand_over(self, data: dict[str, Any], **_: Any) -> None:
        data["rows"] = [astuple(row) for row in self._rows]
        self._rows.clear()

    def _take_over(self, data: dict[str, Any], **_: Any) -> None:
        rows = (Row(*fields) for fields in data.get("rows", ()))
        # Lists are what tuples become on the way.
        self._rows += [replace(row, gaps_s=tuple(row.gaps_s)) for row in rows]

    def _write(self, **_: Any) -> None:
        runner = self._environment.runner
        if isinstance(runner, WorkerRunner) or not self._started:
            return
        if not self._rows:
            # A master's may come still, and this be called again.
            self._environment.process_exit_code = 1
        if len(self._rows) == self._written:
            return
        self._written = len(self._rows)
        rows = sorted(self._rows, key=lambda row: row.due_s)
        found = write_reports(
            rows,
            self._slos,
            self._folder,
            seconds=max(self._ended - self._began, 1e-3),
            settings={**settings_of(self._environment), "workers": str(self._workers)},
        )
        for fault in found.faults:
            print(f"threshold broken: {fault}", file=sys.stderr)
        print(f"report: {self._folder / 'report.html'}", file=sys.stderr)
        self._environment.process_exit_code = 1 if found.faults else 0


def settings_of(environment: Environment) -> dict[str, str]:
    """How a run was asked for, for its page."""
    options = environment.parsed_options
    if options is None:
        return {}
    names = ("arrivals", "rate", "shape", "num_users", "run_time", "seed", "slos")
    found = {name.replace("_", " "): str(getattr(options, name)) for name in names}
    if options.arrivals == "closed":
        del found["rate"]
    users = ", ".join(user.__name__ for user in environment.user_classes)
    return {"users": users, **found}
