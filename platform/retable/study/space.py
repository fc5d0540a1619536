"""A search space: what may be drawn, in which order, under which conditions. Samplers live elsewhere."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from retable.study.search_schema import Space

Point = dict[str, Any]
"""Config paths to values: the paths of the space that are searched there, conditions considered."""
Scalar = bool | int | float | str | None
GRID_LIMIT = 4096
"""The most points that are listed one by one."""
Pick = Callable[["Parameter"], Scalar]
"""Chooses a parameter's value: a sampler's suggestion."""


class OutsideError(ValueError):
    """A point that the space does not hold; ``path`` says where it leaves it."""

    def __init__(self, path: str, message: str):
        self.path = path
        super().__init__(f"{path}: {message}")


@dataclass(frozen=True)
class Parameter:
    """One dimension as a sampler sees it: ``choices``, or numbers from ``low`` to ``high``.

    A path has one, or, as ``subsets``, one yes or no per member (``member``). Choices that are lists are their JSON
    text here, since a sampler's storage holds scalars only.
    """

    name: str
    path: str
    choices: tuple[Scalar, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False
    member: bool = False

    def holds(self, value: Scalar) -> bool:
        """Whether ``value`` may be picked."""
        if self.choices:
            return any(_same(value, choice) for choice in self.choices)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high and (not self.whole or value == int(value))  # type: ignore[operator,arg-type]


@dataclass(frozen=True)
class SearchSpace:
    """The ``space:`` of a search."""

    paths: Mapping[str, Space]

    def active(self, path: str, point: Mapping[str, Any]) -> bool:
        """Whether ``path`` is searched where the paths before it have the values in ``point``."""
        conditions = self.paths[path].when.items()
        return all(p in point and any(_same(point[p], v) for v in values) for p, values in conditions)

    def parameters(self, path: str) -> tuple[Parameter, ...]:
        """The dimensions of one path."""
        space = self.paths[path]
        if space.choice is not None:
            return (Parameter(path, path, choices=tuple(_encoded(v) for v in space.choice)),)
        if space.subsets is not None:
            return tuple(
                Parameter(f"{path}[{_encoded(v)}]", path, choices=(False, True), member=True) for v in space.subsets
            )
        low, high = space.int or space.uniform or space.log_uniform or (0, 0)
        log = space.log_uniform is not None
        return (Parameter(path, path, low=low, high=high, whole=space.int is not None, log=log),)

    def draw(self, pick: Pick) -> Point:
        """The point that ``pick`` chooses, parameter by parameter, in the order of the study file."""
        point: Point = {}
        for path, space in self.paths.items():
            if not self.active(path, point):
                continue
            picked = [pick(parameter) for parameter in self.parameters(path)]
            if space.choice is not None:
                point[path] = next(v for v in space.choice if _same(_encoded(v), picked[0]))
            elif space.subsets is not None:
                point[path] = [v for v, taken in zip(space.subsets, picked, strict=True) if taken]
            else:
                point[path] = picked[0]
        return point

    def encode(self, point: Mapping[str, Any]) -> dict[str, Scalar]:
        """What a sampler would have had to pick for ``point``, by parameter name.

        Raises:
            OutsideError: the space does not hold it.
        """
        known: Point = {}
        found: dict[str, Scalar] = {}
        for path in self.paths:
            if not self.active(path, known):
                continue
            if path not in point:
                raise OutsideError(path, "has no value")
            known[path] = point[path]
            found |= self._encoded(path, point[path])
        for path in point:
            if path not in known:
                raise OutsideError(path, "is not searched here" if path in self.paths else "is not in the space")
        return found

    def project(self, config: Mapping[str, Any]) -> Point:
        """The point at which ``config`` (a resolved config as plain data) stands, or would stand.

        Raises:
            OutsideError: a value is not in the space.
        """
        point: Point = {}
        for path in self.paths:
            if self.active(path, point):
                point[path] = _at(config, path)
        self.encode(point)
        return point

    def too_few(self, point: Mapping[str, Any]) -> str | None:
        """Why the point is not proposed although every parameter is in the space; None if it is."""
        for path, value in point.items():
            least = self.paths[path].at_least
            if least is not None and len(value) < least:
                return f"{path}: {value} has fewer than {least}"
        return None

    @property
    def finite(self) -> bool:
        """Whether it has finitely many points."""
        return all(s.uniform is None and s.log_uniform is None for s in self.paths.values())

    def points(self) -> Iterator[Point]:
        """Every point of a finite space, last path fastest."""
        yield from self._below({}, list(self.paths))

    def _below(self, point: Point, rest: list[str]) -> Iterator[Point]:
        if not rest:
            if self.too_few(point) is None:
                yield dict(point)
            return
        path, *rest = rest
        if not self.active(path, point):
            yield from self._below(point, rest)
            return
        for value in self._values(path):
            yield from self._below({**point, path: value}, rest)

    def _values(self, path: str) -> Iterator[Any]:
        space = self.paths[path]
        if space.choice is not None:
            yield from space.choice
        elif space.subsets is not None:
            for taken in itertools.product((False, True), repeat=len(space.subsets)):
                yield [v for v, t in zip(space.subsets, taken, strict=True) if t]
        else:
            assert space.int is not None
            yield from range(space.int[0], space.int[1] + 1)

    def _encoded(self, path: str, value: Any) -> dict[str, Scalar]:
        space, parameters = self.paths[path], self.parameters(path)
        if space.subsets is not None:
            members = [_encoded(v) for v in space.subsets]
            taken = [_encoded(v) for v in value] if isinstance(value, list | tuple) else [None]
            if [m for m in members if m in taken] != taken:
                raise OutsideError(path, f"{value!r} is not a subset, in their order, of {list(space.subsets)}")
            return {p.name: m in taken for p, m in zip(parameters, members, strict=True)}
        parameter, scalar = parameters[0], _encoded(value)
        if not parameter.holds(scalar):
            bounds = list(space.choice) if space.choice is not None else [parameter.low, parameter.high]
            raise OutsideError(path, f"{value!r} is not within {bounds}")
        if parameter.choices:
            return {parameter.name: next(c for c in parameter.choices if _same(c, scalar))}
        return {parameter.name: int(scalar) if parameter.whole else float(scalar)}  # type: ignore[arg-type]


def some_points(space: SearchSpace, count: int, keep: Callable[[Point], bool] = lambda point: True) -> Iterator[Point]:
    """Up to ``count`` points, drawn evenly (always the same), or all of a small space: what ``keep`` keeps."""
    few = list(zip(range(count), space.points(), strict=False)) if space.finite else []
    rng = random.Random(0)
    whole = space.finite and len(few) < count
    drawn = [point for _, point in few] if whole else [space.draw(lambda p: even(p, rng)) for _ in range(count)]
    return (point for point in drawn if space.too_few(point) is None and keep(point))


def even(parameter: Parameter, rng: random.Random) -> Scalar:
    """A value of a parameter, drawn evenly."""
    if parameter.choices:
        return parameter.choices[rng.randrange(len(parameter.choices))]
    if parameter.whole:
        return rng.randint(int(parameter.low), int(parameter.high))
    if parameter.log:
        value = parameter.low * math.pow(parameter.high / parameter.low, rng.random())
        return min(max(value, parameter.low), parameter.high)
    return rng.uniform(parameter.low, parameter.high)


def _encoded(value: Any) -> Scalar:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return json.dumps(value, sort_keys=True)


def _same(one: Any, other: Any) -> bool:
    """Equal, and not merely because True equals 1."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _at(config: Mapping[str, Any], path: str) -> Any:
    node: Any = config
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            raise OutsideError(path, "the config has no such setting")
        node = node[part]
    return node
