"""``retable search``: ask for trials, take those that storage holds, execute the rest, record all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from retable.data.errors import DatasetError
from retable.execute.asha import Decisions
from retable.execute.display import Display
from retable.execute.driver import last_epoch, places, warm_cache
from retable.execute.nodes import refuse_unfit
from retable.execute.optuna_storage import open_search, read_search
from retable.execute.order import Order
from retable.execute.search import Options, SearchSource
from retable.execute.search_asked import TRAIN_SEED, Asked, about, problem, search_name
from retable.execute.search_ledger import recorded
from retable.execute.tune import Endings, execute_supply, ray_session, refuse_impossible, room
from retable.study.plan import RunSpec
from retable.study.planner import training_of
from retable.study.problems import StudyError
from retable.study.searches import Hunt
from retable.study.space import Point, some_points
from retable.track.connection import probe
from retable.track.drivers import Driver
from retable.track.trial_record import publish_trials
from retable.track.trials import TrialRecord
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
    display = Display([], {}, console, poll=last_epoch(workspace.storage))
    with open_search(workspace.storage, url, name, ups, about(hunt)) as study:
        warm_cache((order,), console)
        with ray_session(address, cpus), Driver(workspace.storage, order.places.driver):
            refuse_impossible([order])
            refuse_unfit([order])
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
            raise StudyError([problem("search", run.training.unsupported)])
        if run.training.config.recipe.workers > 1 and hunt.search.scheduler.kind != "none":
            message = "stops runs of one worker only: their epochs are decided on while they wait"
            raise StudyError([problem("--scheduler", message, hint="set recipe.workers=1, or --scheduler none")])
        return run
    raise StudyError([problem("search.space", "no point of the space makes a valid config under these settings")])


def _some(hunt: Hunt) -> Sequence[Point]:
    def fits(point: Point) -> bool:
        try:
            hunt.resolve(point)
        except ValueError:
            return False
        return True

    return [next(iter(points))] if (points := list(some_points(hunt.space, 64, fits))) else []
