"""A study and a profile -> what every cell asks for, as typed settings. Pure; faults are collected, not raised."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from retable.study import fusion, stages
from retable.study.problems import YamlPath
from retable.study.resolve import Fault, Leaf, Leaves, Resolved, Unresolvable, leaves, overlay, profile_leaves, resolve
from retable.study.schema import Column, InitFrom, Kind, Over, Row, Settings, Study, Table


@dataclass(frozen=True)
class Score:
    """One training per seed, scored under one protocol. ``parent``: the training that it starts from, by ``use``."""

    resolved: Resolved
    parent: Resolved | None = None
    use: Literal["weights", "features"] | None = None


@dataclass(frozen=True)
class Combine:
    """Several evaluations as one: per-video scores fused with weights, or values averaged."""

    kind: Literal["fuse", "mean"]
    parts: tuple[Score | Combine, ...]
    weights: tuple[float, ...]


Tree = Score | Combine
UNTRAINED = ("static", "speed", "text")
"""Kinds of columns that nothing is trained for."""


@dataclass(frozen=True)
class Demand:
    """What one cell asks for.

    ``tree``: trainings and what is made of their scores. ``static``: a network to count. ``speed``: a network to time;
    nothing is trained for it. ``hole`` says why nothing is asked for (quoted, not in the paper, text); ``untuned`` that
    its values have not been chosen.
    """

    table: str
    row: str
    column: str
    kind: Kind
    metric: str | None = None
    tree: Tree | None = None
    static: Resolved | None = None
    speed: Resolved | None = None
    hole: str | None = None
    untuned: bool = False


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
    tuned: Mapping[tuple[str, str], Settings] | None = None,
) -> Demands:
    """What the cells of ``study`` ask for under ``profile``; ``tables`` and ``rows`` are globs, empty for all.

    ``settings`` are the user's own (``--set``), on top of everything; below them, in tuned columns, stands what
    ``tuned`` says was chosen for the row.
    """
    cells: list[Demand] = []
    faults: dict[tuple[str, YamlPath, str], Fault] = {}
    for t, table in enumerate(study.tables):
        if not matches(table.id, tables):
            continue
        for r, row in enumerate(table.rows):
            if not matches(row.id, rows):
                continue
            asker = _Asker(study, profile, settings or {}, t, r, (tuned or {}).get((table.id, row.id)))
            for name in table.columns:
                try:
                    cells.append(asker.demand(name))
                except Unresolvable as error:
                    for fault in error.faults:
                        faults.setdefault((fault.path, fault.origin, fault.message), asker.named(name, fault))
    return Demands(tuple(cells), tuple(faults.values()))


def tuned_rows(study: Study, profile: str, settings: Leaves | None = None) -> Iterator[tuple[int, int, Leaves]]:
    """Places (table, row) of the rows that are tuned, and the settings below their points and ``--set``: those of the
    row's first tuned cell; of a fusion or a mean, its first part."""
    for t, table in enumerate(study.tables):
        for r, _ in enumerate(table.rows if table.tune_rows else ()):
            asker = _Asker(study, profile, settings or {}, t, r)
            names = [n for n, c in table.columns.items() if c.tuned and c.kind not in UNTRAINED and not asker.hole(n)]
            try:
                below = asker.first_part(names[0]) if names else None
            except Unresolvable:  # a fault of its settings, which demands has found
                continue
            if below is not None:
                yield t, r, below


def scored(tree: Tree) -> list[Resolved]:
    """The settings of every training whose scores an evaluation is made of."""
    return [tree.resolved] if isinstance(tree, Score) else [r for part in tree.parts for r in scored(part)]


def matches(name: str, globs: Iterable[str]) -> bool:
    """Whether ``name`` fits one of the globs; no globs fit everything."""
    globs = list(globs)
    return not globs or any(fnmatch.fnmatchcase(name, g) for g in globs)


