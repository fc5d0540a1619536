"""The second source of runs: a search, through Optuna's ask and tell.

The storage's runs are the truth; Optuna's storage holds what was asked and told, and survives the driver.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import optuna

from retable.execute.order import Order, Places, missing_views
from retable.execute.searching.asha import Decision, Decisions
from retable.execute.searching.ledger import Curve, Ledger, recorded
from retable.execute.searching.sampler import Proposals
from retable.execute.tune import MAX_DEATHS, give_up
from retable.study.metrics import STATIC_METRICS
from retable.study.plan import RunSpec
from retable.study.resolve import Unresolvable
from retable.study.search_schema import Budget
from retable.study.searches import Hunt, measured
from retable.study.space import OutsideError, Point
from retable.study.static import in_unit, static_counts
from retable.track.claims import holder
from retable.track.records import RunRecord
from retable.track.storage import Storage
from retable.track.trials import TrialRecord


@dataclass(frozen=True)
class Options:
    """How a search is carried out. ``seed`` is the sampler's; trials train with seed 0 as tables do first.

    ``fair``: it is one of several that are compared. It learns from its own trials only, and what others have trained
    costs it as much as if it had.
    """

    sampler: str
    budget: Budget
    seed: int = 0
    concurrency: int = 1
    fair: bool = False


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
    _began: float = 0.0

    def __post_init__(self) -> None:
        self.decisions.log[:] = sorted((*self.decisions.log, *self.ledger.decisions()), key=lambda d: d.order)
        left = self.ledger.running()
        self._began = time.monotonic() - 3600 * self.ledger.spent().hours
        if not self.options.fair:
            self._mirror()
        for _, row, point in self.hunt.first():
            attrs = {} if row is None else {"label": row}
            self.study.enqueue_trial(self.hunt.space.encode(point), user_attrs=attrs, skip_if_exists=True)
        self._waiting = [self.proposals.again(frozen) for frozen in left]

    @cached_property
    def ledger(self) -> Ledger:
        """What was asked and told."""
        return Ledger(self.study, self.options.fair)

    @cached_property
    def proposals(self) -> Proposals:
        """What is tried next."""
        return Proposals(self.study, self.hunt.space, self.options.sampler, self.options.seed)

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
        self.ledger.worked(time.monotonic() - self._began)
        decision = self._decided(trial, line)
        if decision is not None and not decision.go:
            asked = {"schema": 1, "epoch": int(line["epoch"]), "search": self.study.study_name}
            self.storage.put_json(f"runs/{run_id}/stop.json", asked)

    def ended(self, run_id: str, ok: bool) -> None:
        trial = self._open.pop(run_id, None)
        if trial is None:
            return
        self.ledger.worked(time.monotonic() - self._began)
        record = self.storage.record(run_id)
        if record is not None and record.status in ("done", "failed"):
            self._tell(trial, record)
        elif self.decisions.stopped(trial.number) is not None and record is not None:
            self.ledger.prune(trial, record, self._curve(record))
        elif ok:  # it was left unfinished: somebody else's, or the machine is in the way; the trial stays running
            self.halted |= holder(self.storage, run_id) is None
        else:
            self._died(trial, run_id)

    def trials(self) -> list[TrialRecord]:
        """Every trial of the search so far; those passed over are left out."""
        return recorded(self.study, self.storage)

    @property
    def over(self) -> bool:
        """Whether nothing is left to do: the budget is spent or the space exhausted, and every trial has ended."""
        return not (self.halted or self._open or self._waiting or self.ledger.running())

    def _asked(self) -> optuna.Trial | None:
        if self.ledger.spent().all_of(self.options.budget):
            return None
        trial = self.proposals.ask(self._misses)
        self.exhausted |= trial is None
        return trial

    def _begun(self, trial: optuna.Trial) -> str | None:
        """The trial's run, handed out; None if it needs no training: passed over, known, or stopped by its past."""
        point = self.proposals.draw(trial)
        trial.set_user_attr("point", point)
        try:
            too_few = self.hunt.space.too_few(point)
            run = self.make(point) if too_few is None else None
        except Unresolvable as error:
            run, too_few = None, str(error)
        if run is None:
            self._pass_over(trial, str(too_few))
            return None
        twin = self.ledger.twin(trial.number, run.run_id)
        if twin is not None:
            self._pass_over(trial, f"the run of trial {twin}")
            return None
        self._misses = 0
        record = self.storage.record(run.run_id)
        order = replace(Order.of(run, self.places), stoppable=self.decisions.rule.kind != "none")
        gpus = order.resources.gpus_per_worker * order.workers
        self.ledger.begin(trial, run.run_id, self.options.sampler, len(record.epochs) if record else 0, gpus)
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
                self.ledger.prune(trial, record, self._curve(record))
                return True
        return False

    def _pass_over(self, trial: optuna.Trial, reason: str) -> None:
        self._misses += 1
        self.ledger.pass_over(trial, reason)

    def _decided(self, trial: optuna.Trial, line: dict[str, Any]) -> Decision | None:
        """The decision at an epoch, logged before it is acted on."""
        value = self._epoch_value(line)
        if value is None:
            return None
        goal = self.hunt.search.goals[0]
        before = len(self.decisions.log)
        decision = self.decisions.hear(trial.number, int(line["epoch"]) + 1, value if goal.maximize else -value)
        if len(self.decisions.log) > before and decision is not None:
            self.ledger.decide(trial, decision)
        return decision

    def _epoch_value(self, line: dict[str, Any]) -> float | None:
        metric = measured(self.hunt.search)[0]
        value = line.get(f"val/{metric}", line.get(f"test/{metric}"))
        return None if value is None else float(value)

    def _curve(self, record: RunRecord) -> Curve:
        values = ((int(line["epoch"]), self._epoch_value(line)) for line in record.epochs)
        return {epoch: value for epoch, value in values if value is not None}

    def _tell(self, trial: optuna.Trial, record: RunRecord) -> None:
        """A whole run: COMPLETE with its values, or FAIL with the reason why it has none."""
        values, reason = self._values(record)
        if reason is not None:
            self.ledger.fail(trial, reason, record)
        else:
            self.ledger.complete(trial, record, values, self._curve(record))

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
        else:
            self.ledger.fail(trial, "its process died before it began")

    def _mirror(self) -> None:
        """Let the sampler learn from finished runs inside the space that no trial of it has finished."""
        known = self.ledger.settled()
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
                    self.ledger.add(self.hunt.space, point, record, values)
