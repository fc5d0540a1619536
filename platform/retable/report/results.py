"""The table document: a plan's tables filled from records, as plain data. Every format, and MLflow, is made from it.

``{"schema": 1, "study", "profile", "comparable", "seeds", "paper", "notes", "tables": [...]}`` with raw, unrounded
values. A hole always has its reason: a number in its ``notes`` that a footnote explains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from retable.data.tier import proxy_words
from retable.report import judge, verdict
from retable.report.claimed import claims_of
from retable.report.provenance import comparable, mixed_protocols, provenance
from retable.report.searching.tuning import footnote, tuning, why_not
from retable.report.speeds import Speeds, median_of
from retable.report.values import WORST_FIRST, Hole, Reader, Value
from retable.study.config import Config
from retable.study.metrics import STATIC_METRICS
from retable.study.plan import Cell, Plan
from retable.study.schema import Column, Row, Table
from retable.study.static import in_unit, static_counts
from retable.track.records import RunRecord

Counts = Callable[[Config, str], float]
COLUMNS = ("table", "row", "column", "seed", "value", "published", "unit", "metric", "run_id", "config_id", "status")


def document(
    plan: Plan,
    records: Mapping[str, RunRecord],
    *,
    seeds: Sequence[int] | None = None,
    counts: Counts = static_counts,
) -> dict[str, Any]:
    """The plan's tables with what ``records`` hold.

    Args:
        plan: what the cells ask for; provisional ids are matched with the records of whichever dataset version.
        records: by run id, from storage or from MLflow.
        seeds: only these; default every seed recorded for some row of the table.
        counts: (config, "params" or "gmacs") -> count.
    """
    reader = Reader(plan, records)
    asked = tuple(seeds) if seeds is not None else None
    tables = [t for t in plan.study.tables if any(cell.table == t.id for cell in plan.cells)]
    built = [_TableBuilder(plan, reader, table, asked, counts).build() for table in tables]
    for table in built:
        judge.judge(table, built, comparable=comparable(plan))
    for table in built:
        table["claims"] = claims_of(plan.study, table["id"], built, comparable=comparable(plan))
    return {
        "schema": 1,
        "study": plan.study.study,
        "question": plan.study.question,
        "profile": plan.profile,
        "comparable": comparable(plan),
        "seeds": sorted({seed for table in built for seed in table["seeds"]}),
        "paper": plan.study.paper.model_dump(mode="json") if plan.study.paper else None,
        "notes": list(plan.study.notes),
        "tables": built,
    }


def results(doc: Mapping[str, Any]) -> pd.DataFrame:
    """The document in long form: one line per value, and one without a value for every cell that has none.

    Columns: table, row, column, seed, value, published, unit, metric, run_id, config_id, status.
    """
    lines = []
    for table in doc["tables"]:
        metrics = {c["id"]: c["metric"] for c in table["columns"]}
        for row in table["rows"]:
            for name, cell in row["cells"].items():
                common = {k: cell[k] for k in ("published", "unit", "config_id", "status")}
                head = {"table": table["id"], "row": row["id"], "column": name, "metric": metrics[name]}
                for value in cell["values"] or [{"seed": None, "value": None, "run_id": None}]:
                    lines.append(head | common | value)
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    return frame.astype({"seed": "Int64", "value": "float64", "published": "float64"})


def decimals(table: Table, name: str) -> int:
    """Digits after the point: as the column declares, else the most that a published value of the column has."""
    column = table.columns[name]
    if column.decimals is not None:
        return column.decimals
    published = [row.published.get(name) for row in table.rows]
    digits = [len(repr(v).partition(".")[2]) for v in published if v is not None]
    return max(digits) if digits else _usual_decimals(column)


def _usual_decimals(column: Column) -> int:
    if column.metric not in STATIC_METRICS:
        return 1
    return 2 if column.unit or column.metric == "gmacs" else 0


class _Footnotes:
    """Numbers texts in the order in which they are first asked for; equal texts share a number."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        return self.numbers.setdefault(" ".join(text.split()), len(self.numbers) + 1)

    def listed(self) -> list[dict[str, Any]]:
        return [{"n": n, "text": text} for text, n in self.numbers.items()]


