"""What a study's parts say about each other: ids that are unique, names that exist, settings given once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from retable.study.problems import Problem, YamlPath, nearest
from retable.study.schema import Column, Settings, Study, Table
from retable.study.source import Source


def problems(study: Study, source: Source) -> Iterator[Problem]:
    """Every fault of the references inside ``study``."""
    if study.default_profile not in study.profiles:
        hint = nearest(study.default_profile, study.profiles)
        yield source.problem(("default_profile",), f"there is no profile {study.default_profile!r}", None, hint)
    first: dict[str, int] = {}
    for t, table in enumerate(study.tables):
        at: YamlPath = ("tables", t)
        if table.id in first:
            before = source.line(("tables", first[table.id], "id"))
            yield source.problem((*at, "id"), f"table id {table.id!r} is used on line {before} already", table.id)
        first.setdefault(table.id, t)
        yield from _column_problems(table, at, source)
        yield from _row_problems(table, at, source)
        yield from _tuning_problems(table, at, source)
        if table.baseline is not None and not _has_row(study, table.id, table.baseline):
            rows = [r.id for r in table.rows] + [
                f"{o.id}.{r.id}" for o in study.tables for r in o.rows if o is not table
            ]
            hint = nearest(table.baseline, rows)
            yield source.problem((*at, "baseline"), f"there is no row {table.baseline!r}", table.baseline, hint)
    yield from _renaming_problems(study, source)
    for place, settings in _settings(study):
        yield from _given_twice(settings, place, source)


def _column_problems(table: Table, at: YamlPath, source: Source) -> Iterator[Problem]:
    for name, column in table.columns.items():
        here = (*at, "columns", name, "fuse" if column.fuse else "mean_of")
        for operand in _operands(column):
            message = f"column {name!r} uses {operand!r}, which "
            if operand not in table.columns:
                message += f"is not a column of {table.id!r}"
                yield source.problem(here, message, operand, nearest(operand, table.columns))
                continue
            kind = table.columns[operand].kind
            if kind in ("static", "speed", "text") or (column.fuse and kind == "mean_of"):
                yield source.problem(
                    here, f"{message}is of kind {kind}: that has no scores to {_verb(column)}", operand
                )
        if name in _reached(table, name):
            yield source.problem(here, f"column {name!r} is made of itself")


def _tuning_problems(table: Table, at: YamlPath, source: Source) -> Iterator[Problem]:
    """Tuned columns and ``tune_rows`` need each other, and no number is made of tuned and untuned runs."""
    tuned = [name for name, column in table.columns.items() if column.tuned]
    if table.tune_rows is None:
        for name in tuned:
            message = f"column {name!r} is tuned, but table {table.id!r} has no tune_rows"
            yield source.problem((*at, "columns", name, "tuned"), message)
        return
    if not any(table.columns[name].kind in ("metric", "fuse", "mean_of") for name in tuned):
        hint = "add a column such as {metric: top1, tuned: true}"
        yield source.problem((*at, "tune_rows"), "no measured column is tuned: nothing would be searched", None, hint)
    for name, column in table.columns.items():
        mixed = [n for n in _operands(column) if n in table.columns and table.columns[n].tuned != column.tuned]
        if mixed:
            one, other = ("tuned", "untuned") if column.tuned else ("untuned", "tuned")
            message = f"column {name!r} is {one}, but is made of {mixed[0]!r}, which is {other}"
            yield source.problem((*at, "columns", name), message, None, "tuned and untuned runs are never mixed")
        if column.tuned and column.text:
            yield source.problem((*at, "columns", name, "tuned"), "printed words cannot be tuned")
    for r, row in enumerate(table.rows):
        if row.init_from is not None or (table.init_from is not None and row.quoted is None):
            where = (*at, "rows", r, "init_from") if row.init_from is not None else (*at, "init_from")
            message = f"row {row.id!r} trains in stages, which tune_rows does not search"
            yield source.problem(where, message, None, "put it into a table of its own")


def _operands(column: Column) -> tuple[str, ...]:
    return (*column.fuse, *column.mean_of)


def _verb(column: Column) -> str:
    return "fuse" if column.fuse else "average"


def _reached(table: Table, name: str) -> set[str]:
    """The columns that column ``name`` is made of, directly or not."""
    found: set[str] = set()
    new = list(_operands(table.columns[name]))
    while new:
        operand = new.pop()
        if operand not in found and operand in table.columns:
            found.add(operand)
            new += _operands(table.columns[operand])
    return found


def _row_problems(table: Table, at: YamlPath, source: Source) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for r, row in enumerate(table.rows):
        here = (*at, "rows", r)
        if row.id in first:
            before = source.line((*at, "rows", first[row.id], "id"))
            hint = "labels may repeat, ids may not"
            yield source.problem((*here, "id"), f"row id {row.id!r} is used on line {before} already", row.id, hint)
        first.setdefault(row.id, r)
        for part in ("published", "text", "cells"):
            for name in getattr(row, part):
                if name not in table.columns:
                    message = f"table {table.id!r} has no column {name!r}"
                    yield source.problem((*here, part, name), message, None, nearest(name, table.columns))


def _has_row(study: Study, table: str, reference: str) -> bool:
    table_id, dot, row_id = reference.rpartition(".")
    rows = {(t.id, row.id) for t in study.tables for row in t.rows}
    return (table_id if dot else table, row_id) in rows


def _renaming_problems(study: Study, source: Source) -> Iterator[Problem]:
    """A profile renames datasets that the study uses, and keeps different ones different."""
    used = {str(v): None for at, s in _settings(study) for path, v, _ in _leaves(s, at, "") if path == "data.dataset"}
    overs = [over for t in study.tables for row in t.rows for over in (row.fuse_over, row.mean_over) if over]
    used |= {str(v): None for over in overs if over.path == "data.dataset" for v in over.values}
    for profile, overlay in study.profiles.items():
        taken: dict[str, str] = {name: name for name in used if name not in overlay.datasets}
        for name, instead in overlay.datasets.items():
            here = ("profiles", profile, "datasets", name)
            if name not in used:
                yield source.problem(here, f"the study uses no dataset {name!r}", None, nearest(name, used))
            elif instead in taken:
                message = f"{name} and {taken[instead]} both become {instead}: their cells would all be equal"
                yield source.problem(here, message, instead, "each dataset needs one of its own")
            taken.setdefault(instead, name)


def _settings(part: Any, at: YamlPath = ()) -> Iterator[tuple[YamlPath, Mapping[str, Any]]]:
    """Every place at or below ``part`` of a study that sets config paths."""
    if isinstance(part, BaseModel):
        for name, info in type(part).model_fields.items():
            value, here = getattr(part, name), (*at, name)
            if info.annotation == Settings:
                yield here, value
            else:
                yield from _settings(value, here)
    elif isinstance(part, Mapping | tuple):
        for key, value in part.items() if isinstance(part, Mapping) else enumerate(part):
            yield from _settings(value, (*at, key))


def _given_twice(settings: Mapping[str, Any], at: YamlPath, source: Source) -> Iterator[Problem]:
    """``data.clip.frames: 8`` beside ``data: {clip: {frames: 16}}``: one of them would be passed over in silence."""
    seen: dict[str, YamlPath] = {}
    for path, _, here in _leaves(settings, at, ""):
        for other in seen:
            if path == other or path.startswith(f"{other}.") or other.startswith(f"{path}."):
                before = source.line(seen[other])
                yield source.problem(here, f"{path} is set on line {before} already", None, "set it once")
        seen[path] = here


def _leaves(tree: Mapping[str, Any], at: YamlPath, prefix: str) -> Iterator[tuple[str, Any, YamlPath]]:
    """Dotted config paths, their values and their places."""
    for key, value in tree.items():
        path, here = f"{prefix}{key}", (*at, key)
        if isinstance(value, Mapping):
            yield from _leaves(value, here, f"{path}.")
        else:
            yield path, value, here
