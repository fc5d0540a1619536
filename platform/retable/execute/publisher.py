"""Fills MLflow from storage while a study runs: one writer, in a thread of the driver, never in the way of training."""

from __future__ import annotations

import threading
from typing import Any, Self

from rich.console import Console

from retable.report.render import render
from retable.report.results import document
from retable.study.load import LoadedStudy
from retable.study.plan import Plan
from retable.track import record
from retable.track.connection import TrackingUnavailable
from retable.track.writer import Published
from retable.workspace import Workspace

PAUSE_SECONDS = 20.0
"""Least time between two fillings while runs are ending."""


class Publisher:
    """Publishes a study's runs and tables; a context manager whose thread publishes when woken.

    It always publishes the whole study under a profile, whatever part of it is being run: a run is named after its
    first cell in study order, and every table has its rows.
    """

    def __init__(self, loaded: LoadedStudy, plan: Plan, workspace: Workspace, console: Console):
        self.workspace, self.console = workspace, console
        self.plan = workspace.plan(loaded, profile=plan.profile, settings=plan.settings, tuned=plan.tuned)
        self._lock = threading.Lock()
        self._woken, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="mlflow-writer", daemon=True)

    def check(self) -> None:
        """Refuse to start without a record.

        Raises:
            TrackingUnavailable: the tracking server or file cannot be reached, or not be written.
        """
        record.check(self.workspace.tracking_uri, self.plan.study)

    def wake(self) -> None:
        """A run has ended: publish soon."""
        self._woken.set()

    def publish(self) -> Published:
        """Fill MLflow from what storage holds now, all recorded seeds; repeating it changes nothing."""
        with self._lock:
            records = self.workspace.records(self.plan, offline=True)
            doc = document(self.plan, records)
            return record.publish(
                self.workspace.tracking_uri,
                self.plan.study,
                self.plan,
                records,
                doc,
                artifacts=self._run_files,
                table_files=lambda table: {"table.md": _markdown(doc, table)},
            )

    def _run_files(self, run_id: str) -> dict[str, bytes]:
        """A run's scores and log, by their names in the run's folder."""
        storage = self.workspace.storage
        names = [f"scores/{n}" for n in storage.names(f"runs/{run_id}/scores") if n.endswith(".parquet")] + ["log.txt"]
        found = {name: storage.get(f"runs/{run_id}/{name}") for name in names}
        return {name: data for name, data in found.items() if data is not None}

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
            except TrackingUnavailable as error:
                self.console.print(f"MLflow cannot be reached, training goes on: {error}", highlight=False)
            self._stop.wait(PAUSE_SECONDS)


def _markdown(doc: dict[str, Any], table: str) -> bytes:
    return render({**doc, "tables": [t for t in doc["tables"] if t["id"] == table]}, "md").encode()
