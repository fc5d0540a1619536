"""A study and a profile -> what every cell asks for, as typed settings. Pure; faults are collected, not raised."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from retable.study.problems import YamlPath
from retable.study.resolve import Fault, Leaf, Leaves, Resolved, Unresolvable, leaves, overlay, profile_leaves, resolve
from retable.study.schema import Column, Kind, Over, Row, Study, Table


@dataclass(frozen=True)
class Score:
    """One training per seed, scored under one protocol."""

    resolved: Resolved


@dataclass(frozen=True)
class Combine:
    """Several evaluations as one: per-video scores fused with weights, or values averaged."""

    kind: Literal["fuse", "mean"]
    parts: tuple[Score | Combine, ...]
    weights: tuple[float, ...]


Tree = Score | Combine


@dataclass(frozen=True)
class Demand:
    """What one cell asks for. ``hole`` says why nothing is asked for (quoted, not in the paper, text)."""

    table: str
    row: str
    column: str
    kind: Kind
    metric: str | None = None
    tree: Tree | None = None
    static: Resolved | None = None
    hole: str | None = None


@dataclass(frozen=True)
class Demands:
    """Every cell's demand, in printed order, and the faults of those that cannot be."""

    cells: tuple[Demand, ...]
    faults: tuple[Fault, ...]


def demands(
    study: Study,
    profile: str,
    *,
    settings: Leaves | None = None,
    tables: Sequence[str] = (),
    rows: Sequence[str] = (),
) -> Demands:
    """What the cells of ``study`` ask for under ``profile``; ``tables`` and ``rows`` are globs, empty for all.

    ``settings`` are the user's own (``--set``), on top of everything.
    """
    cells: list[Demand] = []
    faults: dict[tuple[str, YamlPath, str], Fault] = {}
    for t, table in enumerate(study.tables):
        if not matches(table.id, tables):
            continue
        for r, row in enumerate(table.rows):
            if not matches(row.id, rows):
                continue
            asker = _Asker(study, profile, settings or {}, t, r)
            for name in table.columns:
                try:
                    cells.append(asker.demand(name))
                except Unresolvable as error:
                    for fault in error.faults:
                        faults.setdefault((fault.path, fault.origin, fault.message), asker.named(name, fault))
    return Demands(tuple(cells), tuple(faults.values()))


def matches(name: str, globs: Iterable[str]) -> bool:
    """Whether ``name`` fits one of the globs; no globs fit everything."""
    globs = list(globs)
    return not globs or any(fnmatch.fnmatchcase(name, g) for g in globs)


def varied_paths(study: Study) -> dict[str, YamlPath]:
    """Config paths that some measured column, row or cell varies, with the first place that does."""
    found: dict[str, YamlPath] = {}
    for t, table in enumerate(study.tables):
        at: YamlPath = ("tables", t)
        places = [(c.set, (*at, "columns", n, "set")) for n, c in table.columns.items() if c.kind != "static"]
        places += [(r.set, (*at, "rows", i, "set")) for i, r in enumerate(table.rows)]
        for i, row in enumerate(table.rows):
            measured = {n: c for n, c in row.cells.items() if table.columns[n].kind != "static"}
            places += [(c.set, (*at, "rows", i, "cells", n, "set")) for n, c in measured.items()]
            for kind, over in (("fuse_over", row.fuse_over), ("mean_over", row.mean_over)):
                if over is not None:
                    found.setdefault(over.path, (*at, "rows", i, kind, "path"))
        for settings, origin in places:
            for path, leaf in leaves(settings, origin).items():
                found.setdefault(path, leaf.origin)
    return found


@dataclass(frozen=True)
class _Asker:
    study: Study
    profile: str
    settings: Leaves
    t: int
    r: int

    @property
    def table(self) -> Table:
        return self.study.tables[self.t]

    @property
    def row(self) -> Row:
        return self.table.rows[self.r]

    def demand(self, name: str) -> Demand:
        column = self.table.columns[name]
        hole = self._hole(name, column)
        metric = column.metric or self._operand_metric(column)
        base = Demand(self.table.id, self.row.id, name, column.kind, metric, hole=hole)
        if hole is not None:
            return base
        if column.kind == "static":
            return Demand(base.table, base.row, name, "static", metric, static=self._resolve(name, {}))
        return Demand(base.table, base.row, name, column.kind, metric, tree=self._tree(name))

    def named(self, column: str, fault: Fault) -> Fault:
        """A fault of settings that do not go together also names the cell that joins them, if it stands elsewhere."""
        if "." in fault.path or fault.origin[:4] == ("tables", self.t, "rows", self.r):
            return fault
        cell = f"first asked for by {self.table.id}.{self.row.id}.{column}"
        return replace(fault, hint=f"{fault.hint}; {cell}" if fault.hint else cell)

    def _hole(self, name: str, column: Column) -> str | None:
        if column.kind == "text":
            return "text"
        if self.row.quoted is not None:
            return f"quoted from {self.row.quoted}" if self.row.quoted else "quoted"
        if name in self.row.published and self.row.published[name] is None and not column.hidden:
            return "not in the paper"
        return None

    def _operand_metric(self, column: Column) -> str | None:
        operands = [self.table.columns[n] for n in (*column.fuse, *column.mean_of)]
        return next((o.metric or self._operand_metric(o) for o in operands), None)

    def _tree(self, name: str) -> Tree:
        column = self.table.columns[name]
        if column.fuse:
            return Combine(
                "fuse", tuple(self._tree(n) for n in column.fuse), column.weights or _equal(len(column.fuse))
            )
        if column.mean_of:
            return Combine("mean", tuple(self._tree(n) for n in column.mean_of), _equal(len(column.mean_of)))
        return self._over(name, self.row.mean_over, "mean", {})

    def _over(self, name: str, over: Over | None, kind: Literal["fuse", "mean"], extra: Leaves) -> Tree:
        """Mean over its values of the fusion over its values of one training."""
        inner = self.row.fuse_over if kind == "mean" else None
        if over is None:
            return self._over(name, inner, "fuse", extra) if kind == "mean" else Score(self._resolve(name, extra))
        origin: YamlPath = ("tables", self.t, "rows", self.r, f"{kind}_over")
        parts = []
        for value in over.values:
            here = extra | {over.path: Leaf(value, origin)}
            parts.append(self._over(name, inner, "fuse", here) if kind == "mean" else Score(self._resolve(name, here)))
        return Combine(kind, tuple(parts), over.weights or _equal(len(parts)))

    def _resolve(self, name: str, extra: Leaves) -> Resolved:
        at: YamlPath = ("tables", self.t)
        row_at: YamlPath = (*at, "rows", self.r)
        column, cell = self.table.columns[name], self.row.cells.get(name)
        layers = [leaves(self.study.base, ("base",))]
        for part, origin in ((self.table, at), (column, (*at, "columns", name)), (self.row, row_at)):
            layers.append(leaves(part.set, (*origin, "set")))
            layers.append(leaves(part.protocol, (*origin, "protocol"), "protocol"))
        layers.append(leaves(cell.set, (*row_at, "cells", name, "set")) if cell else {})
        layers.append(extra)
        return resolve(
            overlay(*layers, profile_leaves(self.study, self.profile), self.settings), self.study.profiles[self.profile]
        )


def _equal(n: int) -> tuple[float, ...]:
    return (1.0 / n,) * n
