"""What a search has asked and told, as its Optuna study keeps it: which trials count, their cost, how they ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from retable.execute.searching.asha import Decision
from retable.execute.searching.sampler import distribution
from retable.study.search_schema import Budget
from retable.study.space import Point, SearchSpace
from retable.track.records import RunRecord
from retable.track.storage import Storage
from retable.track.trials import TrialRecord

Curve = Mapping[int, float]
"""Epochs (from 0) to the objective's value after them."""


WORKED = "worked"


@dataclass(frozen=True)
class Spent:
    """What a search has used so far. ``hours``: of its drivers, not of its runs."""

    trials: int
    epochs: int
    gpu_hours: float
    hours: float

    def all_of(self, budget: Budget) -> bool:
        """Whether one part of the budget is spent, which ends the search."""
        limits = ((self.trials, budget.trials), (self.epochs, budget.epochs))
        times = ((self.gpu_hours, budget.gpu_hours), (self.hours, budget.hours))
        return any(limit is not None and used >= limit for used, limit in (*limits, *times))


@dataclass(frozen=True)
class Ledger:
    """The trials of one Optuna study. A trial that was *passed over* made no valid config, or was a run that the
    search has had; a *recorded* one was finished by something else. Neither counts."""

    study: optuna.Study
    fair: bool = False
    """Whether a trial costs what its run costs, whoever has trained it: of searches that are compared."""

    def running(self) -> list[FrozenTrial]:
        """What an earlier driver left open."""
        return [t for t in self._trials() if t.state == TrialState.RUNNING]

    def spent(self) -> Spent:
        """What of the budget is used; trials that run count, their epochs when they end."""
        mine = [t.user_attrs for t in self._trials() if _counts(t)]
        epochs, seconds = ("epochs", "run_seconds") if self.fair else ("spent", "seconds")
        gpu_seconds = sum(float(a.get(seconds, 0.0)) * float(a.get("gpus", 0.0)) for a in mine)
        worked = float(self.study.user_attrs.get(WORKED, 0.0))
        return Spent(len(mine), sum(int(a.get(epochs, 0)) for a in mine), gpu_seconds / 3600, worked / 3600)

    def worked(self, seconds: float) -> None:
        """How long drivers have been at the search, all of them together."""
        self.study.set_user_attr(WORKED, seconds)

    def settled(self) -> set[str]:
        """Run ids that trials have finished or are at."""
        states = (TrialState.COMPLETE, TrialState.RUNNING)
        return {str(t.user_attrs.get("run_id")) for t in self._trials() if t.state in states}

    def twin(self, number: int, run_id: str) -> int | None:
        """Another trial of the same run."""
        same = (t.number for t in self._trials() if t.user_attrs.get("run_id") == run_id and t.number != number)
        return next(same, None)

    def decisions(self) -> Iterator[Decision]:
        """Every decision on record, in no order."""
        for trial in self._trials():
            yield from (Decision(**entry) for entry in trial.user_attrs.get("decisions", ()))

    def begin(self, trial: optuna.Trial, run_id: str, sampler: str, had: int, gpus: float) -> None:
        """The trial is this run, of which ``had`` epochs were there before the search trained any."""
        if "run_id" not in trial.user_attrs:
            trial.set_user_attr("had", had)
            trial.set_user_attr("gpus", gpus)
            trial.set_user_attr("sampler", sampler)
            trial.set_user_attr("run_id", run_id)

    def decide(self, trial: optuna.Trial, decision: Decision) -> None:
        """Log a decision, before it is acted on."""
        log = trial.user_attrs.get("decisions", [])
        trial.set_user_attr("decisions", [*log, asdict(decision)])

    def pass_over(self, trial: optuna.Trial, reason: str) -> None:
        trial.set_user_attr("passed", reason)
        self.study.tell(trial, state=TrialState.FAIL)

    def complete(self, trial: optuna.Trial, record: RunRecord, values: Sequence[float], curve: Curve) -> None:
        self._account(trial, record)
        self._report(trial, curve)
        self.study.tell(trial, values)

    def prune(self, trial: optuna.Trial, record: RunRecord, curve: Curve) -> None:
        self._account(trial, record)
        self._report(trial, curve)
        self.study.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: optuna.Trial, reason: str, record: RunRecord | None = None) -> None:
        if record is not None:
            self._account(trial, record)
        trial.set_user_attr("reason", reason)
        self.study.tell(trial, state=TrialState.FAIL)

    def add(self, space: SearchSpace, point: Point, record: RunRecord, values: Sequence[float]) -> None:
        """A run that something else has finished, for the sampler to learn from."""
        parameters = {p.name: p for path in space.paths for p in space.parameters(path)}
        params = space.encode(point)
        attrs = {"point": point, "run_id": record.run_id, "epochs": len(record.epochs), "recorded": True}
        trial = optuna.trial.create_trial(
            params=params,
            distributions={name: distribution(parameters[name]) for name in params},
            user_attrs=attrs,
            **({"values": values} if len(values) > 1 else {"value": values[0]}),
        )
        self.study.add_trial(trial)

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _account(self, trial: optuna.Trial, record: RunRecord) -> None:
        had, seconds = int(trial.user_attrs["had"]), [float(line.get("seconds", 0.0)) for line in record.epochs]
        trial.set_user_attr("spent", max(0, len(record.epochs) - had))
        trial.set_user_attr("epochs", len(record.epochs))
        trial.set_user_attr("seconds", sum(seconds[had:]))
        trial.set_user_attr("run_seconds", sum(seconds))

    def _report(self, trial: optuna.Trial, curve: Curve) -> None:
        if len(self.study.directions) > 1:
            return  # Optuna takes epochs of one objective only
        known = self.study._storage.get_trial(trial._trial_id).intermediate_values
        for epoch, value in curve.items():
            if epoch not in known:
                trial.report(value, epoch)


def recorded(study: optuna.Study, storage: Storage) -> list[TrialRecord]:
    """Every trial of a search by number; those passed over are left out."""
    found = (_record(t, storage) for t in study.get_trials(deepcopy=False))
    return [t for t in found if t is not None]


def _counts(trial: FrozenTrial) -> bool:
    attrs = trial.user_attrs
    return "run_id" in attrs and "passed" not in attrs and "recorded" not in attrs


def _record(trial: FrozenTrial, storage: Storage) -> TrialRecord | None:
    attrs = trial.user_attrs
    if "run_id" not in attrs or "passed" in attrs:
        return None
    states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    state: Any = "recorded" if "recorded" in attrs else states.get(trial.state, "running")
    epochs = attrs["epochs"] if "epochs" in attrs else len(list(storage.epochs(attrs["run_id"])))
    return TrialRecord(
        number=trial.number,
        state=state,
        point=attrs["point"],
        values=tuple(trial.values or ()),
        run_id=attrs["run_id"],
        sampler=attrs.get("sampler", ""),
        spent=attrs.get("spent", max(0, epochs - attrs.get("had", epochs))),
        epochs=epochs,
        label=attrs.get("label"),
        reason=attrs.get("reason"),
        seconds=attrs.get("seconds", 0.0),
        gpus=attrs.get("gpus", 0.0),
    )
