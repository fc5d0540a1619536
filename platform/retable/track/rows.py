"""What MLflow shows of the table document: one entry per printed row, one per table. Pure: plain data, no mlflow."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from retable.study.plan import Plan
from retable.track.entries import COLOR, KIND, NOTE, VALUE_LENGTH, Entry, Files, Status, color, significant, variant
from retable.track.records import RunRecord

VERDICT, DISPLAY = "retable.verdict", "retable.display"
VS_BASELINE, PAPER_VS_BASELINE = "vs_baseline", "paper_vs_baseline"
_NUMBERS = ("mean", "half_width", "n", "published", "difference")
_HOLES = {"not in the paper": "–", "text": "", "quoted": "", "done": "", "static": ""}


def table_entries(
    plan: Plan,
    document: Mapping[str, Any],
    records: Mapping[str, RunRecord],
    table_files: Callable[[str], Files] | None = None,
) -> list[Entry]:
    """The entries of every table of the document: its rows in printed order, then itself."""
    found = []
    for table in document["tables"]:
        found += [_row(plan, table, r, records) for r in range(len(table["rows"]))]
        found.append(_table(plan, document, table, table_files))
    return found


def ours(column: str) -> str:
    """The tag with a cell's text as people read it: mean ± half-width."""
    return f"{column}/ours"


def is_text(column: Mapping[str, Any]) -> bool:
    """Whether a column holds printed words."""
    return bool(column["kind"] == "text")


def cell_text(cell: Mapping[str, Any], decimals: int | None) -> str:
    """``45.55 ± 0.67``, with both values at n = 2; ``45.55 (n = 1)``; a hole's status."""
    mean = _mean(cell)
    if mean is None:
        return _HOLES.get(str(cell["status"]), str(cell["status"]))
    digits = 2 if decimals is None else decimals
    text = f"{mean:.{digits}f}"
    if cell["kind"] == "static":
        return text
    if cell["kind"] == "speed":
        low, high = (f"{cell['values'][0][end]:.{digits}f}" for end in ("low", "high"))
        return f"{text} ({low} to {high})"
    if cell.get("half_width") is not None:
        text += f" ± {cell['half_width']:.{digits}f}"
    if cell.get("n") == 1:
        text += " (n = 1)"
    if cell.get("n") == 2:
        text += " (" + ", ".join(f"{v['value']:.{digits}f}" for v in cell["values"]) + ")"
    return text if cell["status"] in ("done", "static") else f"{text} {cell['status']}"


def _row(plan: Plan, table: Mapping[str, Any], r: int, records: Mapping[str, RunRecord]) -> Entry:
    row = table["rows"][r]
    cells: Mapping[str, Any] = row["cells"]
    tags = {
        KIND: "row",
        "retable.table": table["id"],
        "retable.row": row["id"],
        "retable.order": f"{r + 1:03d}",
        "retable.profile": variant(plan),
        VERDICT: _verdict(table, row)[:VALUE_LENGTH],
        COLOR: color(r, 0),
    }
    finals: dict[str, float] = {}
    line: list[str] = []
    for column in table["columns"]:
        if is_text(column):
            tags[column["id"]] = row["text"].get(column["id"], "")
            continue
        cell = cells[column["id"]]
        text = cell_text(cell, column.get("decimals"))
        tags[ours(column["id"])] = text
        finals |= _numbers(column, cell)
        line += [f"{column['label']} {text}"] if text else []
    run_ids = {v["run_id"] for cell in cells.values() for v in cell["values"] if v.get("run_id") in records}
    seconds = [records[run_id].cost.get("seconds", 0.0) for run_id in sorted(run_ids)]
    if seconds:
        finals["cost/seconds"] = significant(sum(seconds) / len(seconds))
    footnotes = {note["n"]: note["text"] for note in table["footnotes"]}
    numbers = dict.fromkeys([*row.get("notes", []), *(n for cell in cells.values() for n in cell["notes"])])
    if numbers:
        tags[NOTE] = "\n\n".join(footnotes[n] for n in numbers)[:VALUE_LENGTH]
    name = row_name(row)
    tags |= {DISPLAY: " · ".join(line)[:VALUE_LENGTH], "mlflow.runName": name}
    return Entry(
        key=f"row:{variant(plan)}:{table['id']}:{row['id']}",
        name=name,
        status=_status({cell["status"] for cell in cells.values()}),
        tags=tags,
        finals=finals,
        seconds=sum(seconds),
    )