def varied_paths(study: Study, tables: Sequence[str] = ()) -> dict[str, YamlPath]:
    """Config paths that some measured column, row or cell of ``tables`` (globs) varies, with the first such place."""
    found: dict[str, YamlPath] = {}
    for t, table in enumerate(study.tables):
        if not matches(table.id, tables):
            continue
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
    chosen: Settings | None = None

    @property
    def table(self) -> Table:
        return self.study.tables[self.t]

    @property
    def row(self) -> Row:
        return self.table.rows[self.r]

    def demand(self, name: str) -> Demand:
        column = self.table.columns[name]
        hole = self.hole(name)
        metric = column.metric or self._operand_metric(column)
        base = Demand(self.table.id, self.row.id, name, column.kind, metric, hole=hole)
        if hole is not None:
            return base
        if column.tuned and self.chosen is None:
            self._asked(base)  # for its faults
            return replace(base, untuned=True)
        return self._asked(base)

    def _asked(self, base: Demand) -> Demand:
        if base.kind == "static":
            return replace(base, static=self._resolve(base.column, {}))
        if base.kind == "speed":
            return replace(base, speed=self._timed(base.column))
        return replace(base, tree=self._tree(base.column))

    def _timed(self, name: str) -> Resolved:
        for kind, over in (("fuse_over", self.row.fuse_over), ("mean_over", self.row.mean_over)):
            if over is not None:
                origin: YamlPath = ("tables", self.t, "rows", self.r, kind)
                message = f"{self.table.columns[name].metric} is of one network, but this row is made of several"
                raise Unresolvable([Fault(kind, origin, message, hint=f"set {name}: null in the row's published")])
        return self._resolve(name, {})

    def named(self, column: str, fault: Fault) -> Fault:
        """A fault of settings that do not go together also names the cell that joins them, if it stands elsewhere."""
        if "." in fault.path or fault.origin[:4] == ("tables", self.t, "rows", self.r):
            return fault
        cell = f"first asked for by {self.table.id}.{self.row.id}.{column}"
        return replace(fault, hint=f"{fault.hint}; {cell}" if fault.hint else cell)

    def first_part(self, name: str) -> Leaves:
        """The settings of the first training behind a cell."""
        column, extra = self.table.columns[name], {}
        while column.fuse or column.mean_of:
            name = (*column.fuse, *column.mean_of)[0]
            column = self.table.columns[name]
        for kind, over in (("mean_over", self.row.mean_over), ("fuse_over", self.row.fuse_over)):
            if over is not None:
                extra[over.path] = Leaf(over.values[0], ("tables", self.t, "rows", self.r, kind))
        return self._leaves(name, extra)

    def hole(self, name: str) -> str | None:
        """Why the cell asks for nothing; None if it asks for something."""
        column = self.table.columns[name]
        if column.kind == "text":
            return "text"
        if self.row.quoted is not None:
            return f"quoted from {self.row.quoted}" if self.row.quoted else "quoted"
        if column.hidden:
            users = [(n, c) for n, c in self.table.columns.items() if name in (*c.fuse, *c.mean_of)]
            holes = [self.hole(n) for n, c in users]
            return "not in the paper" if holes and all(holes) else None
        if name in self.row.published and self.row.published[name] is None:
            return "not in the paper"
        return None

    def _operand_metric(self, column: Column) -> str | None:
        operands = [self.table.columns[n] for n in (*column.fuse, *column.mean_of)]
        return next((o.metric or self._operand_metric(o) for o in operands), None)

    def _tree(self, name: str) -> Tree:
        """A mean over splits stands outside: the streams of one split are fused first, whichever way they are given."""
        return self._over("mean", self.row.mean_over, {}, lambda here: self._column(name, here))

    def _column(self, name: str, extra: Leaves) -> Tree:
        column = self.table.columns[name]
        if column.fuse:
            parts = tuple(self._column(n, extra) for n in column.fuse)
            return self._fuse(parts, column.weights, ("tables", self.t, "columns", name, "fuse"))
        if column.mean_of:
            parts = tuple(self._column(n, extra) for n in column.mean_of)
            return Combine("mean", parts, _equal(len(parts)))
        return self._over("fuse", self.row.fuse_over, extra, lambda here: self._score(name, here))

    def _over(
        self, kind: Literal["fuse", "mean"], over: Over | None, extra: Leaves, inner: Callable[[Leaves], Tree]
    ) -> Tree:
        if over is None:
            return inner(extra)
        origin: YamlPath = ("tables", self.t, "rows", self.r, f"{kind}_over")
        parts = tuple(inner(extra | {over.path: Leaf(value, origin)}) for value in over.values)
        if kind == "fuse":
            return self._fuse(parts, over.weights, origin)
        return Combine(kind, parts, over.weights or _equal(len(parts)))

    def _fuse(self, parts: tuple[Tree, ...], weights: tuple[float, ...], origin: YamlPath) -> Combine:
        fusion.refuse_other_videos([resolved for part in parts for resolved in scored(part)], origin)
        return Combine("fuse", parts, weights or _equal(len(parts)))

    def _score(self, name: str, extra: Leaves) -> Score:
        start, origin = self._init_from
        if start is None or (self.study.profiles[self.profile].one_stage and not start.required):
            return Score(self._resolve(name, extra))
        earlier = leaves(start.set, (*origin, "set"))
        parent = self._resolve(name, extra | earlier, "first")
        if start.use == "features":
            extra = extra | stages.on_features(parent, (*origin, "use"))
            extra = extra | stages.of_centre_views(self._resolve(name, extra), (*origin, "use"))
        child = self._resolve(name, extra)
        stages.refuse_misfits(parent, child, start.use, (*origin, "set"))
        return Score(child, parent, start.use)

    @property
    def _init_from(self) -> tuple[InitFrom | None, YamlPath]:
        if self.row.init_from is not None:
            return self.row.init_from, ("tables", self.t, "rows", self.r, "init_from")
        return self.table.init_from, ("tables", self.t, "init_from")

    def _resolve(self, name: str, extra: Leaves, stage: Literal["first", "last"] = "last") -> Resolved:
        chosen = leaves(self.chosen or {}, ("tables", self.t, "tune_rows")) if self.table.columns[name].tuned else {}
        settings = overlay(self._leaves(name, extra, stage), chosen, self.settings)
        return resolve(settings, self.study.profiles[self.profile])

    def _leaves(self, name: str, extra: Leaves, stage: Literal["first", "last"] = "last") -> Leaves:
        """What stands below chosen values and the user's own settings."""
        at: YamlPath = ("tables", self.t)
        row_at: YamlPath = (*at, "rows", self.r)
        column, cell = self.table.columns[name], self.row.cells.get(name)
        layers = [leaves(self.study.base, ("base",))]
        for part, origin in ((self.table, at), (column, (*at, "columns", name)), (self.row, row_at)):
            layers.append(leaves(part.set, (*origin, "set")))
            layers.append(leaves(part.protocol, (*origin, "protocol"), "protocol"))
        layers.append(leaves(cell.set, (*row_at, "cells", name, "set")) if cell else {})
        layers += [extra, profile_leaves(self.study, self.profile)]
        where = self._where(name, stage, overlay(*layers, self.settings))
        return overlay(*layers, *where)

    def _where(self, name: str, stage: Literal["first", "last"], settings: Leaves) -> list[Leaves]:
        """What the profile sets for this cell alone, in the stage that yields its value or in the one before."""
        here = (self.table.id, self.row.id, name)
        at: YamlPath = ("profiles", self.profile, "where")
        return [
            leaves(where.set, (*at, i, "set"))
            for i, where in enumerate(self.study.profiles[self.profile].where)
            if where.stage in (stage, "both")
            and all(map(matches, here, (where.tables, where.rows, where.columns)))
            and all(_is_one_of(settings, path, values, (*at, i, "when")) for path, values in where.when.items())
        ]


def _is_one_of(settings: Leaves, path: str, values: tuple[Any, ...], origin: YamlPath) -> bool:
    if path not in settings:
        raise Unresolvable([Fault(path, origin, "nothing sets it, so it cannot be asked for", None, "set it in base")])
    return settings[path].value in values


def _equal(n: int) -> tuple[float, ...]:
    return (1.0 / n,) * n
