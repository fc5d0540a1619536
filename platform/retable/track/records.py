"""What is known of a run, in one plain shape, whichever store it was read from (the run folder or MLflow)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from retable.track.scores import Scores

Status = Literal["done", "failed", "partial"]


def no_scores(view: str) -> Scores | None:
    """Where a record comes without its per-video scores."""
    del view
    return None


@dataclass(frozen=True)
class RunRecord:
    """One run as recorded. ``partial`` has finished epochs but no ``result.json``.

    ``spec`` is the run's ``spec.json`` (see :class:`retable.study.plan.RunSpec`): run_id, config_id, provisional_id,
    config, seed, parents, dataset, semantics. ``epochs`` holds one dict per finished epoch: ``epoch`` (0-based) and
    metrics such as ``train/loss`` and ``test/top1``. ``evaluations`` maps a view key (one protocol on one evaluation
    set) to its metrics in percent. ``cost``: ``seconds``, ``cpu_seconds``, ``step_seconds`` (median), ``steps``.
    ``environment``: device kind, library versions, host name. ``scores`` reads the per-video scores of a view from
    where the record is from; None where they are not. They are large: nothing keeps them.
    """

    spec: dict[str, Any]
    status: Status
    reason: str | None = None
    epochs: tuple[dict[str, float], ...] = ()
    evaluations: dict[str, dict[str, float]] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    attempts: int = 0
    scores: Callable[[str], Scores | None] = field(default=no_scores, compare=False, repr=False)

    @property
    def run_id(self) -> str:
        return str(self.spec["run_id"])

    @property
    def config_id(self) -> str:
        return str(self.spec["config_id"])

    @property
    def seed(self) -> int:
        return int(self.spec["seed"])
