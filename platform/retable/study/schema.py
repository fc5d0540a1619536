"""A study file as typed data: tables as printed, and what produces each cell. Parsing only; no resolution, no I/O."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from retable.data.config import Frozen
from retable.study.problems import nearest

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Settings = dict[str, Any]
"""Dotted config paths to values: ``{"model.groups": 3}``."""

Whole = int
"""``int`` in classes that have a field of that name."""
FORMS = ("choice", "int", "uniform", "log_uniform", "subsets")
"""How a searched path takes its values."""

STATIC_METRICS = {"params": "parameters of the model", "gmacs": "multiply-accumulates of one view, 1e9"}
RUN_METRICS = {
    "top1": "top-1 accuracy, %",
    "top5": "top-5 accuracy, %",
    "mean_class": "mean of per-class top-1 accuracies, %",
    "map": "mean average precision over classes (videos may have several labels), %",
}
MACHINE_METRICS = {
    "videos_per_second": "test videos per second, from the loader to their scores; nothing is trained for it",
    "ms_per_video": "milliseconds from a video's decoded frames to its scores; nothing is trained for it",
}
METRICS = STATIC_METRICS | RUN_METRICS | MACHINE_METRICS
Kind = Literal["static", "metric", "speed", "fuse", "mean_of", "text"]


class Paper(Frozen):
    """Where the tables stand."""

    title: str
    authors: str | None = None
    venue: str | None = None
    year: int | None = None
    doi: str | None = None


class Column(Frozen):
    """One printed column. Exactly one of ``metric``, ``fuse``, ``mean_of`` and ``text`` says what fills it."""

    metric: str | None = Field(None, description=", ".join(METRICS))
    fuse: tuple[str, ...] = Field((), description="columns whose runs' scores are averaged (two-stream)")
    weights: tuple[float, ...] = Field((), description="weights of fuse; default equal")
    mean_of: tuple[str, ...] = Field((), description="columns whose values are averaged (splits)")
    text: bool = Field(False, description="printed words from each row's text")
    label: str | None = None
    unit: str = ""
    decimals: int | None = Field(
        None, ge=0, le=6, description="digits as printed; default: those of the published values"
    )
    margin: float | None = Field(
        None, gt=0, description="largest difference from a published value that still reproduces it; none: no verdict"
    )
    better: Literal["higher", "lower"] = "higher"
    hidden: bool = Field(False, description="only an operand of fuse or mean_of; not printed")
    tuned: bool = Field(False, description="with the values that the table's tune_rows has chosen for the row")
    set: Settings = Field(default_factory=dict)
    protocol: Settings = Field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """What fills the column's cells."""
        if self.text:
            return "text"
        if self.fuse:
            return "fuse"
        if self.mean_of:
            return "mean_of"
        if self.metric in MACHINE_METRICS:
            return "speed"
        return "static" if self.metric in STATIC_METRICS else "metric"

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, metric: str | None) -> str | None:
        if metric is not None and metric not in METRICS:
            raise ValueError(f"unknown metric {metric!r}; {nearest(metric, METRICS)}")
        return metric

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [n for n in ("fuse", "mean_of", "text") if getattr(self, n)]
        if len(given) > 1 or (self.text and self.metric):
            raise ValueError(f"a column is one of metric, fuse, mean_of, text, but this one has {' and '.join(given)}")
        if not given and self.metric is None:
            raise ValueError("a column needs metric, fuse, mean_of or text")
        if self.weights and len(self.weights) != len(self.fuse):
            raise ValueError(f"{len(self.weights)} weights for {len(self.fuse)} fused columns")
        return self


class CellSettings(Frozen):
    """What only this cell has: settings beyond its row and column, and a footnote."""

    set: Settings = Field(default_factory=dict)
    note: str | None = None


class Over(Frozen):
    """One config path taking several values: fused (``fuse_over``) or averaged (``mean_over``)."""

    path: str
    values: tuple[Any, ...] = Field(min_length=2)
    weights: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        if self.weights and len(self.weights) != len(self.values):
            raise ValueError(f"{len(self.weights)} weights for {len(self.values)} values")
        return self


class InitFrom(Frozen):
    """The run starts from another one, which has this one's settings with ``set`` on top: an earlier stage.

    ``weights``: training begins with the other run's final weights. ``features``: the other run's network stays frozen
    and is run once over a centre view of each video (and its mirror image, with ``recipe.flip``), or over as many
    random training views as ``recipe.feature_views`` says; what is trained is the model with ``head_only``, on these
    features.
    """

    set: Settings = Field(min_length=1)
    use: Literal["weights", "features"] = "weights"
    required: bool = Field(False, description="no profile may train it in one stage instead")


