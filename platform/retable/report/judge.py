"""Fills a table of the document with what may be said: equivalence, differences to the baseline, order of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retable.report import verdict
from retable.report.power import seeds_needed

Json = dict[str, Any]


def judge(table: Json, tables: Sequence[Json], *, comparable: bool) -> None:
    """Set ``verdict``, ``equivalence`` and ``to_baseline`` of the cells and ``order`` of the table, in place.

    Holm's adjustment is over the table, for each question by itself: within the margin, beyond it, other than the
    baseline. Where the profile is not comparable, only order and signs are looked at.
    """
    cells = [(row, column, row["cells"][column["id"]]) for row in table["rows"] for column in table["columns"]]
    if comparable:
        _equivalence([(column, cell) for _, column, cell in cells])
        for _, column, cell in cells:
            if cell["status"] == "static" and cell["published"] is not None:
                cell["verdict"] = _printed(column, cell)
    baseline = _baseline(table, tables)
    if baseline is not None:
        _differences([(row, column, cell) for row, column, cell in cells if row is not baseline], baseline)
    table["order"] = [found for column in table["columns"] if (found := _order(table, column)) is not None]


def seeds_of(cell: Mapping[str, Any]) -> dict[int, float]:
    """The cell's values by seed (empty for a static cell)."""
    return {v["seed"]: v["value"] for v in cell["values"] if v["seed"] is not None}


def same_print(a: float, b: float, decimals: int) -> bool:
    """Whether two numbers print alike, with as many digits as ``b`` has, at least ``decimals``."""
    digits = max(decimals, len(repr(b).partition(".")[2]) if not float(b).is_integer() else 0)
    return f"{a:.{digits}f}" == f"{b:.{digits}f}"


def _printed(column: Json, cell: Json) -> str:
    return "as printed" if same_print(cell["mean"], cell["published"], column["decimals"]) else "differs"


def _equivalence(cells: Sequence[tuple[Json, Json]]) -> None:
    tested = []
    for column, cell in cells:
        if column["margin"] is None or cell["published"] is None:
            continue
        found = verdict.closeness(list(seeds_of(cell).values()), cell["published"], column["margin"])
        if found is not None:
            tested.append((column["margin"], cell, found))
    within = verdict.holm([found.p_within for _, _, found in tested])
    beyond = verdict.holm([found.p_beyond for _, _, found in tested])
    for (margin, cell, _), p_within, p_beyond in zip(tested, within, beyond, strict=True):
        cell["equivalence"] = {"margin": margin, "p_within": p_within, "p_beyond": p_beyond}
        cell["verdict"] = verdict.closeness_words(cell["n"], margin, p_within, p_beyond)


def _baseline(table: Json, tables: Sequence[Json]) -> Json | None:
    if table["baseline"] is None:
        return None
    table_id, dot, row_id = table["baseline"].rpartition(".")
    home = table if not dot else next((t for t in tables if t["id"] == table_id), None)
    return next((row for row in home["rows"] if row["id"] == row_id), None) if home else None


def _differences(cells: Sequence[tuple[Json, Json, Json]], baseline: Json) -> None:
    tested: list[tuple[Json, verdict.Summary, float]] = []
    for _, column, cell in cells:
        base = baseline["cells"].get(column["id"])
        if base is None or column["kind"] in ("static", "speed", "text"):
            continue
        found = verdict.paired(seeds_of(cell), seeds_of(base))
        if found is None:
            continue
        cell["to_baseline"] = _to_baseline(found, baseline, cell["published"], base["published"])
        p = verdict.p_not_zero(found.values)
        if p is not None:
            tested.append((cell["to_baseline"], found, p))
    for (entry, found, _), p in zip(tested, verdict.holm([p for _, _, p in tested]), strict=True):
        entry |= {"p": p, "verdict": verdict.difference_words(found, p)}
        if not verdict.decided(found.n, p):
            entry["seeds_needed"] = seeds_needed(found.values, tests=len(tested))


def _to_baseline(found: verdict.Summary, row: Json, published: float | None, base: float | None) -> Json:
    printed = published - base if published is not None and base is not None else None
    same = None if not printed else sum((value > 0) == (printed > 0) and value != 0 for value in found.values)
    return {
        "row": row["id"],
        "label": row["label"],
        "mean": found.mean,
        "half_width": found.half_width,
        "n": found.n,
        "published": printed,
        "same_sign": same,
        "p": None,
        "verdict": None,
        "seeds_needed": None,
    }


def _order(table: Json, column: Json) -> Json | None:
    if column["kind"] == "text":
        return None
    cells = {row["id"]: row["cells"][column["id"]] for row in table["rows"]}
    published = {row: cell["published"] for row, cell in cells.items() if cell["published"] is not None}
    if column["kind"] in ("static", "speed"):
        ours = {row: {0: cell["mean"]} for row, cell in cells.items() if cell["mean"] is not None}
    else:
        ours = {row: seeds_of(cell) for row, cell in cells.items()}
    found = verdict.order(ours, published)
    if found is None:
        return None
    exact = column["kind"] in ("static", "speed")
    words = ("same order" if found.tau == 1 else "other order") if exact else verdict.order_words(found)
    words = None if column["kind"] == "speed" else words  # one machine, and another one than the paper's
    return {
        "column": column["id"],
        "rows": found.rows,
        "tau": found.tau,
        "by_seed": [] if exact else [{"seed": seed, "tau": tau} for seed, tau in found.by_seed],
        "low": found.low,
        "high": found.high,
        "verdict": words,
    }
