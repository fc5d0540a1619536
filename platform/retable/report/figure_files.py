"""Figures and the data behind them, written to a folder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from retable.report import style


def write(folder: Path, figures: Mapping[str, Figure], data: Mapping[str, Any], csv_text: str, name: str) -> list[Path]:
    """``NAME-FIGURE.png`` and ``.svg`` for each figure, ``NAME.json`` and ``NAME.csv`` for the data; what was written.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {f"{name}-{key}.{end}": style.encoded(fig, end) for key, fig in figures.items() for end in style.FORMATS}
    files[f"{name}.json"] = json.dumps(data, indent=1, ensure_ascii=False).encode() + b"\n"
    files[f"{name}.csv"] = csv_text.encode()
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return [folder / file for file in files]


def trials_csv(data: Mapping[str, Any]) -> str:
    """One line per trial: number, state, epochs, the point, the objectives."""
    paths = [axis["path"] for axis in data["axes"]]
    goals = [goal["metric"] for goal in data["objectives"]]
    lines = [
        [t["number"], t["state"], t["epochs"], *(_text(t["point"].get(path)) for path in paths), *_padded(t, goals)]
        for t in data["trials"]
    ]
    return table_csv(["trial", "state", "epochs", *paths, *goals], lines)


def table_csv(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """Comma-separated text with a header."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(lines)
    return out.getvalue()


def _padded(trial: Mapping[str, Any], goals: Sequence[str]) -> list[Any]:
    return [*map(repr, trial["values"]), *[""] * (len(goals) - len(trial["values"]))]


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
