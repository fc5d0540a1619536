"""A search's trials as runs, and the name under which a search is kept."""

from __future__ import annotations

from typing import Any

from retable.study import identity
from retable.study.plan import RunSpec
from retable.study.planner import World, training_of
from retable.study.resolve import Unresolvable
from retable.study.searches import Hunt
from retable.study.space import Point, some_points

TRAIN_SEED = 0
"""Trials train with this seed: where configs are equal they are the tables' first runs."""
DIGITS = 8


def trial_run(hunt: Hunt, world: World, point: Point) -> RunSpec:
    """The run of a trial.

    Raises:
        Unresolvable: the point makes no valid config.
    """
    return training_of(hunt.resolve(point), world, hunt.search.on).run(TRAIN_SEED)


def some_run(hunt: Hunt, world: World) -> RunSpec | None:
    """Some trial's run; None where no point of the space makes a valid config."""

    def fits(point: Point) -> bool:
        try:
            hunt.resolve(point)
        except Unresolvable:
            return False
        return True

    point = next(some_points(hunt.space, 64, fits), None)
    return None if point is None else trial_run(hunt, world, point)


def search_name(hunt: Hunt, run: RunSpec, *, provisional: bool = False) -> str:
    """``msfnet-laptop-1a2b3c4d``: another space, objective, surrounding config, dataset or code is another search.

    Sampler, scheduler and budget are not part of it: they may change while it goes on. Of a row that is tuned, only
    the budget may: rows are compared, so all are searched in one way. ``run``: one of its trials'. ``provisional``:
    without the dataset's fingerprint.
    """
    around = {path: leaf.value for path, leaf in hunt.leaves({}).items() if path.split(".")[0] != "resources"}
    body = {
        **about(hunt),
        "around": {path: value for path, value in sorted(around.items()) if path not in hunt.space.paths},
        "fingerprint": None if provisional else run.training.fingerprint,
        "semantics": dict(run.training.semantics),
        "seed": TRAIN_SEED,
    }
    return family(hunt) + identity.digest(body, DIGITS)


def family(hunt: Hunt) -> str:
    """What the names of a study's or a row's searches begin with: everything before a digest of ``DIGITS`` digits."""
    return "-".join((hunt.study.study, hunt.profile, *(hunt.row or ()), ""))


def about(hunt: Hunt) -> dict[str, Any]:
    """What the search is of, in its own words: an Optuna study of that name with others is not ours."""
    parts = {"space", "objective", "objectives"}
    if hunt.row is not None:
        parts |= {"first", "sampler", "scheduler"}
    plain = hunt.search.model_dump(mode="json", include=parts)
    held = hunt.search.holdout if hunt.search.on == "val" else None
    row = {} if hunt.row is None else {"row": list(hunt.row)}
    return {"study": hunt.study.study, "profile": hunt.profile, "holdout": held, **plain, **row}
