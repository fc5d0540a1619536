"""What a plan is: cells, the evaluations that fill them, and the trainings behind these. Plain data; pure.

:mod:`retable.study.planner` makes plans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from retable.study import identity
from retable.study.config import Config, Protocol, Resources
from retable.study.schema import Study
from retable.study.tuned import Tuned

Subset = Literal["test", "val"]
Use = Literal["weights", "features"]


@dataclass(frozen=True)
class View:
    """One protocol on one evaluation set; ``key`` names the scores in a run's folder."""

    key: str
    protocol: Protocol
    subset: Subset
    semantics: int

    def under(self, fingerprint: str) -> str:
        """Its key for the dataset with this fingerprint: what a provisional plan looks recorded scores up with."""
        return identity.view_key(
            self.protocol, fingerprint=fingerprint, name="", subset=self.subset, semantics=self.semantics
        )


@dataclass(frozen=True)
class Training:
    """One config to train, with every seed. ``config_id`` is provisional (``~``) while the dataset is not at hand."""

    config_id: str
    provisional_id: str
    config: Config
    resources: Resources
    layout: str
    fingerprint: str | None
    semantics: Mapping[str, int]
    views: tuple[View, ...]
    unsupported: str | None = None
    parents: tuple[str, ...] = ()
    """Config ids of the trainings that it starts from, seed by seed."""
    use: Use | None = None
    """What it takes from them."""

    def run(self, seed: int) -> RunSpec:
        """This training with one seed."""
        return RunSpec(identity.run_id(self.config_id, seed), seed, self)


@dataclass(frozen=True)
class RunSpec:
    """One training with one seed: what a trial executes."""

    run_id: str
    seed: int
    training: Training

    @property
    def parents(self) -> tuple[str, ...]:
        """Run ids that must be done before: earlier stages with the same seed."""
        return tuple(identity.run_id(parent, self.seed) for parent in self.training.parents)

    def to_json(self) -> dict[str, Any]:
        """``spec.json``: everything that determines the run, and the views asked for when it was planned."""
        training = self.training
        return {
            "schema": 1,
            "run_id": self.run_id,
            "config_id": training.config_id,
            "provisional_id": training.provisional_id,
            "seed": self.seed,
            "parents": list(self.parents),
            **({"use": training.use} if training.use else {}),
            "config": training.config.model_dump(mode="json"),
            "dataset": {
                "name": training.config.data.dataset,
                "layout": training.layout,
                "fingerprint": training.fingerprint,
            },
            "semantics": dict(training.semantics),
        }


@dataclass(frozen=True)
class Measurement:
    """One network's speed, which takes no training. ``machine`` is the one that the plan is made on, None if unknown.

    ``config_id`` names what is timed, on whatever machine, and ``run_id`` its time on this one.
    """

    config_id: str
    provisional_id: str
    metric: str
    config: Config
    resources: Resources
    layout: str
    fingerprint: str | None
    semantics: Mapping[str, int]
    view: View
    machine: Mapping[str, str] | None
    unsupported: str | None = None

    @property
    def run_id(self) -> str:
        """What storage keeps it under; provisional without the dataset or the machine."""
        return identity.measurement_id(self.config_id, self.machine)

    def to_json(self) -> dict[str, Any]:
        """``spec.json``, as of a run; ``measures`` tells the two apart."""
        return {
            "schema": 1,
            "run_id": self.run_id,
            "config_id": self.config_id,
            "provisional_id": self.provisional_id,
            "seed": 0,
            "parents": [],
            "measures": self.metric,
            "machine": dict(self.machine) if self.machine is not None else None,
            "config": self.config.model_dump(mode="json"),
            "dataset": {"name": self.config.data.dataset, "layout": self.layout, "fingerprint": self.fingerprint},
            "semantics": dict(self.semantics),
        }


