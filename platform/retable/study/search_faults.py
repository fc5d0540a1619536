"""What is wrong with a study's search, with line and column: all that can be found without data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from retable.study import cells as cells_of
from retable.study.load import LoadedStudy
from retable.study.problems import Problem, YamlPath, dotted, nearest
from retable.study.resolve import Resolved, Unresolvable
from retable.study.searches import FirstError, Hunt, row_hunts
from retable.study.space import GRID_LIMIT, Point, SearchSpace, some_points

SECTIONS = ("model", "data", "recipe")
FIXED = ("data.dataset", "data.split", "data.num_classes", "data.holdout", "data.on_damage")
"""What decides on which videos a trial is scored: trials must share it to be compared."""
TOP5_CLASSES = 5
"""Scores of no more classes than this have no top-5 accuracy."""
NUMBERS_ONLY = {"cmaes": "moves through numbers", "qmc": "spreads numbers"}


def problems(loaded: LoadedStudy) -> Iterator[Problem]:
    """Every fault of a study's searches, its own and those of its tables, that can be found without data."""
    study = loaded.study
    hunts = {name: row_hunts(study, name) for name in study.profiles}
    if study.search is not None:
        hunts = {name: [Hunt(study, name, {}), *rows] for name, rows in hunts.items()}
    once = {hunt.at: hunt for found in hunts.values() for hunt in found}
    unsound = {at: [*_unsound(loaded, hunt)] for at, hunt in once.items()}
    yield from (problem for found in unsound.values() for problem in found)
    under = [p for found in hunts.values() for hunt in found if not unsound[hunt.at] for p in _under(loaded, hunt)]
    yield from {str(problem): problem for problem in under}.values()


def _unsound(loaded: LoadedStudy, hunt: Hunt) -> Iterator[Problem]:
    """What is wrong under every profile."""
    yield from _paths(loaded, hunt)
    yield from _conditions(loaded, hunt)
    message = unfit(hunt.search.sampler, hunt.space)
    if message is not None:
        yield loaded.source.problem((*hunt.at, "sampler"), message, hunt.search.sampler)


def _paths(loaded: LoadedStudy, hunt: Hunt) -> Iterator[Problem]:
    search = hunt.search
    for path in search.space:
        here = (*hunt.at, "space", path)
        section = path.partition(".")[0]
        if section not in SECTIONS or "." not in path:
            message, hint = f"a search varies {', '.join(SECTIONS)} settings, not {path!r}", nearest(section, SECTIONS)
            yield loaded.source.problem(here, message, None, hint)
        elif path in FIXED:
            yield loaded.source.problem(here, f"{path} decides which videos score a trial, so it cannot be searched")
        if path == "recipe.epochs" and search.scheduler.kind != "none":
            message = f"scheduler {search.scheduler.kind} compares trials of equally many epochs"
            yield loaded.source.problem(here, message)
        for other, line in _compared(loaded, hunt).items():
            if other == path or other.startswith(f"{path}.") or path.startswith(f"{other}."):
                message = f"line {line} varies {other} within the table: tuning {path} would undo what it compares"
                yield loaded.source.problem(here, message)
        for other in search.space:
            if path.startswith(f"{other}."):
                yield loaded.source.problem(here, f"{other} is searched as a whole already")


def _compared(loaded: LoadedStudy, hunt: Hunt) -> dict[str, int]:
    """Paths that the table of a row's search varies, with the line of the first place."""
    if hunt.row is None:
        return {}
    varied = cells_of.varied_paths(loaded.study, hunt.row[:1])
    return {path: loaded.source.line(origin) for path, origin in varied.items()}


def _conditions(loaded: LoadedStudy, hunt: Hunt) -> Iterator[Problem]:
    search, before = hunt.search, list[str]()
    for path, space in search.space.items():
        for parent, values in space.when.items():
            here = (*hunt.at, "space", path, "when", parent)
            if parent not in before:
                message = f"{parent!r} must be searched, on a line above {path}"
                yield loaded.source.problem(here, message, None, nearest(parent, before) if before else None)
                continue
            choices = search.space[parent].choice
            if choices is None:
                yield loaded.source.problem(here, f"{parent} is not a choice, so nothing can hang on its values")
                continue
            for value in values:
                if value not in choices:
                    message = f"{parent} is never {value!r}; it is one of {list(choices)}"
                    yield loaded.source.problem(here, message, value)
        before.append(path)


