"""Which search is asked for: the study's, with what the command line changes, and its name. Refuses what cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retable.study import identity
from retable.study.load import LoadedStudy
from retable.study.plan import RunSpec
from retable.study.problems import Problem, StudyError
from retable.study.resolve import leaves
from retable.study.search_faults import unfit
from retable.study.searches import Hunt

TRAIN_SEED = 0
"""Trials train with this seed: where configs are equal they are the tables' first runs."""


@dataclass(frozen=True)
class Asked:
    """What the command line changes of a study's search; None leaves it as it stands."""

    sampler: str | None = None
    scheduler: str | None = None
    trials: int | None = None
    epochs: int | None = None
    seed: int = 0
    concurrency: int | None = None


def hunt_of(loaded: LoadedStudy, profile: str | None, settings: Mapping[str, Any], asked: Asked) -> Hunt:
    """The study's search under a profile, with what the command line changes.

    Raises:
        StudyError: there is no search, no such profile, or an option does not fit it.
    """
    study, name = loaded.study, profile or loaded.study.default_profile
    if study.search is None:
        raise StudyError([loaded.source.problem((), "has no search", hint="add search: {space: ..., objective: ...}")])
    if name not in study.profiles:
        raise StudyError([loaded.source.problem(("profiles",), f"there is no profile {name!r}")])
    search = study.search
    changes: dict[str, Any] = {}
    if asked.sampler is not None:
        changes["sampler"] = asked.sampler
    if asked.scheduler is not None:
        changes["scheduler"] = search.scheduler.model_copy(update={"kind": asked.scheduler})
    if asked.trials is not None or asked.epochs is not None:
        changes["budget"] = type(search.budget)(trials=asked.trials, epochs=asked.epochs)
    search = search.model_copy(update=changes)
    hunt = Hunt(study.model_copy(update={"search": search}), name, dict(settings))
    _refuse(hunt)
    return hunt


def search_name(hunt: Hunt, run: RunSpec) -> str:
    """``msfnet-laptop-1a2b3c4d``: another space, objective, surrounding config, dataset or code is another search.

    Sampler, scheduler and budget are not part of it: they may change while it goes on.
    """
    around = {path: leaf.value for path, leaf in hunt.leaves({}).items() if path.split(".")[0] != "resources"}
    body = {
        **about(hunt),
        "around": {path: value for path, value in sorted(around.items()) if path not in hunt.space.paths},
        "fingerprint": run.training.fingerprint,
        "semantics": dict(run.training.semantics),
        "seed": TRAIN_SEED,
    }
    return f"{hunt.study.study}-{hunt.profile}-{identity.digest(body, 8)}"


def about(hunt: Hunt) -> dict[str, Any]:
    """What the search is of, in its own words: an Optuna study of that name with others is not ours."""
    plain = hunt.search.model_dump(mode="json", include={"space", "objective", "objectives"})
    held = hunt.search.holdout if hunt.search.on == "val" else None
    return {"study": hunt.study.study, "profile": hunt.profile, "holdout": held, **plain}


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