@dataclass(frozen=True)
class Evaluation:
    """What yields a cell's value for each seed: a training under a view, or a combination of other evaluations."""

    key: str
    kind: Literal["scores", "fuse", "mean"]
    config_id: str | None = None
    view: str | None = None
    parts: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One cell of a table and what fills it: an evaluation's metric, a static count, a measurement (its config id), or
    a hole with its reason. ``untuned``: its column is tuned, and the values of its row have not been chosen."""

    table: str
    row: str
    column: str
    kind: str
    metric: str | None
    evaluation: str | None = None
    static: Config | None = None
    measurement: str | None = None
    hole: str | None = None
    untuned: bool = False


@dataclass(frozen=True)
class Plan:
    """Cells -> evaluations -> trainings x seeds of one study under one profile, and measurements of speed apart."""

    study: Study
    profile: str
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    evaluations: Mapping[str, Evaluation]
    trainings: Mapping[str, Training]
    settings: Mapping[str, Any] = field(default_factory=dict)
    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    tuned: Mapping[tuple[str, str], Tuned] = field(default_factory=dict)
    """What the searches of tuned rows (table, row) have come to, where they are over."""

    @cached_property
    def runs(self) -> tuple[RunSpec, ...]:
        """All runs, seed by seed within a training, in the order in which the tables ask for them; parents first."""
        return tuple(t.run(seed) for t in self.trainings.values() for seed in self.seeds if t.unsupported is None)

    @property
    def asked(self) -> tuple[Training | Measurement, ...]:
        """Everything that videos are read for."""
        return (*self.trainings.values(), *self.measurements.values())

    def trainings_of(self, evaluation: str) -> tuple[str, ...]:
        """The config ids behind an evaluation."""
        node = self.evaluations[evaluation]
        if node.config_id is not None:
            return (node.config_id,)
        return tuple(dict.fromkeys(c for part in node.parts for c in self.trainings_of(part)))

    @cached_property
    def unsupported(self) -> dict[str, tuple[Cell, ...]]:
        """What cannot be done yet: each reason with the cells that it leaves empty."""
        found: dict[str, list[Cell]] = {}
        for cell in self.cells:
            timed = self.measurements[cell.measurement].unsupported if cell.measurement is not None else None
            for reason in dict.fromkeys((*([timed] if timed else []), *self._reasons(cell.evaluation))):
                found.setdefault(reason, []).append(cell)
        return {reason: tuple(cells) for reason, cells in found.items()}

    @cached_property
    def timed(self) -> dict[str, tuple[Cell, ...]]:
        """The cells that each measurement fills."""
        return {key: tuple(cell for cell in self.cells if cell.measurement == key) for key in self.measurements}

    def _reasons(self, evaluation: str | None) -> list[str]:
        if evaluation is None:
            return []
        node = self.evaluations[evaluation]
        if node.config_id is not None:
            reason = self.trainings[node.config_id].unsupported
            return reason.split("; ") if reason else []
        return [reason for part in node.parts for reason in self._reasons(part)]

    @cached_property
    def users(self) -> dict[str, tuple[Cell, ...]]:
        """The cells whose values each training yields; none for a training that only starts others."""
        found: dict[str, list[Cell]] = {key: [] for key in self.trainings}
        for cell in self.cells:
            for key in self.trainings_of(cell.evaluation) if cell.evaluation else ():
                found[key].append(cell)
        return {key: tuple(cells) for key, cells in found.items()}

    @cached_property
    def served(self) -> dict[str, tuple[Cell, ...]]:
        """The cells that need each training: its own, and those of the trainings that start from it, in study order."""
        places = {id(cell): i for i, cell in enumerate(self.cells)}
        found = {key: {places[id(cell)] for cell in cells} for key, cells in self.users.items()}
        for key in reversed(list(self.trainings)):  # children come after their parents
            for parent in self.trainings[key].parents:
                found[parent] |= found[key]
        return {key: tuple(self.cells[i] for i in sorted(at)) for key, at in found.items()}
