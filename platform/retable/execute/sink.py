"""What a training puts into its run's folder, fenced by the attempt's number: epochs, checkpoints, scores."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

from retable.execute.attempt import Fenced, Pruned
from retable.execute.order import Order
from retable.study.plan import View
from retable.track.drivers import asked_to_stop
from retable.track.scores import Scores, metrics
from retable.track.storage import Storage, dump
from retable.train.checkpoint import unpack

STOP_SECONDS = 3.0
"""How often training looks whether its driver wants it to stop: one request to the storage each time."""

Report = Callable[[dict[str, Any]], None]
"""Told ``{"epoch": ..., metrics}`` after every epoch."""


class StorageSink:
    """Puts what training hands over into the run's folder (:class:`retable.train.job.Sink`)."""

    def __init__(self, storage: Storage, order: Order, attempt: int, report: Report | None):
        self.storage, self.order, self.attempt, self.report = storage, order, attempt, report
        self._looked = time.monotonic()

    def epoch(self, epoch: int, metrics: dict[str, float], state: bytes, *, best: bool) -> None:
        # The checkpoint first: should the process die between the two, the epoch's metrics are in the checkpoint.
        self.checkpoint(state)
        if best:
            self.storage.put(f"{self.order.folder}/ckpt/best.{self.attempt}.pt", state)
        line = {"epoch": epoch, **metrics}
        self.storage.put_new(f"{self.order.folder}/epochs/{epoch}.{self.attempt}.json", dump(line))
        if self.report is not None:
            self.report(line)  # returns when the driver has heard it, and has decided
        if self.order.stoppable:
            self._stop_if_asked(epoch)

    def _stop_if_asked(self, epoch: int) -> None:
        asked = self.storage.get_json(f"{self.order.folder}/stop.json")
        if asked is not None and asked["epoch"] == epoch:
            raise Pruned(f"stopped by {asked['search']} after {epoch + 1} epochs")

    def checkpoint(self, state: bytes) -> None:
        later = [n for n in self.storage.names(f"{self.order.folder}/attempts") if int(n) > self.attempt]
        if later:
            raise Fenced(f"attempt {self.attempt} of {self.order.run_id} was superseded by attempt {later[-1]}")
        self.storage.put(f"{self.order.folder}/ckpt/last.{self.attempt}.pt", state)

    def wants_stop(self) -> bool:
        if time.monotonic() - self._looked < STOP_SECONDS:
            return False
        self._looked = time.monotonic()
        return asked_to_stop(self.storage, self.order.places.driver)


def complete_epochs(storage: Storage, order: Order, attempt: int, state: bytes) -> None:
    """Write the metrics of an epoch whose attempt died after its checkpoint and before its metrics."""
    found = unpack(state)
    known = {int(n.split(".")[0]) for n in storage.names(f"{order.folder}/epochs")}
    if found.metrics and found.epoch - 1 not in known:
        line = {"epoch": found.epoch - 1, **found.metrics}
        storage.put_new(f"{order.folder}/epochs/{found.epoch - 1}.{attempt}.json", dump(line))


def put_scores(storage: Storage, order: Order, view: View, scores: Scores) -> None:
    """Write the per-video scores of a view and their metrics."""
    buffer = io.BytesIO()
    scores.to_parquet(buffer)
    storage.put(f"{order.folder}/scores/{view.key}.parquet", buffer.getvalue())
    storage.put_json(f"{order.folder}/scores/{view.key}.json", metrics(scores))
