"""Faults of a study that only show when its settings are resolved: in every profile, and in its claims and searches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from retable import registry
from retable.study import cells as cells_of
from retable.study import claims, search_faults
from retable.study.cells import Combine, Demand, Tree
from retable.study.load import LoadedStudy
from retable.study.problems import Problem, nearest
from retable.study.resolve import Resolved, leaves, profile_leaves


def check(loaded: LoadedStudy) -> list[Problem]:
    """Every fault of a study's claims, and of its settings in every profile: unknown knobs, impossible values, overlaid
    ablations."""
    study = loaded.study
    problems: dict[str, Problem] = {}
    for name in study.profiles:
        found = [*_overlaid(loaded, name)]
        asked = cells_of.demands(study, name)
        found += [located(loaded, fault.origin, fault) for fault in asked.faults] or _unused_knobs(
            loaded, name, asked.cells
        )
        problems |= {str(problem): problem for problem in found}
    return [*problems.values(), *claims.problems(loaded), *search_faults.problems(loaded)]


def _overlaid(loaded: LoadedStudy, name: str) -> Iterator[Problem]:
    """Settings of a profile on paths that the tables vary: the cells would lose their difference."""
    study = loaded.study
    places = [(profile_leaves(study, name), cells_of.varied_paths(study))]
    for i, where in enumerate(study.profiles[name].where):
        found = leaves(where.set, ("profiles", name, "where", i, "set"))
        places.append((found, cells_of.varied_paths(study, where.tables)))
    for overlay, varied in places:
        for path, leaf in overlay.items():
            if path in varied and path.split(".")[0] in ("model", "data", "recipe", "protocol"):
                line = loaded.source.marks.get(varied[path], (0, 0))[0]
                yield loaded.source.problem(
                    leaf.origin,
                    f"profile {name!r} overlays {path}, which line {line} varies: its cells would all be equal",
                    leaf.value,
                    "take it out of the profile",
                )


def _unused_knobs(loaded: LoadedStudy, profile: str, cells: Sequence[Demand]) -> list[Problem]:
    """Model knobs of a profile that no model of the study has: typing errors, since others are passed over."""
    configs = [r.config.model for cell in cells for r in _resolved(cell)]
    known = {knob for model in configs for knob in model}
    return [
        loaded.source.problem(
            ("profiles", profile, "model", knob),
            f"no model of this study has the knob {knob!r}",
            value,
            nearest(knob, known - {"name", *registry.LINKED}),
        )
        for knob, value in loaded.study.profiles[profile].model.items()
        if configs and knob not in known
    ]


def _resolved(demand: Demand) -> list[Resolved]:
    def leaves_of(tree: Tree) -> list[Resolved]:
        if isinstance(tree, Combine):
            return [r for part in tree.parts for r in leaves_of(part)]
        return [tree.resolved, *([tree.parent] if tree.parent is not None else [])]

    counted = [resolved for resolved in (demand.static, demand.speed) if resolved is not None]
    return counted + (leaves_of(demand.tree) if demand.tree else [])


def located(loaded: LoadedStudy, origin: Any, fault: Any) -> Problem:
    """A fault of settings, with the line of the file (or ``--set``) that it comes from."""
    if origin and origin[0] == "--set":
        return Problem("--set", 1, 1, fault.path, fault.message, _shown(fault.value), fault.hint)
    problem = loaded.source.problem(origin, fault.message, fault.value, fault.hint)
    return Problem(problem.file, problem.line, problem.column, fault.path, fault.message, problem.value, fault.hint)


def _shown(value: Any) -> str | None:
    return None if value is None else str(value)
