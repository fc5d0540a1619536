"""``retable search``: ask for trials, take those that storage holds, execute the rest, record all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from retable.data.errors import DatasetError
from retable.execute.asha import Decisions
from retable.execute.display import Display
from retable.execute.driver import last_epoch, places, warm_cache
from retable.execute.optuna_storage import open_search, read_search
from retable.execute.order import Order
from retable.execute.search import Options, SearchSource, recorded
from retable.execute.tune import Endings, execute_supply, ray_session, refuse_impossible, room
from retable.report.trials import best
from retable.study import identity
from retable.study.ablate import Ablation, ablate
from retable.study.load import LoadedStudy
from retable.study.plan import RunSpec
from retable.study.planner import training_of
from retable.study.problems import Problem, StudyError
from retable.study.resolve import leaves
from retable.study.searches import Hunt, some_points, unfit
from retable.study.space import Point
from retable.track.connection import probe
from retable.track.trial_record import publish_trials
from retable.track.trials import TrialRecord
from retable.workspace import Workspace

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


@dataclass(frozen=True)
class SearchSummary:
    """A search after ``retable search``."""

    name: str
    hunt: Hunt
    trials: list[TrialRecord]
    endings: Endings
    halted: bool = False
    exhausted: bool = False

    @property
    def exit_code(self) -> int:
        """0 done, 1 some trials failed, 3 something about the machine is in the way."""
        if self.halted:
            return 3
        return 1 if any(t.state == "failed" for t in self.trials) else 0

    def lines(self) -> list[str]:
        """What to tell the user beside the trials."""
        found = [f"not finished: {reason}" for reason in sorted(set(self.endings.of("environment").values()))]
        found += [f"left to another driver: {reason}" for reason in self.endings.of("claimed").values()]
        if self.exhausted:
            found.append("the space holds nothing more that is new: the rest of the budget was not spent")
        return found


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


def run_search(
    hunt: Hunt,
    workspace: Workspace,
    console: Console,
    asked: Asked,
    *,
    url: str | None = None,
    record: bool = True,
    address: str | None = None,
    cpus: int | None = None,
) -> SearchSummary:
    """Carry a search on until its budget is spent.

    Raises:
        DatasetError, DamagedVideo, DiskFull, TrackingUnavailable, SearchStorageError: before anything trains.
        ImpossibleError: a trial needs more than there is.
    """
    run = _probe(hunt, workspace)
    if record:
        probe(workspace.tracking_uri)
    order = Order.of(run, places(workspace))
    ups = [goal.maximize is not None for goal in hunt.search.goals]
    name = search_name(hunt, run)
    display = Display([], {}, console, poll=last_epoch(workspace.storage))
    with open_search(workspace.storage, url, name, ups, _about(hunt)) as study:
        warm_cache((order,), console)
        with ray_session(address, cpus):
            refuse_impossible([order])
            options = Options(
                hunt.search.sampler, hunt.search.budget, asked.seed, min(asked.concurrency or room(order), room(order))
            )
            decisions = Decisions(hunt.search.scheduler, run.training.config.recipe.epochs)
            source = SearchSource(
                hunt, lambda point: _run(hunt, workspace, point), study, workspace.storage, places(workspace),
                options, decisions, started=lambda run, number: display.add(run, f"trial {number}"),
            )  # fmt: skip

            ended = sum(t.state in ("complete", "pruned", "failed") for t in source.trials())
            display.expected = max(0, (hunt.search.budget.trials or 0) - ended)

            def watch(event: str, run_id: str, facts: dict[str, Any]) -> None:
                if event == "epoch":
                    source.heard(run_id, facts)
                display.watch(event, run_id, facts)

            with display:
                endings = execute_supply(source, watch)
        trials = source.trials()
    if record:
        publish_trials(workspace.tracking_uri, hunt, name, trials, workspace.storage)
    return SearchSummary(name, hunt, trials, endings, source.halted, source.exhausted)


def read_trials(hunt: Hunt, workspace: Workspace, url: str | None = None) -> tuple[str, list[TrialRecord]]:
    """The search's name and what is known of its trials, without carrying it on."""
    run = _probe(hunt, workspace)
    name = search_name(hunt, run)
    study = read_search(workspace.storage, url, name)
    return name, [] if study is None else recorded(study, workspace.storage)