def unfit(sampler: str, space: SearchSpace) -> str | None:
    """Why the sampler cannot search the space; None if it can."""
    names = list(space.paths)
    if sampler == "grid":
        endless = [
            p for p in names if not space.paths[p].choice and not space.paths[p].subsets and not space.paths[p].int
        ]
        if endless:
            return f"sampler grid needs finitely many values, which {endless[0]} has not: give a choice or an int"
        if sum(1 for _, _ in zip(space.points(), range(GRID_LIMIT + 1), strict=False)) > GRID_LIMIT:
            return f"sampler grid would try more than {GRID_LIMIT} points: use tpe or random, or fewer values"
    if sampler in NUMBERS_ONLY:
        why = NUMBERS_ONLY[sampler]
        words = [p for p in names if space.paths[p].choice is not None or space.paths[p].subsets is not None]
        if words:
            return f"sampler {sampler} {why}, but {words[0]} is a choice: use tpe, random, nsga2 or grid"
        if any(space.paths[p].when for p in names):
            return f"sampler {sampler} {why} that are all there in every trial, without `when`: use tpe or random"
        if sampler == "cmaes" and len(names) < 2:
            return f"sampler cmaes needs two paths or more, but there is only {names[0]}: use tpe"
    return None


def _under(loaded: LoadedStudy, hunt: Hunt) -> Iterator[Problem]:
    """Values that no config can have, fixed points outside the space, and spaces without a valid point."""
    faulty = [*_values(loaded, hunt)]
    if faulty:
        yield from faulty
        return
    try:
        for _ in hunt.first():
            pass
    except FirstError as error:
        yield loaded.source.problem((*hunt.at, "first", error.index), f"{error} (profile {hunt.profile})")
    sound = next(some_points(hunt.space, 64, lambda point: _fits(hunt, point)), None)
    if sound is not None:
        yield from _unreported(loaded, hunt, hunt.resolve(sound))
    else:
        fault = _fault(hunt, next(some_points(hunt.space, 1), {}))
        message = f"no point of the space makes a valid config under profile {hunt.profile!r}, such as: {fault}"
        yield loaded.source.problem((*hunt.at, "space"), message)


def _unreported(loaded: LoadedStudy, hunt: Hunt, resolved: Resolved) -> Iterator[Problem]:
    """Objectives that scores of this dataset do not have."""
    classes = resolved.config.data.num_classes or 0
    for i, goal in enumerate(hunt.search.goals):
        if goal.metric == "top5" and classes <= TOP5_CLASSES:
            place = ("objective",) if hunt.search.objective is not None else ("objectives", i)
            message = (
                f"top5 is not reported of {classes} classes (profile {hunt.profile}), only of more than {TOP5_CLASSES}"
            )
            yield loaded.source.problem((*hunt.at, *place), message, None, "take top1")


def _values(loaded: LoadedStudy, hunt: Hunt) -> Iterator[Problem]:
    """Values that are wrong by themselves: unknown paths, wrong types, out of the setting's own range."""
    for path, space in hunt.search.space.items():
        context = {parent: values[0] for parent, values in space.when.items()}
        for at, value in _samples(path, hunt):
            try:
                hunt.resolve({**context, path: value})
            except Unresolvable as error:
                for fault in error.faults:
                    if fault.path == path or fault.path.startswith(f"{path}."):
                        found = loaded.source.problem((*hunt.at, "space", path, *at), fault.message, value, fault.hint)
                        yield replace(found, path=f"{dotted((*hunt.at, 'space'))}: {path}")


def _samples(path: str, hunt: Hunt) -> Iterator[tuple[YamlPath, Any]]:
    space = hunt.search.space[path]
    if space.choice is not None:
        yield from ((("choice", i), value) for i, value in enumerate(space.choice))
    elif space.subsets is not None:
        yield from ((("subsets", i), [value]) for i, value in enumerate(space.subsets))
    else:
        form = "int" if space.int else "uniform" if space.uniform else "log_uniform"
        yield from (((form, i), value) for i, value in enumerate(getattr(space, form)))


def _fits(hunt: Hunt, point: Point) -> bool:
    return _fault(hunt, point) is None


def _fault(hunt: Hunt, point: Point) -> str | None:
    try:
        hunt.resolve(point)
    except Unresolvable as error:
        return str(error)
    return None
