"""Which search is asked for: the study's, with what the command line changes, and its name. Refuses what cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retable.study.load import LoadedStudy
from retable.study.problems import Problem, StudyError, nearest
from retable.study.resolve import leaves
from retable.study.search_faults import unfit
from retable.study.search_schema import Budget
from retable.study.searches import Hunt, row_hunts


@dataclass(frozen=True)
class Asked:
    """What the command line changes of a study's search; None leaves it as it stands."""

    sampler: str | None = None
    scheduler: str | None = None
    trials: int | None = None
    epochs: int | None = None
    gpu_hours: float | None = None
    hours: float | None = None
    seed: int = 0
    concurrency: int | None = None


def hunt_of(loaded: LoadedStudy, profile: str | None, settings: Mapping[str, Any], asked: Asked) -> Hunt:
    """The study's search under a profile, with what the command line changes.

    Raises:
        StudyError: there is no search, no such profile, or an option does not fit it.
    """
    study, name = loaded.study, known_profile(loaded, profile)
    if study.search is None:
        raise StudyError([loaded.source.problem((), "has no search", hint="add search: {space: ..., objective: ...}")])
    search = study.search
    changes: dict[str, Any] = {}
    if asked.sampler is not None:
        changes["sampler"] = asked.sampler
    if asked.scheduler is not None:
        changes["scheduler"] = search.scheduler.model_copy(update={"kind": asked.scheduler})
    limits = {n: getattr(asked, n) for n in Budget.model_fields if getattr(asked, n) is not None}
    spent = [n for n, limit in limits.items() if limit <= 0]
    if spent:
        raise StudyError([problem(f"--{n.replace('_', '-')}", f"must be above 0, but is {limits[n]:g}") for n in spent])
    if limits:
        changes["budget"] = Budget(**limits)
    hunt = Hunt(study.model_copy(update={"search": search.model_copy(update=changes)}), name, dict(settings))
    _refuse(hunt)
    return hunt


def any_hunt(
    loaded: LoadedStudy, profile: str | None, settings: Mapping[str, Any], asked: Asked, row: str | None
) -> Hunt:
    """The study's search, or that of ``row`` if one is named. Raises as :func:`hunt_of` and :func:`row_hunt` do."""
    if row is None:
        return hunt_of(loaded, profile, settings, asked)
    return row_hunt(loaded, profile, settings, asked, row)


def row_hunt(loaded: LoadedStudy, profile: str | None, settings: Mapping[str, Any], asked: Asked, row: str) -> Hunt:
    """The search of ``table.row``, which is tuned. Rows are compared, so the command line changes nothing of it.

    Raises:
        StudyError: there is no such row, or the command line changes how it is searched.
    """
    hunts = {".".join(h.row or ()): h for h in row_hunts(loaded.study, known_profile(loaded, profile), settings)}
    if row not in hunts:
        hint = nearest(row, hunts) if hunts else "give a table tune_rows and a column with tuned: true"
        raise StudyError([problem("--row", f"{row!r} is not tuned in this study", hint)])
    kept = Asked(seed=asked.seed, concurrency=asked.concurrency)
    if asked != kept or asked.seed:
        message = "rows are compared, so all are tuned alike: as the table's tune_rows says, with sampler seed 0"
        raise StudyError([problem("--row", message)])
    _refuse(hunts[row])
    return hunts[row]


def known_profile(loaded: LoadedStudy, profile: str | None) -> str:
    """The profile by name, or the study's default.

    Raises:
        StudyError: there is none of that name.
    """
    name = profile or loaded.study.default_profile
    if name not in loaded.study.profiles:
        raise StudyError([loaded.source.problem(("profiles",), f"there is no profile {name!r}")])
    return name


def _refuse(hunt: Hunt) -> None:
    search, problems = hunt.search, []
    message = unfit(search.sampler, hunt.space)
    if message is not None:
        problems.append(problem("--sampler", message))
    if search.scheduler.kind != "none" and len(search.goals) > 1:
        problems.append(problem("--scheduler", "ranks trials by one objective, and this search has more"))
    if search.scheduler.kind != "none" and "recipe.epochs" in search.space:
        problems.append(problem("--scheduler", "compares trials of equally many epochs, and recipe.epochs is searched"))
    for path in leaves(hunt.settings, ()):
        if path in search.space:
            problems.append(problem("--set", f"{path} is searched: fixing it leaves nothing to search there"))
    if problems:
        raise StudyError(problems)


def problem(where: str, message: str, hint: str | None = None) -> Problem:
    """A fault of what the command line asks of a search."""
    return Problem(where, 1, 1, "search", message, hint=hint)
