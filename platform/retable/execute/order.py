"""What a driver asks a trial for: one run and the views to score it under, or one measurement; and where to read and
write. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from retable.study.config import Config, Resources
from retable.study.plan import Measurement, RunSpec, View
from retable.track.claims import Process
from retable.track.storage import Storage


@dataclass(frozen=True)
class Places:
    """Where workers read and write; the same on every node."""

    storage: str
    data: str | None
    cache: str
    driver: Process


@dataclass(frozen=True)
class Order:
    """One run to carry out and the views to score it under."""

    spec: dict[str, Any]
    views: tuple[View, ...]
    resources: Resources
    places: Places
    stoppable: bool = False
    """Whether training ends early, without a result, where the driver asks for it (``stop.json``)."""

    @classmethod
    def of(cls, run: RunSpec, places: Places) -> Order:
        """The order to carry out a planned run."""
        return cls(run.to_json(), run.training.views, run.training.resources, places)

    @classmethod
    def measuring(cls, measurement: Measurement, places: Places) -> Order:
        """The order to take a planned measurement."""
        return cls(measurement.to_json(), (measurement.view,), measurement.resources, places)

    @property
    def run_id(self) -> str:
        return str(self.spec["run_id"])

    @property
    def config(self) -> Config:
        return Config.model_validate(self.spec["config"])

    @property
    def parents(self) -> tuple[str, ...]:
        """Ids of the runs that must be done before this one starts."""
        return tuple(self.spec["parents"])

    @property
    def use(self) -> str | None:
        """What it takes from them: weights or features."""
        return self.spec.get("use")

    @property
    def measures(self) -> str | None:
        """The metric of a measurement; None for a run, which trains."""
        return self.spec.get("measures")

    @property
    def workers(self) -> int:
        return self.config.recipe.workers

    @property
    def folder(self) -> str:
        return f"runs/{self.run_id}"


def missing_views(storage: Storage, order: Order) -> list[View]:
    """Views that have no scores yet."""
    return [v for v in order.views if not storage.exists(f"{order.folder}/scores/{v.key}.json")]
