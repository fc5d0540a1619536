"""The blocks ``search`` and ``tune_rows`` of a study file as typed data. Parsing only."""

from __future__ import annotations

import json
import math
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from retable.data.config import Frozen
from retable.study.metrics import RUN_METRICS, STATIC_METRICS

Whole = int
"""``int`` in classes that have a field of that name."""
FORMS = ("choice", "int", "uniform", "log_uniform", "subsets")
"""How a searched path takes its values."""


class Space(Frozen):
    """One searched config path: exactly one form. ``when`` makes it conditional on a choice that stands before it."""

    choice: tuple[Any, ...] | None = Field(None, min_length=1, description="one of these values")
    int: tuple[Whole, Whole] | None = Field(None, description="a whole number within bounds, both included")
    uniform: tuple[float, float] | None = Field(None, description="a number within bounds")
    log_uniform: tuple[float, float] | None = Field(None, description="a number within bounds, even in its logarithm")
    subsets: tuple[Any, ...] | None = Field(None, min_length=1, description="a list of some of these, in this order")
    at_least: Whole | None = Field(None, ge=1, description="subsets: how many at least; default none")
    when: dict[str, tuple[Any, ...]] = Field(
        default_factory=dict, description="searched only while these other paths have one of these values"
    )

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = {k: getattr(self, k) for k in FORMS if getattr(self, k) is not None}
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(FORMS)}")
        for form in ("int", "uniform", "log_uniform"):
            if form in given and not all(map(math.isfinite, given[form])):
                raise ValueError(f"{form} bounds must be finite, but are {list(given[form])}")
            if form in given and given[form][0] >= given[form][1]:
                raise ValueError(f"{form} bounds must increase, but are {list(given[form])}")
        if self.log_uniform and self.log_uniform[0] <= 0:
            raise ValueError(f"log_uniform needs bounds above 0, but got {self.log_uniform[0]}")
        for form in ("choice", "subsets"):
            values = [json.dumps(v, sort_keys=True) for v in given.get(form, ())]
            if len(set(values)) < len(values):
                raise ValueError(f"{form} names a value twice: {', '.join(values)}")
        if self.at_least is not None and self.at_least > len(self.subsets or ()):
            raise ValueError(f"at_least {self.at_least} needs subsets of as many values, but there are fewer")
        return self


class Objective(Frozen):
    """What a search optimises, and on which videos: ``val`` is held out of the training groups."""

    maximize: str | None = None
    minimize: str | None = None
    on: Literal["val", "test"] = "val"

    @property
    def metric(self) -> str:
        """The metric's name."""
        return str(self.maximize or self.minimize)

    @model_validator(mode="after")
    def _one_direction(self) -> Self:
        if (self.maximize is None) == (self.minimize is None):
            raise ValueError("give maximize or minimize")
        metric = self.maximize or self.minimize
        if metric not in STATIC_METRICS | RUN_METRICS:
            raise ValueError(f"unknown metric {metric!r}; known: {', '.join([*STATIC_METRICS, *RUN_METRICS])}")
        return self


class Scheduler(Frozen):
    """Which trials are stopped early: decided after ``min_epochs`` epochs, then (asha) after each ``eta`` fold."""

    kind: Literal["none", "asha", "median"] = "none"
    eta: Whole = Field(3, ge=2, description="asha: one trial in eta goes on")
    min_epochs: Whole = Field(1, ge=1)


class Budget(Frozen):
    """When a search is over: as soon as one of these is spent. What was trained before or elsewhere costs nothing."""

    trials: Whole | None = Field(None, ge=1)
    epochs: Whole | None = Field(None, ge=1, description="epochs trained for the search")
    gpu_hours: float | None = Field(None, gt=0, description="recorded hours of those epochs, times their GPUs")
    hours: float | None = Field(None, gt=0, description="hours that drivers have worked on the search, restarts added")

    @property
    def words(self) -> str:
        """``24 trials, 8 GPU-hours``."""
        given = {"trials": self.trials, "epochs": self.epochs, "GPU-hours": self.gpu_hours, "hours": self.hours}
        return " or ".join(f"{n:g} {unit}" for unit, n in given.items() if n is not None)

    @model_validator(mode="after")
    def _some_end(self) -> Self:
        if not self.words:
            raise ValueError("a budget needs trials, epochs, gpu_hours or hours")
        return self


class Search(Frozen):
    """A hyperparameter search over config paths, on top of ``base``, ``set`` and the profile."""

    space: dict[str, Space] = Field(min_length=1)
    objective: Objective | None = None
    objectives: tuple[Objective, ...] = Field((), description="several: the answer is their Pareto front")
    set: dict[str, Any] = Field(default_factory=dict)
    first: tuple[str | dict[str, Any], ...] = Field(
        (), description="tried first: rows (table.row), or a point of the space"
    )
    sampler: Literal["tpe", "random", "grid", "cmaes", "nsga2", "qmc"] = "tpe"
    scheduler: Scheduler = Scheduler()
    budget: Budget = Budget(trials=20)
    holdout: float = Field(0.2, gt=0.0, lt=0.9, description="on: val: share of the training groups; the base's, if set")

    @property
    def goals(self) -> tuple[Objective, ...]:
        """One objective or more."""
        return (self.objective,) if self.objective is not None else self.objectives

    @property
    def on(self) -> Literal["val", "test"]:
        """The videos that measured objectives are taken on."""
        return next((goal.on for goal in self.goals if goal.metric in RUN_METRICS), "val")

    @model_validator(mode="after")
    def _goals_agree(self) -> Self:
        if (self.objective is None) == (not self.objectives):
            raise ValueError("give objective, or a list of objectives")
        if len({goal.metric for goal in self.goals}) < len(self.goals):
            raise ValueError("two objectives are the same metric")
        if len({goal.on for goal in self.goals if goal.metric in RUN_METRICS}) > 1:
            raise ValueError("objectives must be on the same videos: val or test, not both")
        if all(goal.metric in STATIC_METRICS for goal in self.goals):
            raise ValueError(f"an objective must be measured: {', '.join(RUN_METRICS)}")
        if len(self.goals) > 1 and self.scheduler.kind != "none":
            raise ValueError(f"scheduler {self.scheduler.kind} ranks trials by one objective, not {len(self.goals)}")
        return self


class TuneRows(Search):
    """The same search for every own row of a table: its space on top of the row's settings, its budget for each row.

    Columns with ``tuned: true`` train what was chosen; the table's other columns train the rows as they stand.
    """

    @model_validator(mode="after")
    def _one_answer_for_each_row(self) -> Self:
        if self.objective is None:
            raise ValueError("tune_rows needs one objective: a Pareto front does not say what to train")
        if self.set:
            raise ValueError("tune_rows has no set: what trials have, the chosen values are trained with too")
        if any(isinstance(entry, str) for entry in self.first):
            raise ValueError("tune_rows begins with points, such as {recipe.lr: 1.0e-3}: every row with the same")
        return self
