"""A study's claims set against a document's cells: what the printed values give, and what ours give seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retable.report import verdict
from retable.report.judge import seeds_of
from retable.study.claims import ClaimError, Expression, Reference, Value, parse
from retable.study.schema import Claim, Study

Json = dict[str, Any]
Cells = Mapping[Reference, Json]


def claims_of(study: Study, table: str, tables: Sequence[Json], *, comparable: bool) -> list[Json]:
    """The claims whose first cell stands in ``table``, evaluated with the cells of all ``tables``."""
    cells = {
        (t["id"], row["id"], column): cell for t in tables for row in t["rows"] for column, cell in row["cells"].items()
    }
    found = []
    for claim in study.claims:
        try:
            expression = parse(claim.value)
        except ClaimError:
            continue  # a fault of the study file, which loading reports
        references = expression.references()
        if references and references[0][0] == table:
            found.append(_evaluated(claim, expression, cells, comparable))
    return found


def _evaluated(claim: Claim, expression: Expression, cells: Cells, comparable: bool) -> Json:
    references = expression.references()
    reason = next((r for ref in references if (r := _missing(ref, cells, comparable, expression)) is not None), None)
    values = [] if reason else _values(expression, cells)
    numbers = [] if expression.is_ordering else [float(v["value"]) for v in values]
    found = verdict.summary(numbers)
    return {
        "text": claim.text,
        "value": claim.value,
        "published": claim.published,
        "printed": expression.evaluate(lambda ref: cells.get(ref, {}).get("published")),
        "values": values,
        "mean": found.mean if found else None,
        "half_width": found.half_width if found else None,
        "n": len(values),
        "verdict": _words(expression, claim, values, comparable),
        "reason": reason or (None if values else "its cells have no seed in common"),
        "note": claim.note,
    }


def _missing(reference: Reference, cells: Cells, comparable: bool, expression: Expression) -> str | None:
    cell = cells.get(reference)
    name = ".".join(reference)
    if cell is None:
        return f"{name} is not in the tables shown"
    if cell["status"] == "quoted":
        return None if comparable else f"{name} is quoted, and this profile is not compared with published values"
    if cell["kind"] == "speed" and not expression.is_ordering:
        return f"{name} is a speed, and no speed is compared with one of another machine"
    return None if cell["values"] else f"{name} has no value"


def _values(expression: Expression, cells: Cells) -> list[Json]:
    """The claim's value for each seed that all measured cells have; one without a seed if none is measured."""
    used = {ref: cells[ref] for ref in expression.references()}
    fixed = {ref: cell["published"] if cell["status"] == "quoted" else cell["mean"] for ref, cell in used.items()}
    measured = {ref: seeds_of(cell) for ref, cell in used.items() if cell["status"] != "quoted" and seeds_of(cell)}
    seeds: list[int | None] = [None]
    if measured:
        seeds = [*sorted(set.intersection(*(set(values) for values in measured.values())))]
    found: list[tuple[int | None, Value]] = []
    for seed in seeds:
        here = fixed | {ref: values[seed] for ref, values in measured.items() if seed is not None}
        found.append((seed, expression.evaluate(here.get)))
    return [{"seed": seed, "value": value} for seed, value in found if value is not None]


def _words(expression: Expression, claim: Claim, values: Sequence[Json], comparable: bool) -> str | None:
    if not values:
        return None
    seeds = "" if values[0]["seed"] is None else f" in {{}} of {len(values)} seed{'s' if len(values) > 1 else ''}"
    if expression.is_ordering:
        holds = sum(v["value"] for v in values)
        return f"holds{seeds.format(holds)}" if seeds or holds else "does not hold"
    if not claim.published:
        return None
    same = sum(v["value"] * claim.published > 0 for v in values)
    if comparable and not seeds:
        return None
    return f"same sign{seeds.format(same)}" if seeds or same else "other sign"