def ablation(
    loaded: LoadedStudy,
    workspace: Workspace,
    origin: str,
    *,
    profile: str | None = None,
    settings: Mapping[str, Any] | None = None,
    knobs: Sequence[str] | None = None,
    url: str | None = None,
) -> Ablation:
    """A study around the search's ``best`` trial, or around a run named by its id or the beginning of one.

    Raises:
        StudyError: there is no such run, no whole trial yet, or nothing to ablate.
    """
    name, metrics = profile or loaded.study.default_profile, ["params", "top1"]
    if name not in loaded.study.profiles:
        raise StudyError([loaded.source.problem(("profiles",), f"there is no profile {name!r}")])
    words = f"run {origin}"
    if origin == "best":
        hunt = hunt_of(loaded, profile, settings or {}, Asked())
        _, trials = read_trials(hunt, workspace, url)
        whole = best(hunt.search, trials)
        if not whole:
            raise StudyError([_problem("--from", "the search has no whole trial yet", hint="retable search runs it")])
        if len(whole) > 1:
            runs = ", ".join(t.run_id for t in whole)
            raise StudyError(
                [_problem("--from", f"the search has {len(whole)} best trials", hint=f"name a run: {runs}")]
            )
        origin, words = whole[0].run_id, f"trial {whole[0].number} (run {whole[0].run_id})"
        metrics = list(dict.fromkeys(["params", *(goal.metric for goal in hunt.search.goals)]))
    found = [run_id for run_id in workspace.storage.run_ids() if run_id.startswith(origin)]
    record = workspace.storage.record(found[0]) if len(found) == 1 else None
    if record is None:
        raise StudyError([_problem("--from", f"{len(found)} runs in {workspace.storage.url} begin with {origin!r}")])
    return ablate(loaded, name, record.spec["config"], origin=words, knobs=knobs or (), metrics=metrics)


def search_name(hunt: Hunt, run: RunSpec) -> str:
    """``msfnet-laptop-1a2b3c4d``: another space, objective, surrounding config, dataset or code is another search.

    Sampler, scheduler and budget are not part of it: they may change while it goes on.
    """
    around = {path: leaf.value for path, leaf in hunt.leaves({}).items() if path.split(".")[0] != "resources"}
    body = {
        **_about(hunt),
        "around": {path: value for path, value in sorted(around.items()) if path not in hunt.space.paths},
        "fingerprint": run.training.fingerprint,
        "semantics": dict(run.training.semantics),
        "seed": TRAIN_SEED,
    }
    return f"{hunt.study.study}-{hunt.profile}-{identity.digest(body, 8)}"


def _about(hunt: Hunt) -> dict[str, Any]:
    plain = hunt.search.model_dump(mode="json", include={"space", "objective", "objectives"})
    held = hunt.search.holdout if hunt.search.on == "val" else None
    return {"study": hunt.study.study, "profile": hunt.profile, "holdout": held, **plain}


def _run(hunt: Hunt, workspace: Workspace, point: Point) -> RunSpec:
    return training_of(hunt.resolve(point), workspace.world, hunt.search.on).run(TRAIN_SEED)


def _probe(hunt: Hunt, workspace: Workspace) -> RunSpec:
    """A run of the search, whose dataset is at hand and that can be trained.

    Raises:
        DatasetError: its dataset is not at hand.
        StudyError: it cannot be trained, or not with this scheduler.
    """
    for point in _some(hunt):
        run = _run(hunt, workspace, point)
        if run.training.fingerprint is None:
            workspace.dataset(run.training.config.data.dataset)
            raise DatasetError(f"dataset {run.training.config.data.dataset} cannot be read")
        if run.training.unsupported is not None:
            raise StudyError([_problem("search", run.training.unsupported)])
        if run.training.config.recipe.workers > 1 and hunt.search.scheduler.kind != "none":
            message = "stops runs of one worker only: their epochs are decided on while they wait"
            raise StudyError([_problem("--scheduler", message, hint="set recipe.workers=1, or --scheduler none")])
        return run
    raise StudyError([_problem("search.space", "no point of the space makes a valid config under these settings")])


def _some(hunt: Hunt) -> Sequence[Point]:
    def fits(point: Point) -> bool:
        try:
            hunt.resolve(point)
        except ValueError:
            return False
        return True

    return [next(iter(points))] if (points := list(some_points(hunt.space, 64, fits))) else []


def _refuse(hunt: Hunt) -> None:
    search, problems = hunt.search, []
    message = unfit(search.sampler, hunt.space)
    if message is not None:
        problems.append(_problem("--sampler", message))
    if search.scheduler.kind != "none" and len(search.goals) > 1:
        problems.append(_problem("--scheduler", "ranks trials by one objective, and this search has more"))
    if search.scheduler.kind != "none" and "recipe.epochs" in search.space:
        problems.append(
            _problem("--scheduler", "compares trials of equally many epochs, and recipe.epochs is searched")
        )
    for path in leaves(hunt.settings, ()):
        if path in search.space:
            problems.append(_problem("--set", f"{path} is searched: fixing it leaves nothing to search there"))
    if problems:
        raise StudyError(problems)


def _problem(where: str, message: str, hint: str | None = None) -> Problem:
    return Problem(where, 1, 1, "search", message, hint=hint)
