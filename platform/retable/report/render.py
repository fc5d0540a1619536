"""The document in one of the printed formats. The same document always gives the same bytes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any, Literal

from retable.report import latex, markdown, terminal
from retable.report.sheet import Json, sheet

Format = Literal["terminal", "md", "latex", "csv", "json"]
WIDTH = 100
CSV_COLUMNS = (
    *("table", "row", "label", "quoted", "column", "metric", "unit", "status", "published", "mean", "half_width", "n"),
    *("values", "difference", "verdict", "text", "notes"),
)


def render(doc: Mapping[str, Any], format_: Format, *, width: int | None = None) -> str:
    """The whole document as text that ends with a newline. ``width``: columns of the terminal; default 100."""
    if format_ == "json":
        return json.dumps(doc, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if format_ == "csv":
        return _csv(doc)
    sheets = [sheet(table) for table in doc["tables"]]
    notes = tuple(" ".join(str(note).split()) for note in doc["notes"])
    if format_ == "terminal":
        return terminal.lay_out(sheets, notes, width or WIDTH)
    return markdown.lay_out(sheets, notes) if format_ == "md" else latex.lay_out(sheets, notes)


def _csv(doc: Mapping[str, Any]) -> str:
    """One line per cell, with raw values; several values are separated by spaces, notes by `` | ``."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for table in doc["tables"]:
        footnotes = {note["n"]: note["text"] for note in table["footnotes"]}
        for row in table["rows"]:
            for column in table["columns"]:
                writer.writerow(_csv_line(table, row, column, footnotes))
    return out.getvalue()


def _csv_line(table: Json, row: Json, column: Json, footnotes: Mapping[int, str]) -> Json:
    cell = row["cells"][column["id"]]
    kept = {name: cell[name] for name in CSV_COLUMNS if name in cell and name not in ("values", "notes")}
    return {name: value for name, value in kept.items() if value is not None} | {
        "table": table["id"],
        "row": row["id"],
        "label": row["label"],
        "quoted": row["quoted"] or "",
        "column": column["id"],
        "metric": column["metric"] or "",
        "values": " ".join(repr(v["value"]) for v in cell["values"]),
        "text": row["text"].get(column["id"], ""),
        "notes": " | ".join(footnotes[n] for n in (*row["notes"], *cell["notes"])),
    }
