"""The second source of runs: a search, through Optuna's ask and tell. Optuna is imported here and nowhere else.

The storage's runs are the truth; Optuna's storage holds what was asked and told, and survives the driver.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from retable.execute.asha import Decision, Decisions
from retable.execute.order import Order, Places, missing_views
from retable.execute.tune import MAX_DEATHS, give_up
from retable.study import identity
from retable.study.plan import RunSpec
from retable.study.resolve import Unresolvable
from retable.study.schema import STATIC_METRICS, Budget
from retable.study.searches import GRID_LIMIT, Hunt, measured
from retable.study.space import OutsideError, Parameter, Point, Scalar
from retable.study.static import in_unit, static_counts
from retable.track.claims import holder
from retable.track.records import RunRecord
from retable.track.storage import Storage
from retable.track.trials import TrialRecord

MISSES = 20
"""After so many proposals in a row that are invalid or known, a finite space's untried points are taken one by one."""
MOST_MISSES = 200
"""After so many the space counts as exhausted."""


@dataclass(frozen=True)
class Options:
    """How a search is carried out. ``seed`` is the sampler's; trials train with seed 0 as tables do first."""

    sampler: str
    budget: Budget
    seed: int = 0
    concurrency: int = 1


@dataclass
class SearchSource:
    """Hands out the runs of an Optuna study's trials and tells it how they ended.

    Trials that a killed driver left running are taken up first. A proposal that makes no valid config, or is a run
    that this search has had, is passed over: it is told FAIL, with the reason, and does not count.
    """

    hunt: Hunt
    make: Callable[[Point], RunSpec]
    """A point's run. Raises Unresolvable where it makes no valid config."""
    study: optuna.Study
    storage: Storage
    places: Places
    options: Options
    decisions: Decisions
    started: Callable[[RunSpec, int], None] = lambda run, number: None
    """Told of each run before it is handed out, with its trial's number."""
    halted: bool = False
    """Something about the machine is in the way: nothing more is handed out."""
    exhausted: bool = False
    _open: dict[str, optuna.Trial] = field(default_factory=dict)
    _orders: dict[str, Order] = field(default_factory=dict)
    _waiting: list[optuna.Trial] = field(default_factory=list)
    _deaths: dict[str, int] = field(default_factory=dict)
    _misses: int = 0

    def __post_init__(self) -> None:
        self.decisions.log[:] = sorted((*self.decisions.log, *logged(self.study)), key=lambda d: d.order)
        left = [t for t in self.study.get_trials(deepcopy=False) if t.state == TrialState.RUNNING]
        self._mirror()
        for _, row, point in self.hunt.first():
            attrs = {} if row is None else {"label": row}
            self.study.enqueue_trial(self.hunt.space.encode(point), user_attrs=attrs, skip_if_exists=True)
        self._waiting = [self._again(frozen) for frozen in left]

    def next(self) -> str | None:
        while not self.halted and len(self._open) < self.options.concurrency:
            trial = self._waiting.pop(0) if self._waiting else self._asked()
            if trial is None:
                break
            run_id = self._begun(trial)
            if run_id is not None:
                return run_id
        if self._open:
            return None
        raise StopIteration

    def order(self, run_id: str) -> Order:
        return self._orders[run_id]

    def heard(self, run_id: str, line: dict[str, Any]) -> None:
        """An open run has finished an epoch: decide whether it goes on, log it, and say so where the trial looks."""
        trial = self._open.get(run_id)
        if trial is None:
            return
        decision = self._decided(trial, line)
        if decision is not None and not decision.go:
            asked = {"schema": 1, "epoch": int(line["epoch"]), "search": self.study.study_name}
            self.storage.put_json(f"runs/{run_id}/stop.json", asked)

    def ended(self, run_id: str, ok: bool) -> None:
        trial = self._open.pop(run_id, None)
        if trial is None:
            return
        record = self.storage.record(run_id)
        if record is not None and record.status in ("done", "failed"):
            self._tell(trial, record)
        elif self.decisions.stopped(trial.number) is not None and record is not None:
            self._tell_pruned(trial, record)
        elif ok:  # it was left unfinished: somebody else's, or the machine is in the way; the trial stays running
            self.halted |= holder(self.storage, run_id) is None
        else:
            self._died(trial, run_id)

    def trials(self) -> list[TrialRecord]:
        """Every trial of the search so far; those passed over are left out."""
        return recorded(self.study, self.storage)

    def spent(self) -> tuple[int, int]:
        """Trials and epochs of the budget that are used; trials that run count."""
        mine = [t for t in self.study.get_trials(deepcopy=False) if _counts(t)]
        return len(mine), sum(int(t.user_attrs.get("spent", 0)) for t in mine)

    def _asked(self) -> optuna.Trial | None:
        trials, epochs = self.spent()
        budget = self.options.budget
        if (budget.trials is not None and trials >= budget.trials) or (
            budget.epochs is not None and epochs >= budget.epochs
        ):
            return None
        waiting = any(t.state == TrialState.WAITING for t in self.study.get_trials(deepcopy=False))
        if not waiting and (self.options.sampler == "grid" or self._misses >= MISSES) and self.hunt.space.finite:
            point = self._untried()
            if point is None:
                self.exhausted = True
                return None
            self.study.enqueue_trial(self.hunt.space.encode(point))
        elif self._misses >= MOST_MISSES:
            self.exhausted = True
            return None
        self._reseed(len(self.study.get_trials(deepcopy=False)))
        return self.study.ask()

    def _untried(self) -> Point | None:
        """A point of the finite space that has not been asked for, in an order that the seed decides."""
        points = [p for p, _ in zip(self.hunt.space.points(), range(GRID_LIMIT + 1), strict=False)]
        random.Random(self.options.seed).shuffle(points)
        known = {identity.canonical(t.params) for t in self.study.get_trials(deepcopy=False)}
        return next((p for p in points if identity.canonical(self.hunt.space.encode(p)) not in known), None)

    def _reseed(self, number: int, parameter: int = 0) -> None:
        """A sampler whose draws depend on the trial's number and what was told before, not on when it was made."""
        seed = int(identity.digest([self.options.seed, number, parameter], 7), 16)
        self.study.sampler = make_sampler(self.options.sampler, seed, self.options.seed)

    def _again(self, frozen: FrozenTrial) -> optuna.Trial:
        self._reseed(frozen.number)
        return optuna.Trial(self.study, frozen._trial_id)

    def _drawn(self, trial: optuna.Trial) -> Point:
        count = 0

        def pick(parameter: Parameter) -> Scalar:
            nonlocal count
            count += 1
            self._reseed(trial.number, count)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                value: Scalar = trial._suggest(parameter.name, distribution(parameter))
            return value

        return self.hunt.space.draw(pick)

    def _begun(self, trial: optuna.Trial) -> str | None:
        """The trial's run, handed out; None if it needs no training: passed over, known, or stopped by its past."""
        point = self._drawn(trial)
        trial.set_user_attr("point", point)
        try:
            too_few = self.hunt.space.too_few(point)
            run = self.make(point) if too_few is None else None
        except Unresolvable as error:
            run, too_few = None, str(error)
        if run is None:
            self._pass_over(trial, str(too_few))
            return None
        twin = self._twin(trial.number, run.run_id)
        if twin is not None:
            self._pass_over(trial, f"the run of trial {twin}")
            return None
        self._misses = 0
        record = self.storage.record(run.run_id)
        if "run_id" not in trial.user_attrs:
            trial.set_user_attr("had", len(record.epochs) if record is not None else 0)
            trial.set_user_attr("sampler", self.options.sampler)
            trial.set_user_attr("run_id", run.run_id)
        order = replace(Order.of(run, self.places), stoppable=self.decisions.rule.kind != "none")
        if record is not None and self._settled(trial, order, record):
            return None
        self._open[run.run_id], self._orders[run.run_id] = trial, order
        self.started(run, trial.number)
        return run.run_id

    def _settled(self, trial: optuna.Trial, order: Order, record: RunRecord) -> bool:
        """Whether what is recorded already tells how the trial ends."""
        if record.status == "failed" or (record.status == "done" and not missing_views(self.storage, order)):
            self._tell(trial, record)
            return True
        for line in record.epochs if record.status == "partial" else ():
            decision = self._decided(trial, line)
            if decision is not None and not decision.go:
                self._tell_pruned(trial, record)
                return True
        return False

    def _pass_over(self, trial: optuna.Trial, reason: str) -> None:
        self._misses += 1
        trial.set_user_attr("passed", reason)
        self.study.tell(trial, state=TrialState.FAIL)

    def _twin(self, number: int, run_id: str) -> int | None:
        trials = self.study.get_trials(deepcopy=False)
        same = (t.number for t in trials if t.user_attrs.get("run_id") == run_id and t.number != number)
        return next(same, None)

    def _decided(self, trial: optuna.Trial, line: dict[str, Any]) -> Decision | None:
        """The decision at an epoch, logged before it is acted on."""
        value = self._epoch_value(line)
        if value is None:
            return None
        goal = self.hunt.search.goals[0]
        before = len(self.decisions.log)
        decision = self.decisions.hear(trial.number, int(line["epoch"]) + 1, value if goal.maximize else -value)
        if len(self.decisions.log) > before and decision is not None:
            log = trial.user_attrs.get("decisions", [])
            trial.set_user_attr("decisions", [*log, asdict(decision)])
        return decision

    def _epoch_value(self, line: dict[str, Any]) -> float | None:
        metric = measured(self.hunt.search)[0]
        value = line.get(f"val/{metric}", line.get(f"test/{metric}"))
        return None if value is None else float(value)

    def _tell(self, trial: optuna.Trial, record: RunRecord) -> None:
        """A whole run: COMPLETE with its values, or FAIL with the reason why it has none."""
        self._account(trial, record)
        values, reason = self._values(record)
        if reason is not None:
            trial.set_user_attr("reason", reason)
            self.study.tell(trial, state=TrialState.FAIL)
            return
        self._report(trial, record)
        self.study.tell(trial, values)

    def _tell_pruned(self, trial: optuna.Trial, record: RunRecord) -> None:
        self._account(trial, record)
        self._report(trial, record)
        self.study.tell(trial, state=TrialState.PRUNED)

    def _report(self, trial: optuna.Trial, record: RunRecord) -> None:
        if len(self.hunt.search.goals) > 1:
            return  # Optuna takes epochs of one objective only
        known = self.study._storage.get_trial(trial._trial_id).intermediate_values
        for line in record.epochs:
            value = self._epoch_value(line)
            if value is not None and int(line["epoch"]) not in known:
                trial.report(value, int(line["epoch"]))

    def _account(self, trial: optuna.Trial, record: RunRecord) -> None:
        trial.set_user_attr("spent", max(0, len(record.epochs) - int(trial.user_attrs["had"])))
        trial.set_user_attr("epochs", len(record.epochs))

    def _values(self, record: RunRecord) -> tuple[list[float], str | None]:
        """The objectives' values of a run, or why it has none."""
        if record.status != "done":
            return [], record.reason or "failed"
        run = self.make(self.hunt.space.project(record.spec["config"]))
        scores = record.evaluations.get(run.training.views[0].key, {})
        values = []
        for goal in self.hunt.search.goals:
            if goal.metric in STATIC_METRICS:
                values.append(in_unit(static_counts(run.training.config, goal.metric), goal.metric, ""))
            elif math.isnan(scores.get(goal.metric, math.nan)):
                return [], f"its {goal.metric} is not a number"
            else:
                values.append(scores[goal.metric])
        return values, None

    def _died(self, trial: optuna.Trial, run_id: str) -> None:
        self._deaths[run_id] = self._deaths.get(run_id, 0) + 1
        if self._deaths[run_id] < MAX_DEATHS:
            self._waiting.append(trial)
            return
        give_up(self._orders[run_id], self.storage)
        record = self.storage.record(run_id)
        if record is not None:
            self._tell(trial, record)
            return
        trial.set_user_attr("reason", "its process died before it began")
        self.study.tell(trial, state=TrialState.FAIL)

    def _mirror(self) -> None:
        """Let the sampler learn from finished runs inside the space that no trial of it has finished."""
        trials = self.study.get_trials(deepcopy=False)
        settled = (TrialState.COMPLETE, TrialState.RUNNING)
        known = {t.user_attrs.get("run_id") for t in trials if t.state in settled}
        for run_id, record in sorted(self.storage.records().items()):
            if record.status != "done" or run_id in known:
                continue
            try:
                point = self.hunt.space.project(record.spec["config"])
                run = self.make(point)
            except (OutsideError, Unresolvable):
                continue
            if run.run_id == run_id and run.training.views[0].key in record.evaluations:
                values, reason = self._values(record)
                if reason is None:
                    self._add(point, record, values)

    def _add(self, point: Point, record: RunRecord, values: list[float]) -> None:
        parameters = {p.name: p for path in self.hunt.space.paths for p in self.hunt.space.parameters(path)}
        params = self.hunt.space.encode(point)
        attrs = {"point": point, "run_id": record.run_id, "epochs": len(record.epochs), "recorded": True}
        trial = optuna.trial.create_trial(
            params=params,
            distributions={name: distribution(parameters[name]) for name in params},
            user_attrs=attrs,
            **({"values": values} if len(values) > 1 else {"value": values[0]}),
        )
        self.study.add_trial(trial)


def make_sampler(name: str, seed: int, constant: int) -> optuna.samplers.BaseSampler:
    """A sampler by its name in a study file. ``constant`` seeds what must not change from trial to trial."""
    found = optuna.samplers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "tpe":
            return found.TPESampler(seed=seed)
        if name == "cmaes":
            return found.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        if name == "nsga2":
            return found.NSGAIISampler(seed=seed, population_size=16)
        if name == "qmc":
            return found.QMCSampler(
                seed=constant, scramble=True, warn_independent_sampling=False, warn_asynchronous_seeding=False
            )
    return found.RandomSampler(seed=seed)  # random, and what grid does not draw from


def distribution(parameter: Parameter) -> BaseDistribution:
    """A parameter in Optuna's words."""
    if parameter.choices:
        return CategoricalDistribution(parameter.choices)
    if parameter.whole:
        return IntDistribution(int(parameter.low), int(parameter.high))
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def logged(study: optuna.Study) -> Iterator[Decision]:
    """Every decision on record, in no order."""
    for trial in study.get_trials(deepcopy=False):
        yield from (Decision(**entry) for entry in trial.user_attrs.get("decisions", ()))


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
    )
