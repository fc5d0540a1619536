"""A cell class by class, from recorded scores: per-class accuracy and the confusion matrix, of fused cells too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console

from retable.report.values import Hole, Reader
from retable.study.plan import Plan
from retable.track.records import RunRecord
from retable.track.scores import Scores, confusion, metrics, per_class


class NoScores(LookupError):
    """There are no per-video scores to look at; the message says why."""


def of_cell(
    plan: Plan, records: Mapping[str, RunRecord], table: str, row: str, column: str | None, seed: int
) -> dict[str, Any]:
    """The classes of a cell for one seed; by default of the row's first cell that has scores.

    Raises:
        NoScores: no such cell, one that is a mean of several, or its runs are not done.
    """
    reader, why = Reader(plan, records), "it has no such cell with scores"
    for cell in plan.cells:
        if (cell.table, cell.row) != (table, row) or column not in (None, cell.column) or cell.evaluation is None:
            continue
        if plan.evaluations[cell.evaluation].kind == "mean":
            why = "a mean of several evaluations has no scores of its own"
            continue
        found = reader.scores(cell.evaluation, seed)
        if not isinstance(found, Hole):
            runs = [record.run_id for record in reader.used(cell.evaluation, [seed])]
            return document(found, f"{table}.{row}.{cell.column}", seed, runs)
        why = found.reason
    raise NoScores(f"{table}.{row}{f'.{column}' if column else ''}, seed {seed}: {why}")


def of_run(record: RunRecord) -> dict[str, Any]:
    """The classes of one run, under the first protocol that it was scored by.

    Raises:
        NoScores: there are none.
    """
    scores = next((found for view in record.evaluations if (found := record.scores(view)) is not None), None)
    if scores is None:
        raise NoScores(f"run {record.run_id} has no per-video scores here")
    return document(scores, record.run_id, record.seed, [record.run_id])


def document(scores: Scores, of: str, seed: int, runs: list[str]) -> dict[str, Any]:
    """As plain data; ``confusion[i][j]`` counts videos of class i that were taken for class j."""
    return {
        "schema": 1,
        "of": of,
        "seed": seed,
        "run_ids": runs,
        "metrics": metrics(scores),
        "classes": [asdict(found) for found in per_class(scores)],
        "confusion": confusion(scores).tolist(),
    }


def show(found: Mapping[str, Any], out: Console) -> None:
    """Print a line for each class, the best recognised first."""
    width = max(len(c["name"]) for c in found["classes"])
    out.print(f"{found['of']}, seed {found['seed']}: top-1 {found['metrics']['top1']:.1f} %", markup=False)
    out.print(f"  {'class':{width}}  videos  accuracy      AP  mostly taken for", markup=False)
    for c in sorted(found["classes"], key=lambda c: (-(c["accuracy"] or 0.0), c["name"])):
        rates = "       –       –" if c["accuracy"] is None else f"{c['accuracy']:8.1f}{c['average_precision']:8.1f}"
        out.print(f"  {c['name']:{width}}  {c['videos']:6}  {rates}  {c['taken_for'] or ''}", markup=False)