class _TableBuilder:
    """One table of the document."""

    def __init__(self, plan: Plan, reader: Reader, table: Table, seeds: tuple[int, ...] | None, counts: Counts):
        self.plan, self.reader, self.table, self.counts = plan, reader, table, counts
        self.cells = {(c.row, c.column): c for c in plan.cells if c.table == table.id}
        asked = [c.evaluation for c in self.cells.values() if c.evaluation is not None]
        self.seeds = seeds if seeds is not None else reader.seeds(asked)
        timed = [c.measurement for c in self.cells.values() if c.measurement is not None]
        self.speeds = Speeds(plan, timed, reader.records.values())
        self.protocols = {
            (row, name): words
            for name in table.columns
            for row, words in mixed_protocols(plan, [c for (_, n), c in self.cells.items() if n == name]).items()
        }
        self.comparable = comparable(plan)
        self.footnotes = _Footnotes()

    def build(self) -> dict[str, Any]:
        table = self.table
        notes = [self.footnotes(text) for text in table.notes]
        rows = [self.row(row) for row in table.rows if any(r == row.id for r, _ in self.cells)]
        chosen = tuning(self.plan, table)
        return {
            "id": table.id,
            "cite": table.cite,
            "caption": table.caption,
            "baseline": table.baseline,
            "seeds": list(self.seeds),
            "notes": notes,
            "columns": [self.column(name, c) for name, c in table.columns.items() if not c.hidden],
            "rows": rows,
            **({"tuning": chosen} if chosen is not None else {}),
            "footnotes": self.footnotes.listed(),
            "provenance": provenance(self.plan, self.cells.values(), self.reader, self.seeds),
        }

    def column(self, name: str, column: Column) -> dict[str, Any]:
        metric = next((c.metric for (_, n), c in self.cells.items() if n == name and c.metric), column.metric)
        return {
            "id": name,
            "label": column.label or name,
            "unit": column.unit,
            "kind": column.kind,
            "metric": metric,
            "decimals": None if column.kind == "text" else decimals(self.table, name),
            "better": column.better,
            "margin": column.margin,
        }

    def row(self, row: Row) -> dict[str, Any]:
        notes = [self.footnotes(text) for text in row.notes]
        names = [name for name, column in self.table.columns.items() if not column.hidden]
        return {
            "id": row.id,
            "label": row.label,
            "section": row.section,
            "quoted": row.quoted,
            "text": dict(row.text),
            "notes": notes,
            "cells": {name: self.cell(row, name) for name in names},
        }

    def cell(self, row: Row, name: str) -> dict[str, Any]:
        cell, column = self.cells[row.id, name], self.table.columns[name]
        settings = row.cells.get(name)
        filled: dict[str, Any] = {
            "published": row.published.get(name),
            "values": [],
            "mean": None,
            "half_width": None,
            "n": 0,
            "difference": None,
            "unit": column.unit,
            "kind": column.kind,
            "status": "text",
            "config_id": None,
            "verdict": None,
            "equivalence": None,
            "to_baseline": None,
            "notes": [self.footnotes(settings.note)] if settings is not None and settings.note else [],
        }
        if column.tuned and self.table.tune_rows is not None and cell.hole is None:
            filled["notes"] = [*filled["notes"], self.footnotes(footnote(self.table))]
        if cell.untuned:
            status, reason = why_not(self.plan.tuned.get((self.table.id, row.id)))
            return filled | {"status": status, "notes": [*filled["notes"], self.footnotes(_sentence(reason))]}
        if cell.static is not None:
            return filled | self.static(cell, cell.static, column, filled)
        if cell.measurement is not None:
            return filled | self.timed(cell.measurement, filled)
        if cell.evaluation is not None:
            if (row.id, name) in self.protocols:
                filled["notes"].append(self.footnotes(self.protocols[row.id, name]))
            return filled | self.measured(cell, cell.evaluation, filled)
        return filled if cell.hole == "text" else filled | self.hole(row, filled)

    def hole(self, row: Row, filled: dict[str, Any]) -> dict[str, Any]:
        if row.quoted is not None and filled["published"] is not None:
            return {"status": "quoted"}
        return {"status": "not in the paper", "notes": [*filled["notes"], self.footnotes("Not in the paper.")]}

    def static(self, cell: Cell, config: Config, column: Column, filled: dict[str, Any]) -> dict[str, Any]:
        try:
            value = in_unit(self.counts(config, str(cell.metric)), str(cell.metric), column.unit)
        except (ValueError, RuntimeError, LookupError) as error:  # a model that cannot be built at this size
            note = self.footnotes(_sentence(f"could not be counted: {error}"))
            return {"status": "failed", "notes": [*filled["notes"], note]}
        return {
            "values": [{"seed": None, "value": value, "run_id": None}],
            "mean": value,
            "n": 1,
            "difference": self.difference(value, filled["published"]),
            "status": "static",
        }

    def timed(self, measurement: str, filled: dict[str, Any]) -> dict[str, Any]:
        """A speed; never compared with a published one, which is of another machine."""
        found = self.speeds.read(measurement)
        if isinstance(found, Hole):
            return {"status": found.status, "notes": [*filled["notes"], self.footnotes(_sentence(found.reason))]}
        one = median_of(found)
        return {
            "values": [one],
            "mean": one["value"],
            "n": 1,
            "status": "done",
            "config_id": found.config_id,
            "notes": [*filled["notes"], self.footnotes(self.speeds.note(found))],
        }

    def measured(self, cell: Cell, evaluation: str, filled: dict[str, Any]) -> dict[str, Any]:
        read = {seed: self.reader.read(evaluation, str(cell.metric), seed) for seed in self.seeds}
        values = [v for v in read.values() if isinstance(v, Value)]
        holes = {seed: v for seed, v in read.items() if isinstance(v, Hole)}
        found = verdict.summary([v.value for v in values])
        mean = found.mean if found else None
        said = [*self.proxies(evaluation), *_reasons(holes, bool(values))]
        return {
            "values": [{"seed": v.seed, "value": v.value, "run_id": v.run_id} for v in values],
            "mean": mean,
            "half_width": found.half_width if found else None,
            "n": len(values),
            "difference": self.difference(mean, filled["published"]),
            "status": _status(values, holes),
            "config_id": self.reader.config_id(evaluation),
            "notes": sorted({*filled["notes"], *(self.footnotes(text) for text in said)}),
        }

    def proxies(self, evaluation: str) -> list[str]:
        """What is to be said of lossy copies of videos that the numbers of an evaluation come from."""
        keys = list(self.plan.trainings_of(evaluation))
        for key in keys:  # and of the trainings that they start from
            keys += [parent for parent in self.plan.trainings[key].parents if parent not in keys]
        names = dict.fromkeys(self.plan.trainings[key].config.data.dataset for key in keys)
        return [words for name in names if (words := proxy_words(name)) is not None]

    def difference(self, value: float | None, published: float | None) -> float | None:
        return value - published if self.comparable and value is not None and published is not None else None


def _status(values: Sequence[Value], holes: Mapping[int, Hole]) -> str:
    if not holes:
        return "done"
    return "partial" if values else min((hole.status for hole in holes.values()), key=WORST_FIRST.index)


def _reasons(holes: Mapping[int, Hole], partly: bool) -> list[str]:
    """One sentence per reason; it names its seeds where other seeds fare otherwise."""
    by_reason: dict[str, list[int]] = {}
    for seed, hole in holes.items():
        by_reason.setdefault(hole.reason, []).append(seed)
    if len(by_reason) == 1 and not partly:
        return [_sentence(next(iter(by_reason)))]
    return [
        f"Seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}: {_sentence(reason, upper=False)}"
        for reason, seeds in by_reason.items()
    ]


def _sentence(text: str, *, upper: bool = True) -> str:
    text = text.strip().rstrip(".")
    return f"{text[:1].upper() if upper else text[:1]}{text[1:]}."
