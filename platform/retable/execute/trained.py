"""Finished runs with their weights: found by id, or as what fills a cell, which for a fused one is several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from retable.data.config import Protocol
from retable.study.config import Config
from retable.study.plan import Evaluation, Plan
from retable.track.records import RunRecord
from retable.track.storage import Storage


class NotAvailable(LookupError):
    """There is no such finished run here, or it cannot do what is asked; the message says what to do."""


@dataclass(frozen=True)
class Trained:
    """One finished run with its final weights, the names of its classes, and the protocol that it is asked under."""

    record: RunRecord
    config: Config
    state: bytes
    classes: tuple[str, ...]
    protocol: Protocol
    place: str | None = None
    """The cell's ``table.row.column``, where the run was found by one."""
    frozen: Trained | None = None
    """The run whose features this one reads instead of videos."""


@dataclass(frozen=True)
class Fused:
    """What fills a cell: one run, or several whose scores are averaged with weights that sum to 1."""

    parts: tuple[Trained, ...]
    weights: tuple[float, ...] = (1.0,)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, the same for all parts."""
        return self.parts[0].classes


def find_run(storage: Storage, run_id: str, protocol: Protocol | None = None, place: str | None = None) -> Trained:
    """A finished run by its id, or by the beginning of it.

    Raises:
        NotAvailable: no finished run, several, or no checkpoint or scores of it.
    """
    protocol = protocol or Protocol()
    ids = [known for known in storage.run_ids() if known.startswith(run_id)]
    if len(ids) != 1:
        what = f"{len(ids)} runs in {storage.url} begin" if ids else f"no run in {storage.url} begins"
        raise NotAvailable(f"{what} with {run_id!r}: retable plan --json lists the ids of a study's runs")
    record = storage.record(ids[0])
    if record is None or record.status != "done":
        raise NotAvailable(f"run {ids[0]} is not finished: the same retable run command goes on with it")
    if "measures" in record.spec:
        raise NotAvailable(f"{ids[0]} is a measurement of speed: it has no weights")
    trained = _read(storage, record, protocol, place)
    if not trained.classes:
        raise NotAvailable(f"run {ids[0]} has no per-video scores in {storage.url}, which name its classes")
    return trained


def find_cell(storage: Storage, plan: Plan, table: str, row: str, column: str | None, seed: int) -> Fused:
    """What fills a cell; by default the row's first cell that one run fills, else its first fused one.

    Raises:
        NotAvailable: no such cell, one that is a mean of several, or a run of it that is not finished.
    """
    asked = [
        (cell, plan.evaluations[cell.evaluation])
        for cell in plan.cells
        if (cell.table, cell.row) == (table, row) and column in (None, cell.column) and cell.evaluation is not None
    ]
    found = [(cell, node) for cell, node in asked if node.kind == "scores"] or [
        (cell, node) for cell, node in asked if node.kind == "fuse"
    ]
    where = f"{table}.{row}" + (f".{column}" if column else "")
    if not found:
        why = "its value is a mean over several evaluations" if asked else "no cell of it is filled by runs"
        raise NotAvailable(f"{where} cannot be asked: {why}")
    cell, node = found[0]
    place = f"{table}.{row}.{cell.column}"
    parts = [(_run_of(storage, plan, part, seed, place), weight) for part, weight in _leaves(plan, node, 1.0)]
    return Fused(tuple(part for part, _ in parts), tuple(weight for _, weight in parts))


def _leaves(plan: Plan, node: Evaluation, share: float) -> Iterator[tuple[Evaluation, float]]:
    """The runs' own evaluations below a fusion, each with its share of the whole."""
    if node.kind == "scores":
        yield node, share
        return
    total = sum(node.weights)
    for part, weight in zip(node.parts, node.weights, strict=True):
        yield from _leaves(plan, plan.evaluations[part], share * weight / total)


def _run_of(storage: Storage, plan: Plan, node: Evaluation, seed: int, place: str) -> Trained:
    training = plan.trainings[str(node.config_id)]
    view = next(v for v in training.views if v.key == node.view)
    if training.fingerprint is None:
        name = training.config.data.dataset
        raise NotAvailable(f"which run fills {place} depends on the dataset {name}, which is not here: use --run")
    return find_run(storage, training.run(seed).run_id, view.protocol, place)


def _read(storage: Storage, record: RunRecord, protocol: Protocol, place: str | None) -> Trained:
    """A run and what it reads; an earlier stage may have no scores, and then its classes have no names."""
    kind = "last" if protocol.checkpoint == "last" else "best"
    names = storage.checkpoints(record.run_id, kind)
    states = [data for name in names if (data := storage.get(name)) is not None]
    scores = next((found for view in record.evaluations if (found := record.scores(view)) is not None), None)
    if not states:
        raise NotAvailable(f"run {record.run_id} has no {kind} checkpoint in {storage.url}")
    config = Config.model_validate(record.spec["config"])
    first = storage.record(record.spec["parents"][0]) if record.spec.get("use") == "features" else None
    frozen = None if first is None else _read(storage, first, Protocol(), None)
    return Trained(record, config, states[0], scores.classes if scores else (), protocol, place, frozen)
