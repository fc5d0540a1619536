"""A search's importance document on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

TITLES = {"fanova": "fANOVA", "ped-anova": "PED-ANOVA"}


def tables(doc: dict[str, Any]) -> Iterator[Table]:
    """One table per objective: a line per parameter, a column per method."""
    for goal in doc["objectives"]:
        shown = Table(box=None, pad_edge=False, header_style="dim", title_justify="left")
        shown.title = f"{goal['direction']} {goal['metric']} ({goal['on']}), {doc['trials']} whole trials"
        shown.add_column("parameter", overflow="fold")
        for method in goal["methods"]:
            shown.add_column(TITLES[method], justify="right")
        found = {m: {e["parameter"]: e for e in told["parameters"]} for m, told in goal["methods"].items()}
        for name in dict.fromkeys(n for entries in found.values() for n in entries):
            shown.add_row(name, *(_share(entries.get(name)) for entries in found.values()))
        yield shown


def _share(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "–"
    around = "" if entry["low"] is None else f" ({entry['low']:.2f} to {entry['high']:.2f})"
    return f"{entry['importance']:.2f}{around}"
