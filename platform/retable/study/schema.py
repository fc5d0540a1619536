"""A study file as typed data: tables as printed, and what produces each cell. Parsing only; no resolution, no I/O."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from retable.data.config import Frozen
from retable.study.metrics import MACHINE_METRICS, METRICS, STATIC_METRICS
from retable.study.problems import nearest
from retable.study.search_schema import Search, TuneRows

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Settings = dict[str, Any]
"""Dotted config paths to values: ``{"model.groups": 3}``."""

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
