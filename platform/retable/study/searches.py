"""A study's search under a profile: the points of its space as resolved settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from retable.study import cells as cells_of
from retable.study.cells import Combine, Score
from retable.study.metrics import RUN_METRICS
from retable.study.problems import YamlPath
from retable.study.resolve import Leaf, Leaves, Resolved, Unresolvable, leaves, overlay, profile_leaves, resolve
from retable.study.schema import Study
from retable.study.search_schema import Search
from retable.study.space import OutsideError, Point, SearchSpace


@dataclass(frozen=True)
class Hunt:
    """A search of a study under one profile: the study's own, or that of a ``row`` (table, row) which is tuned.

    ``settings`` are the user's own (``--set``), on top of everything. base < ``search.set`` < profile < point <
    ``--set``; for a row, what the row trains without being tuned stands below the point.
    """

    study: Study
    profile: str
    settings: Mapping[str, Any]
    row: tuple[str, str] | None = None

    @cached_property
    def search(self) -> Search:
        """Its space, objectives, sampler and budget."""
        found = self.study.search if self.row is None else self.study.table(self.row[0]).tune_rows
        assert found is not None
        return found

    @cached_property
    def at(self) -> YamlPath:
        """Where it stands in the study file."""
        if self.row is None:
            return ("search",)
        return ("tables", [table.id for table in self.study.tables].index(self.row[0]), "tune_rows")

    @property
    def words(self) -> str:
        """What it is, for people."""
        return "the study's search" if self.row is None else f"the tuning of {'.'.join(self.row)}"

    @cached_property
    def space(self) -> SearchSpace:
        return SearchSpace(self.search.space)

    def resolve(self, point: Mapping[str, Any], *, full: bool = False) -> Resolved:
        """The settings at a point; ``full``: without the hold-out, as a table's row trains it.

        Raises:
            Unresolvable: they do not make a config, as the model's or a section's own checks say.
        """
        resolved = resolve(self.leaves(point), self.study.profiles[self.profile])
        data = resolved.config.data
        if full or self.search.on == "test" or data.holdout > 0:
            return resolved
        data = data.model_copy(update={"holdout": self.search.holdout})
        return replace(resolved, config=resolved.config.model_copy(update={"data": data}))

    def leaves(self, point: Mapping[str, Any]) -> Leaves:
        """The overlaid settings at a point; ``{}`` gives those around the space."""
        values = {path: Leaf(value, (*self.at, "space", path)) for path, value in point.items()}
        return overlay(self._below, values, leaves(self.settings, ("--set",)))

    @cached_property
    def _below(self) -> Leaves:
        if self.row is None:
            profile = profile_leaves(self.study, self.profile)
            return overlay(leaves(self.study.base, ("base",)), leaves(self.search.set, ("search", "set")), profile)
        for t, r, below in cells_of.tuned_rows(self.study, self.profile, leaves(self.settings, ("--set",))):
            table = self.study.tables[t]
            if (table.id, table.rows[r].id) == self.row:
                return below
        raise KeyError(f"row {'.'.join(self.row)} is not tuned in this study")

    def first(self) -> Iterator[tuple[int, str | None, Point]]:
        """The fixed points: place in ``first``, the row that gives it, the point.

        Raises:
            FirstError: an entry is not a point of the space.
        """
        for i, entry in enumerate(self.search.first):
            try:
                if isinstance(entry, str):
                    yield i, entry, self._point_of_row(entry)
                else:
                    point = {path: leaf.value for path, leaf in leaves(entry, ()).items()}
                    self.space.encode(point)
                    self.resolve(point)
                    yield i, None, point
            except (OutsideError, Unresolvable, KeyError) as error:
                raise FirstError(i, str(error).strip("'\"")) from None

    def _point_of_row(self, name: str) -> Point:
        """The point whose config, trained on all of train, is the row's.

        Raises:
            OutsideError: there is none.
        """
        config = row_config(self.study, self.profile, name)
        point = self.space.project(config.config.model_dump(mode="json"))
        mine = self.resolve(point, full=True).config.model_dump(mode="json")
        theirs = config.config.model_dump(mode="json")
        for path, value in sorted(_flat(theirs).items()):
            if _flat(mine).get(path) != value:
                raise OutsideError(path, f"row {name} has {value!r} here, which the space does not search")
        return point


def row_hunts(study: Study, profile: str, settings: Mapping[str, Any] | None = None) -> list[Hunt]:
    """The searches of the rows that are tuned, in printed order."""
    places = ((study.tables[t], r) for t, r, _ in cells_of.tuned_rows(study, profile))
    return [Hunt(study, profile, settings or {}, (table.id, table.rows[r].id)) for table, r in places]


class FirstError(ValueError):
    """Entry number ``index`` of ``first`` cannot be tried."""

    def __init__(self, index: int, message: str):
        self.index = index
        super().__init__(message)


def row_config(study: Study, profile: str, name: str) -> Resolved:
    """What ``table.row`` trains: the settings of its first measured cell.

    Raises:
        KeyError: there is no such row, or nothing is trained for it.
    """
    table, _, row = name.partition(".")
    asked = cells_of.demands(study, profile, tables=(table,), rows=(row,)).cells
    for cell in asked:
        tree = cell.tree
        while isinstance(tree, Combine):
            tree = tree.parts[0]
        if isinstance(tree, Score):
            return tree.resolved
    raise KeyError(f"no row {name!r} is trained in this study: name it as table.row")


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {path: leaf.value for path, leaf in leaves(tree, ()).items()}


def measured(search: Search) -> tuple[str, ...]:
    """The objectives that a trained run is scored for."""
    return tuple(goal.metric for goal in search.goals if goal.metric in RUN_METRICS)
