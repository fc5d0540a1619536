"""Which point a search tries next: Optuna's samplers, seeded so that a killed driver draws what it would have drawn."""

from __future__ import annotations

import random
import warnings
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from retable.study import identity
from retable.study.space import GRID_LIMIT, Parameter, Point, Scalar, SearchSpace

MISSES = 20
"""After so many proposals in a row that are invalid or known, a finite space's untried points are taken one by one."""
MOST_MISSES = 200
"""After so many the space counts as exhausted."""


@dataclass(frozen=True)
class Proposals:
    """Asks an Optuna study for trials and draws their points. A trial's draws depend on the seed, its number and what
    was told before, not on when its sampler was made."""

    study: optuna.Study
    space: SearchSpace
    sampler: str
    seed: int

    def ask(self, misses: int) -> optuna.Trial | None:
        """A new trial after ``misses`` proposals in a row that came to nothing; None when the space is exhausted."""
        waiting = any(t.state == TrialState.WAITING for t in self.study.get_trials(deepcopy=False))
        if not waiting and (self.sampler == "grid" or misses >= MISSES) and self.space.finite:
            point = self._untried()
            if point is None:
                return None
            self.study.enqueue_trial(self.space.encode(point))
        elif misses >= MOST_MISSES:
            return None
        self._reseed(len(self.study.get_trials(deepcopy=False)))
        return self.study.ask()

    def again(self, frozen: FrozenTrial) -> optuna.Trial:
        """A trial that a killed driver left running."""
        self._reseed(frozen.number)
        return optuna.Trial(self.study, frozen._trial_id)

    def draw(self, trial: optuna.Trial) -> Point:
        """The trial's point."""
        count = 0

        def pick(parameter: Parameter) -> Scalar:
            nonlocal count
            count += 1
            self._reseed(trial.number, count)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                value: Scalar = trial._suggest(parameter.name, distribution(parameter))
            return value

        return self.space.draw(pick)

    def _untried(self) -> Point | None:
        """A point of the finite space that has not been asked for, in an order that the seed decides."""
        points = [p for p, _ in zip(self.space.points(), range(GRID_LIMIT + 1), strict=False)]
        random.Random(self.seed).shuffle(points)
        known = {identity.canonical(t.params) for t in self.study.get_trials(deepcopy=False)}
        return next((p for p in points if identity.canonical(self.space.encode(p)) not in known), None)

    def _reseed(self, number: int, parameter: int = 0) -> None:
        seed = int(identity.digest([self.seed, number, parameter], 7), 16)
        self.study.sampler = make_sampler(self.sampler, seed, self.seed)


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
