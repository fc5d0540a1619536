"""Fills MLflow from storage while a study runs: one writer, in a thread of the driver, never in the way of training."""

from __future__ import annotations

import threading
from typing import Self

from rich.console import Console

from retable.report.results import document
from retable.study.plan import Plan
from retable.track import record
from retable.workspace import Workspace

PAUSE_SECONDS = 20.0
"""Least time between two fillings while runs are ending."""


class Publisher:
    """Publishes a plan's runs and tables; a context manager whose thread publishes when woken."""

    def __init__(self, plan: Plan, workspace: Workspace, console: Console):
        self.plan, self.workspace, self.console = plan, workspace, console
        self._woken, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="mlflow-writer", daemon=True)

    def check(self) -> None:
        """Refuse to start without a record.

        Raises:
            TrackingUnavailable: the tracking server or file cannot be reached.
        """
        record.check(self.workspace.tracking_uri)

    def wake(self) -> None:
        """A run has ended: publish soon."""
        self._woken.set()

    def publish(self) -> int:
        """Fill MLflow from what storage holds now, all recorded seeds; repeating it changes nothing. Returns the runs."""
        records = self.workspace.records(self.plan, offline=True)
        record.publish(self.workspace.tracking_uri, self.plan, records, document(self.plan, records), self.workspace.storage)
        return len(records)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._woken.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._woken.wait()
            self._woken.clear()
            if self._stop.is_set():
                return
            try:
                self.publish()
            except record.TrackingUnavailable as error:
                self.console.print(f"MLflow cannot be reached, training goes on: {error}", highlight=False)
            self._stop.wait(PAUSE_SECONDS)