def _table(
    plan: Plan, document: Mapping[str, Any], table: Mapping[str, Any], table_files: Callable[[str], Files] | None
) -> Entry:
    body = {**document, "tables": [table]}
    files = {"table.json": json.dumps(body, indent=1, ensure_ascii=False).encode() + b"\n"}
    if table_files is not None:
        files |= table_files(table["id"])
    name = f"{title(table)} (table)"
    note = table["caption"]
    labels = {column["id"]: column["label"] for column in table["columns"]}
    for order in table.get("order", []):
        note += f"\n\n{labels[order['column']]}: Kendall's tau with the published order {order['tau']:.2f}"
        note += f", {order['verdict']}." if order["verdict"] else "."
    if not document["comparable"]:
        note += f"\n\nProfile {document['profile']}: only the order of rows may be set against the published values."
    statuses = {cell["status"] for row in table["rows"] for cell in row["cells"].values()}
    return Entry(
        key=f"table:{variant(plan)}:{table['id']}",
        name=name,
        status=_status(statuses),
        tags={
            KIND: "table",
            "retable.table": table["id"],
            "retable.profile": variant(plan),
            NOTE: note[:VALUE_LENGTH],
            "mlflow.runName": name,
        },
        files=files,
    )


def row_name(row: Mapping[str, Any]) -> str:
    """The printed label, with the citation of a quoted row if the label does not hold it."""
    label, quoted = str(row["label"]), row.get("quoted") or ""
    return label if quoted in label else f"{label} {quoted}"


def title(table: Mapping[str, Any]) -> str:
    """``Table 2``, or the id of a table that the paper does not print."""
    return str(table.get("cite") or table["id"])


def _numbers(column: Mapping[str, Any], cell: Mapping[str, Any]) -> dict[str, float]:
    names = ("mean", "published") if cell["kind"] in ("static", "speed") else _NUMBERS
    values = {name: _mean(cell) if name == "mean" else cell.get(name) for name in names}
    to = cell.get("to_baseline") or {}
    values["n"] = cell.get("n") or None
    values |= {VS_BASELINE: to.get("mean"), PAPER_VS_BASELINE: to.get("published")}
    digits = max(2, column.get("decimals") or 0)
    return {f"{column['id']}/{name}": round(float(v), digits) for name, v in values.items() if v is not None}


def _mean(cell: Mapping[str, Any]) -> float | None:
    if cell.get("mean") is not None:
        return float(cell["mean"])
    static = cell["kind"] == "static" and cell["values"]
    return float(cell["values"][0]["value"]) if static else None


def _said(cell: Mapping[str, Any], column: Mapping[str, Any]) -> str:
    parts = [cell["verdict"]] if cell.get("verdict") else []
    to = cell.get("to_baseline")
    if to is not None:
        words = f"{to['mean']:+.{column['decimals']}f} against {to['row']}"
        words += f", {to['verdict']}" if to["verdict"] else ""
        if to["same_sign"] is not None:
            words += f", published {to['published']:+g}, same sign in {to['same_sign']} of {to['n']}"
        parts.append(words)
    return "; ".join(parts)


def _status(statuses: set[str]) -> Status:
    if "failed" in statuses:
        return "FAILED"
    if statuses & {"running", "partial"}:
        return "RUNNING"
    return "SCHEDULED" if "missing" in statuses else "FINISHED"


def _verdict(table: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """What the report says of the row's measured cells; where it says nothing, what became of those not done."""
    measured = [column for column in table["columns"] if column["kind"] not in ("static", "speed", "text")]
    found = {column["label"]: _said(row["cells"][column["id"]], column) for column in measured}
    if any(found.values()):
        return " · ".join((f"{k}: " if len(measured) > 1 else "") + words for k, words in found.items() if words)
    if row.get("quoted"):
        return f"quoted from {row['quoted']}"
    open_ones = [
        c["status"] for c in row["cells"].values() if c["status"] in ("failed", "running", "partial", "missing")
    ]
    return ", ".join(dict.fromkeys(open_ones))
