"""Which searched parameters mattered, by Optuna's evaluators, and how sure that is. Works from trials as plain data.

A parameter that is searched on a logarithmic scale is measured on it: Optuna's fANOVA would weigh its linear range, of
which the trials cover next to nothing.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from retable.study.problems import Problem, StudyError
from retable.study.searches import Hunt
from retable.study.space import Parameter, SearchSpace
from retable.track.trials import TrialRecord

Method = Literal["fanova", "ped-anova"]
METHODS: tuple[Method, ...] = ("fanova", "ped-anova")
LEAST_TRIALS = 6
RESAMPLES = 50
LEVEL = 0.95
LEAST_TOP = 5
"""PED-ANOVA compares the best trials with all of them: at least so many (Optuna's advice), and a tenth."""
TREES = 32


def importance(
    name: str, hunt: Hunt, trials: Sequence[TrialRecord], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """The importance document of a search: per objective and method, each parameter's share with its interval.

    Trials that were stopped early or failed have no value under the study's protocol and are left out; the document
    says how many.

    Raises:
        StudyError: fewer than ``LEAST_TRIALS`` whole trials.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    whole = [t for t in trials if t.state in ("complete", "recorded")]
    if len(whole) < LEAST_TRIALS:
        message = f"the search has {len(whole)} whole trials: importance needs {LEAST_TRIALS} at least"
        hint = "a larger --trials goes on searching; --scheduler none lets every trial end"
        raise StudyError([Problem("search", 1, 1, name, message, hint=hint)])
    left_out = sum(t.state in ("pruned", "failed") for t in trials)
    objectives = [_objective(hunt, whole, i, resamples, seed) for i in range(len(hunt.search.goals))]
    return {
        "schema": 1,
        "search": name,
        "study": hunt.study.study,
        "profile": hunt.profile,
        "level": LEVEL,
        "resamples": resamples,
        "trials": len(whole),
        "left_out": left_out,
        "objectives": objectives,
        "footnotes": _footnotes(left_out, objectives, resamples),
    }


def _objective(hunt: Hunt, whole: Sequence[TrialRecord], index: int, resamples: int, seed: int) -> dict[str, Any]:
    goal = hunt.search.goals[index]
    study = _Asked(hunt.space, whole, index, goal.maximize is not None)
    return {
        "metric": goal.metric,
        "direction": "maximize" if goal.maximize else "minimize",
        "on": goal.on,
        "methods": {method: study.shares(method, resamples, seed) for method in METHODS},
    }


class _Asked:
    """Whole trials as Optuna's, by one objective."""

    def __init__(self, space: SearchSpace, whole: Sequence[TrialRecord], index: int, maximize: bool):
        self.parameters = {p.name: p for path in space.paths for p in space.parameters(path)}
        self.direction = StudyDirection.MAXIMIZE if maximize else StudyDirection.MINIMIZE
        self.values = [t.values[index] for t in whole]
        self.points = [space.encode(t.point) for t in whole]
        self.everywhere = [n for n in self.parameters if all(n in point for point in self.points)]
        self.top = min(0.5, max(0.1, LEAST_TOP / len(whole)))
        self.trials = [self._trial(i) for i in range(len(whole))]

    def shares(self, method: Method, resamples: int, seed: int) -> dict[str, Any]:
        """Each parameter's share, largest first, with its bootstrap interval."""
        rng = random.Random(seed)
        found = self._evaluated(method, self.trials, seed)
        drawn = [self._evaluated(method, self._resampled(rng), seed + 1 + b) for b in range(resamples)]
        listed = []
        for name, share in sorted(found.items(), key=lambda item: -item[1]):
            low, high = bounds([other.get(name, 0.0) for other in drawn])
            listed.append({"parameter": name, "importance": share, "low": low, "high": high})
        extra = {"top": self.top} if method == "ped-anova" else {}
        return {"parameters": listed, "left_out": [n for n in self.parameters if n not in found], **extra}

    def _resampled(self, rng: random.Random) -> list[FrozenTrial]:
        return rng.choices(self.trials, k=len(self.trials))

    def _evaluated(self, method: Method, trials: Sequence[FrozenTrial], seed: int) -> dict[str, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are said in the document: few trials, conditions, experimental
            study = optuna.create_study(direction=self.direction)
            study.add_trials(trials)
            found = self._evaluator(method, seed)(study)
        whole = math.fsum(found.values())
        return {name: float(value / whole) if whole > 0 else 0.0 for name, value in found.items()}

    def _evaluator(self, method: Method, seed: int) -> Callable[[optuna.Study], Mapping[str, float]]:
        if method == "ped-anova":
            ped = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=self.top)
            return lambda study: ped.evaluate(study)
        fanova = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=seed)
        return lambda study: fanova.evaluate(study, params=self.everywhere)

    def _trial(self, i: int) -> FrozenTrial:
        point = self.points[i]
        return optuna.trial.create_trial(
            params={name: _measured(self.parameters[name], value) for name, value in point.items()},
            distributions={name: _measure(self.parameters[name]) for name in point},
            value=self.values[i],
        )


def bounds(drawn: Sequence[float]) -> tuple[float | None, float | None]:
    """The middle ``LEVEL`` of resampled shares, outwards to values that occurred; none without resamples."""
    if not drawn:
        return None, None
    ordered, tail = sorted(drawn), (1 - LEVEL) / 2
    return ordered[math.floor(tail * len(ordered))], ordered[math.ceil((1 - tail) * len(ordered)) - 1]


def _measure(parameter: Parameter) -> BaseDistribution:
    return CategoricalDistribution(parameter.choices) if parameter.choices else FloatDistribution(*_range(parameter))


def _range(parameter: Parameter) -> tuple[float, float]:
    if parameter.log:
        return math.log10(parameter.low), math.log10(parameter.high)
    return float(parameter.low), float(parameter.high)


def _measured(parameter: Parameter, value: Any) -> Any:
    if parameter.choices:
        return value
    number = math.log10(value) if parameter.log else float(value)
    low, high = _range(parameter)
    return min(max(number, low), high)  # a logarithm may miss its bound by a rounding error


def _footnotes(left_out: int, objectives: Sequence[Mapping[str, Any]], resamples: int) -> list[str]:
    found = ["Shares sum to 1 for each method."]
    if resamples:
        found.append(
            f"Intervals: {LEVEL:.0%} of {resamples} resamples of the whole trials, with replacement, each with its own"
            " seed of fANOVA's forest."
        )
    if left_out:
        found.append(
            f"{left_out} trials that were stopped early or failed are left out: what they show is not counted."
        )
    conditional = objectives[0]["methods"]["fanova"]["left_out"]
    if conditional:
        names = ", ".join(conditional)
        found.append(f"fANOVA knows only parameters that every trial has: {names} is judged by PED-ANOVA alone.")
    top = objectives[0]["methods"]["ped-anova"]["top"]
    found.append(
        f"fANOVA: share of the variance over the space. PED-ANOVA: what tells the best {top:.0%} from the rest."
    )
    return found
