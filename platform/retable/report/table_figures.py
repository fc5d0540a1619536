"""The figures of tables, drawn from the document (and the runs' epochs): rows with intervals, training curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from retable.report import style
from retable.track.records import RunRecord

Json = dict[str, Any]
ACROSS = 4
MOST_PANELS = 24


def figures(doc: Mapping[str, Any], table: Json, records: Mapping[str, RunRecord]) -> dict[str, Figure]:
    """``rows-COLUMN`` for each measured column with a value of ours, ``curves-COLUMN`` where epochs were scored."""
    found: dict[str, Figure] = {}
    with style.styled():
        for column in table["columns"]:
            if column["kind"] in ("static", "text"):
                continue
            rows = rows_figure(table, column, comparable=doc["comparable"])
            lines = curves(table, column, records)
            if rows is not None:
                found[f"rows-{column['id']}"] = rows
            if lines:
                found[f"curves-{column['id']}"] = curves_figure(column, lines)
    return found


def rows_figure(table: Json, column: Json, *, comparable: bool) -> Figure | None:
    """Rows in printed order: our mean, its 95 % t-interval and every seed. None without a value of ours.

    Published values share the axis only where they may be compared; else they have a panel of their own, for the order
    of rows alone.
    """
    rows = [row for row in table["rows"] if _shown(row["cells"][column["id"]])]
    if not any(row["cells"][column["id"]]["values"] for row in rows):
        return None
    cells = [row["cells"][column["id"]] for row in rows]
    printed = any(cell["published"] is not None for cell in cells)
    apart = printed and not comparable
    figure = style.new(6.6, 1.2 + 0.32 * len(rows))
    panels = figure.subplots(1, 2 if apart else 1, sharey=True, squeeze=False)[0]
    ours = panels[-1]
    _ours(ours, cells)
    if printed:
        ys = [y for y, cell in enumerate(cells) if cell["published"] is not None]
        xs = [cells[y]["published"] for y in ys]
        label = "published"
        panels[0].plot(xs, ys, "D", mfc="none", mec=style.RED, ms=6, mew=1.3, ls="none", label=label)
    panels[0].set_yticks(range(len(rows)), [_cut(row["label"]) for row in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    named = f"{column['label']} ({column['unit']})" if column["unit"] else column["label"]
    ours.set_xlabel(f"{named}, ours" if apart else named)
    if apart:
        panels[0].set_xlabel(f"{named}, published (another scale)")
    handles: dict[str, Any] = {}
    for panel in panels:
        handles |= {label: handle for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside upper left", ncols=3)
    return figure


def curves(table: Json, column: Json, records: Mapping[str, RunRecord]) -> list[Json]:
    """Each row's runs, ``{row, label, runs: [{seed, run_id, on, epochs, values}]}``: the metric after each epoch."""
    found = []
    for row in table["rows"]:
        runs = []
        for value in row["cells"][column["id"]]["values"]:
            record = records.get(value["run_id"] or "")
            run = None if record is None else _curve(record, str(column["metric"]))
            if run is not None:
                runs.append({"seed": value["seed"], "run_id": value["run_id"]} | run)
        if runs:
            found.append({"row": row["id"], "label": row["label"], "runs": runs})
    return found[:MOST_PANELS]


def curves_figure(column: Json, lines: Sequence[Json]) -> Figure:
    """A panel per row, a line per seed."""
    across = min(ACROSS, len(lines))
    down = math.ceil(len(lines) / across)
    figure = style.new(max(3.2, 1.75 * across + 0.4), 1.55 * down + 0.5)
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for k, panel in enumerate(panels.flat):
        if k >= len(lines):
            panel.set_axis_off()
            continue
        for i, run in enumerate(lines[k]["runs"]):
            panel.plot(run["epochs"], run["values"], color=style.CYCLE[i % len(style.CYCLE)], linewidth=1.2)
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        panel.set_title(_cut(lines[k]["label"], 24), loc="left", fontsize=8)
    where = {"val": "held-out", "test": "test"}[lines[0]["runs"][0]["on"]]
    figure.supxlabel("Epoch", fontsize=9)
    figure.supylabel(f"{column['metric']} on {where} videos (%)", fontsize=9)
    return figure


def _ours(panel: Axes, cells: Sequence[Json]) -> None:
    for y, cell in enumerate(cells):
        if cell["mean"] is None:
            continue
        seeds = [v["value"] for v in cell["values"]]
        panel.plot(seeds, [y] * len(seeds), "|", color=style.SKY, ms=9, mew=1.2, ls="none", label="one seed")
        if cell["half_width"] is not None and cell["n"] > 2:
            panel.plot([cell["mean"] - cell["half_width"], cell["mean"] + cell["half_width"]], [y, y],
                       color=style.BLUE, lw=1.6, solid_capstyle="butt")  # fmt: skip
        panel.plot(
            [cell["mean"]], [y], "o", color=style.BLUE, ms=5.5, label="ours: mean (95 % interval from 3 seeds on)"
        )
    panel.grid(axis="y", visible=False)


def _curve(record: RunRecord, metric: str) -> Json | None:
    for on in ("val", "test"):
        scored = [line for line in record.epochs if f"{on}/{metric}" in line]
        if scored:
            epochs, values = [int(line["epoch"]) + 1 for line in scored], [line[f"{on}/{metric}"] for line in scored]
            return {"on": on, "epochs": epochs, "values": values}
    return None


def _shown(cell: Json) -> bool:
    return cell["mean"] is not None or cell["published"] is not None


def _cut(text: str, most: int = 34) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