class Row(Frozen):
    """One printed row. ``quoted`` rows cite other work and are never run.

    ``published`` holds the paper's values by column; ``null`` says that the paper prints none there, and then the cell
    is not run either. A column that ``published`` leaves out is run and printed without a published value.
    """

    id: Identifier
    label: str
    section: str | None = None
    quoted: str | None = Field(None, description="the citation as printed, such as [22]; the row is not run")
    set: Settings = Field(default_factory=dict)
    protocol: Settings = Field(default_factory=dict)
    fuse_over: Over | None = None
    mean_over: Over | None = None
    init_from: InitFrom | None = Field(None, description="instead of the table's")
    published: dict[str, float | None] = Field(default_factory=dict)
    text: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    cells: dict[str, CellSettings] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _quoted_is_not_run(self) -> Self:
        if self.quoted is not None and (
            self.set or self.protocol or self.fuse_over or self.mean_over or self.init_from
        ):
            message = "so it cannot have set, protocol, init_from or *_over"
            raise ValueError(f"row {self.id!r} is quoted from {self.quoted}, {message}")
        return self


class Table(Frozen):
    """One table as printed."""

    id: Identifier
    caption: str
    cite: str | None = Field(None, description="where it stands in the paper; none for tables beyond the paper")
    baseline: str | None = Field(None, description="row (or table.row) that differences are paired with")
    columns: dict[Identifier, Column]
    rows: tuple[Row, ...] = Field(min_length=1)
    set: Settings = Field(default_factory=dict)
    protocol: Settings = Field(default_factory=dict)
    init_from: InitFrom | None = Field(None, description="an earlier stage of every row's training")
    tune_rows: TuneRows | None = Field(None, description="the same search for every own row, for the tuned columns")
    notes: tuple[str, ...] = ()

    def row(self, row_id: str) -> Row:
        """The row with this id (KeyError if there is none)."""
        for row in self.rows:
            if row.id == row_id:
                return row
        raise KeyError(row_id)


class Where(Frozen):
    """What a profile sets for some cells only (globs; empty for all), on top of its other settings."""

    tables: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    stage: Literal["last", "first", "both"] = Field("last", description="of trainings with init_from, which of the two")
    when: dict[str, tuple[Any, ...]] = Field(
        default_factory=dict, description="only where these other paths have one of these values (the paper's datasets)"
    )
    set: Settings = Field(min_length=1)


class Profile(Frozen):
    """A named overlay on every config of the study: other datasets, sizes, recipes or machines."""

    datasets: dict[str, str] = Field(default_factory=dict, description="dataset of the paper -> dataset used instead")
    model: Settings = Field(default_factory=dict)
    data: Settings = Field(default_factory=dict)
    recipe: Settings = Field(default_factory=dict)
    protocol: Settings = Field(default_factory=dict)
    resources: Settings = Field(default_factory=dict)
    where: tuple[Where, ...] = ()
    one_stage: bool = Field(False, description="train at once, from the start, what init_from trains in stages")
    note: str | None = None

    @property
    def comparable(self) -> bool:
        """Whether its accuracies may be set against published ones: same datasets, model sizes, clips and stages."""
        parts = {path.split(".")[0] for where in self.where for path in where.set}
        return not (self.datasets or self.model or self.data or self.one_stage or parts & {"model", "data"})


class Claim(Frozen):
    """A sentence of the paper and the arithmetic on table cells that it asserts."""

    text: str
    value: str = Field(description='such as "table5.msf-fsam.top1 - table5.r3d.top1"')
    published: float | None = None
    note: str | None = None


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
    set: Settings = Field(default_factory=dict)
    first: tuple[str | Settings, ...] = Field((), description="tried first: rows (table.row), or a point of the space")
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


class Study(Frozen):
    """A whole study file."""

    study: Identifier
    question: str | None = None
    default_profile: str
    paper: Paper | None = None
    base: Settings
    profiles: dict[Identifier, Profile]
    tables: tuple[Table, ...] = Field(min_length=1)
    claims: tuple[Claim, ...] = ()
    search: Search | None = None
    notes: tuple[str, ...] = ()

    def table(self, table_id: str) -> Table:
        """The table with this id (KeyError if there is none)."""
        for table in self.tables:
            if table.id == table_id:
                return table
        raise KeyError(table_id)
