"""``retable search``: ask for trials, take those that storage holds, execute the rest, record all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import optuna
from rich.console import Console

from retable.data.errors import DatasetError
from retable.execute.display import Display
from retable.execute.driver import last_epoch, places, warm_cache
from retable.execute.nodes import refuse_unfit
from retable.execute.order import Order
from retable.execute.searching.asha import Decisions
from retable.execute.searching.asked import Asked, problem
from retable.execute.searching.ledger import recorded
from retable.execute.searching.optuna_storage import open_search, read_search
from retable.execute.searching.source import Options, SearchSource
from retable.execute.session import ray_session
from retable.execute.tune import Endings, execute_supply, refuse_impossible, room
from retable.execute.waiting import Waiting
from retable.report.searching.trials import best
from retable.study.plan import RunSpec
from retable.study.problems import StudyError
from retable.study.searches import Hunt
from retable.study.trialling import about, search_name, some_run, trial_run
from retable.study.tuned import Tuned
from retable.track.connection import probe
from retable.track.drivers import Driver
from retable.track.storage import Storage
from retable.track.trial_record import publish_trials
from retable.track.trials import TrialRecord
from retable.track.tunings import publish_tuned, put_tuned
from retable.workspace import Workspace


@dataclass(frozen=True)
class SearchSummary:
    """A search after ``retable search``."""

    name: str
    hunt: Hunt
    trials: list[TrialRecord]
    endings: Endings
    halted: bool = False
    exhausted: bool = False
    tuned: Tuned | None = None
    """What it has come to, when it is over."""

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
        UnfitNodes: machines of the cluster cannot do this work.
    """
    run = _probe(hunt, workspace)
    if record:
        probe(workspace.tracking_uri)
    order = Order.of(run, places(workspace))
    ups = [goal.maximize is not None for goal in hunt.search.goals]
    name = search_name(hunt, run)
    driver = Driver(workspace.storage, order.places.driver)
    with open_search(workspace.storage, url, name, ups, about(hunt)) as study, ray_session(address, cpus), driver:
        refuse_impossible([order])
        refuse_unfit([order])
        warm_cache((order,), console)
        source, endings = _carried_out(hunt, workspace, console, asked, study, run)
        trials = source.trials()
    tuned = ended(hunt, name, run, trials, workspace.storage) if source.over else None
    if tuned is not None:
        put_tuned(workspace.storage, tuned)
    if record:
        publish_trials(workspace.tracking_uri, hunt, name, trials, workspace.storage)
        if tuned is not None:
            publish_tuned(workspace.tracking_uri, hunt.study, hunt.profile, tuned)
    return SearchSummary(name, hunt, trials, endings, source.halted, source.exhausted, tuned)


def _carried_out(
    hunt: Hunt, workspace: Workspace, console: Console, asked: Asked, study: optuna.Study, run: RunSpec
) -> tuple[SearchSource, Endings]:
    where, storage = places(workspace), workspace.storage
    most = room(Order.of(run, where))
    fair = hunt.row is not None
    options = Options(hunt.search.sampler, hunt.search.budget, asked.seed, min(asked.concurrency or most, most), fair)
    decisions = Decisions(hunt.search.scheduler, run.training.config.recipe.epochs)
    display = Display([], {}, console, poll=last_epoch(storage))
    of_row = f"{'.'.join(hunt.row)} · " if hunt.row else ""
    source = SearchSource(
        hunt, lambda point: trial_run(hunt, workspace.world, point), study, storage, where, options, decisions,
        started=lambda run, number: display.add(run, f"{of_row}trial {number}"),
    )  # fmt: skip
    before = sum(t.state in ("complete", "pruned", "failed") for t in source.trials())
    display.expected = max(0, (hunt.search.budget.trials or 0) - before)

    def watch(event: str, run_id: str, facts: dict[str, Any]) -> None:
        if event == "epoch":
            source.heard(run_id, facts)
        display.watch(event, run_id, facts)

    with Waiting(console), display:
        return source, execute_supply(source, watch)


def read_trials(hunt: Hunt, workspace: Workspace, url: str | None = None) -> tuple[str, list[TrialRecord]]:
    """The search's name and what is known of its trials, without carrying it on."""
    run = _probe(hunt, workspace)
    name = search_name(hunt, run)
    study = read_search(workspace.storage, url, name)
    return name, [] if study is None else recorded(study, workspace.storage)


def ended(hunt: Hunt, name: str, run: RunSpec, trials: list[TrialRecord], storage: Storage) -> Tuned:
    """What a search that is over has come to. ``run``: one of its trials'."""
    search, mine = hunt.search, [t for t in trials if t.state != "recorded"]
    found = best(search, trials) if len(search.goals) == 1 else []
    chosen = found[0] if found else None
    costs = [_cost(trial, storage, whole=hunt.row is not None) for trial in mine]
    return Tuned(
        search=name,
        provisional=search_name(hunt, run, provisional=True),
        row=hunt.row,
        point=chosen.point if chosen else None,
        trial=chosen.number if chosen else None,
        run_id=chosen.run_id if chosen else None,
        value=chosen.values[0] if chosen else None,
        metric=search.goals[0].metric,
        on=search.on,
        sampler=search.sampler,
        scheduler=search.scheduler.kind,
        budget=search.budget.model_dump(mode="json"),
        trials={state: sum(t.state == state for t in mine) for state in ("complete", "pruned", "failed")},
        epochs=sum(epochs for epochs, _ in costs),
        hours=sum(seconds for _, seconds in costs) / 3600,
        gpu_hours=sum(seconds * t.gpus for (_, seconds), t in zip(costs, mine, strict=True)) / 3600,
    )


def _cost(trial: TrialRecord, storage: Storage, *, whole: bool) -> tuple[int, float]:
    """A trial's epochs and seconds: those of its run, or those that the search has trained."""
    if not whole:
        return trial.spent, trial.seconds
    lines = list(storage.epochs(trial.run_id))[: trial.epochs]
    return trial.epochs, sum(line.get("seconds", 0.0) for line in lines)


def _probe(hunt: Hunt, workspace: Workspace) -> RunSpec:
    """A run of the search, whose dataset is at hand and that can be trained.

    Raises:
        DatasetError: its dataset is not at hand.
        StudyError: it cannot be trained, or not with this scheduler, or its budget would never be spent.
    """
    run = some_run(hunt, workspace.world)
    if run is None:
        raise StudyError([problem("search.space", "no point of the space makes a valid config under these settings")])
    training, search = run.training, hunt.search
    if training.fingerprint is None:
        workspace.dataset(training.config.data.dataset)
        raise DatasetError(f"dataset {training.config.data.dataset} cannot be read")
    if training.unsupported is not None:
        raise StudyError([problem("search", training.unsupported)])
    if training.config.recipe.workers > 1 and search.scheduler.kind != "none":
        message = "stops runs of one worker only: their epochs are decided on while they wait"
        raise StudyError([problem("--scheduler", message, hint="set recipe.workers=1, or --scheduler none")])
    if set(search.budget.model_dump(exclude_none=True)) == {"gpu_hours"} and not training.resources.gpus_per_worker:
        message = f"a budget of GPU-hours is never spent: trials use no GPU under profile {hunt.profile}"
        raise StudyError([problem("--gpu-hours", message, hint="give trials, epochs or hours")])
    return run
