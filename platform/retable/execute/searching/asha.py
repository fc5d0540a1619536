"""Which trials are stopped early: a pure function of the epochs that were recorded and the order they were heard in.

Every decision is logged with its order before it is acted on. A driver that starts again reads the log and goes on
deciding as the one before it would have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean, median

from retable.study.search_schema import Scheduler

LEAST_PEERS = 3
"""The median rule stops nobody before this many other trials have been heard at the same epoch."""


@dataclass(frozen=True)
class Decision:
    """After ``epochs`` epochs ``trial`` had ``value`` (higher is better), and went on or not. ``order`` counts all."""

    order: int
    trial: int
    epochs: int
    value: float
    go: bool


@dataclass
class Decisions:
    """The log of a search's decisions, and the rule that adds to it. ``epochs``: of a trial that is whole."""

    rule: Scheduler
    epochs: int
    log: list[Decision] = field(default_factory=list)

    @classmethod
    def rebuilt(cls, rule: Scheduler, epochs: int, log: Iterable[Decision]) -> Decisions:
        """From decisions read back in any order."""
        return cls(rule, epochs, sorted(log, key=lambda d: d.order))

    def hear(self, trial: int, epochs: int, value: float) -> Decision | None:
        """A trial has finished its ``epochs``-th epoch with ``value``; None where nothing is decided then.

        An epoch heard again gets the decision that was made the first time.
        """
        if not self._due(epochs):
            return None
        for decision in self.log:
            if (decision.trial, decision.epochs) == (trial, epochs):
                return decision
        decision = Decision(len(self.log), trial, epochs, value, self._goes(trial, epochs, value))
        self.log.append(decision)
        return decision

    def stopped(self, trial: int) -> Decision | None:
        """The decision that stopped a trial."""
        return next((d for d in self.log if d.trial == trial and not d.go), None)

    def _due(self, epochs: int) -> bool:
        if self.rule.kind == "none" or not self.rule.min_epochs <= epochs < self.epochs:
            return False
        return self.rule.kind == "median" or epochs in rungs(self.rule, self.epochs)

    def _goes(self, trial: int, epochs: int, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.rule.kind == "asha":
            return self._among_the_best(epochs, value)
        return self._above_the_median(trial, epochs, value)

    def _among_the_best(self, epochs: int, value: float) -> bool:
        """One in ``eta`` of those heard at this rung so far goes on, at least one; equals go on too.

        Li et al., A System for Massively Parallel Hyperparameter Tuning (2020), without promotion of the stopped.
        """
        heard = sorted((_worst_nan(d.value) for d in self.log if d.epochs == epochs), reverse=True)
        places = max(1, (len(heard) + 1) // self.rule.eta)
        return len(heard) < places or value >= heard[places - 1]

    def _above_the_median(self, trial: int, epochs: int, value: float) -> bool:
        """Its best value so far reaches the median of the others' means so far.

        Golovin et al., Google Vizier (2017), section 3.2.1.
        """
        others: dict[int, list[float]] = {}
        best = value
        for d in self.log:
            if d.trial == trial:
                best = max(best, _worst_nan(d.value))
            elif d.epochs <= epochs:
                others.setdefault(d.trial, []).append(_worst_nan(d.value))
        reached = {d.trial for d in self.log if d.epochs == epochs and d.trial != trial}
        means = [fmean(others[t]) for t in reached]
        return len(means) < LEAST_PEERS or best >= median(means)


def rungs(rule: Scheduler, epochs: int) -> tuple[int, ...]:
    """After how many epochs asha decides: ``min_epochs``, then ``eta`` times as many, below ``epochs``."""
    found, rung = [], rule.min_epochs
    while rung < epochs:
        found.append(rung)
        rung *= rule.eta
    return tuple(found)


def _worst_nan(value: float) -> float:
    return -math.inf if math.isnan(value) else value
