"""Draws a plan's tables: fills the document, and writes figures and their data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retable.report import figure_files, table_figures
from retable.report.results import document, results
from retable.study.plan import Plan
from retable.track.records import RunRecord


def draw(plan: Plan, records: Mapping[str, RunRecord], folder: Path, seeds: Sequence[int] | None = None) -> list[Path]:
    """Write every table's figures, the table with its curves as JSON, and its values as CSV. What was written.

    Raises:
        OSError: the folder cannot be written.
    """
    doc = document(plan, records, seeds=seeds)
    written = []
    for table in doc["tables"]:
        one: dict[str, Any] = {**doc, "tables": [table]}
        curves = {c["id"]: table_figures.curves(table, c, records) for c in table["columns"] if c["kind"] == "metric"}
        csv = results(one).to_csv(index=False, lineterminator="\n")
        drawn = table_figures.figures(doc, table, records)
        written += figure_files.write(folder, drawn, one | {"curves": curves}, csv, table["id"])
    return written
