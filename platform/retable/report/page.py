"""The report of a study: one HTML page that needs nothing else, made from the document, its figures and the records."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from retable import __version__
from retable.report import style, table_figures
from retable.report.sheet import PARTS, Json, sheet
from retable.track.records import RunRecord

TEMPLATES = Path(__file__).parent / "templates"
STATUS = {
    "done": "measured", "partial": "some seeds missing", "running": "not finished", "missing": "not run",
    "failed": "failed", "unsupported": "not supported",
}  # fmt: skip


def page(doc: Mapping[str, Any], records: Mapping[str, RunRecord], *, figures: bool = True) -> str:
    """The whole document as HTML. The same document and records give the same text.

    Args:
        doc: :func:`retable.report.results.document`.
        records: by run id; their epochs become training curves.
        figures: whether to draw them (seconds).
    """
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    tables = [_table(doc, table, records, figures=figures) for table in doc["tables"]]
    return environment.get_template("page.html.j2").render(
        doc=doc, tables=tables, parts=PARTS, version=__version__, style=Markup((TEMPLATES / "page.css").read_text())
    )


def _table(doc: Mapping[str, Any], table: Json, records: Mapping[str, RunRecord], *, figures: bool) -> dict[str, Any]:
    drawn = table_figures.figures(doc, table, records) if figures else {}
    return {
        "sheet": sheet(table),
        "groups": _groups(table),
        "claims": table["claims"],
        "cells": list(_cells(table)),
        "figures": [
            {"title": _title(name, table), "alt": _alt(name, table), "source": _source(style.encoded(f, "svg"))}
            for name, f in drawn.items()
        ],
        "provenance": table["provenance"],
    }


def _groups(table: Json) -> list[tuple[str, int]]:
    """The upper line of the head: each printed column's name, and how many parts stand below it."""
    found: list[tuple[str, int]] = []
    for head in sheet(table).heads[1:]:
        if found and found[-1][0] == head.group:
            found[-1] = head.group, found[-1][1] + 1
        else:
            found.append((head.group, 1))
    return found


def _cells(table: Json) -> list[dict[str, Any]]:
    """Every cell that is measured or should be: its values with their seeds and runs, or why there is none."""
    notes = {note["n"]: note["text"] for note in table["footnotes"]}
    found = []
    for row in table["rows"]:
        for column in table["columns"]:
            cell = row["cells"][column["id"]]
            if cell["status"] in STATUS and column["kind"] != "text":
                found.append({
                    "row": row["label"], "column": column["label"], "status": STATUS[cell["status"]],
                    "values": cell["values"], "unit": cell["unit"], "why": [notes[n] for n in cell["notes"]],
                })  # fmt: skip
    return found


def _title(name: str, table: Json) -> str:
    kind, _, column = name.partition("-")
    label = next(c["label"] for c in table["columns"] if c["id"] == column)
    return f"{label}: {'rows in printed order' if kind == 'rows' else 'training, one line per seed'}"


def _alt(name: str, table: Json) -> str:
    """What the figure shows, for who does not see it."""
    rows = ", ".join(row["label"] for row in table["rows"])
    shown = "Means with intervals" if name.startswith("rows-") else "Scores after each epoch"
    return f"{shown} of {rows}"


def _source(svg: bytes) -> str:
    """A figure as an image inside the page: its ids cannot meet another figure's."""
    return f"data:image/svg+xml;base64,{b64encode(svg).decode()}"
