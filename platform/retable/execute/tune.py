"""Plan minus storage -> trials: what is missing runs through one Tuner on the Ray that is there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import tune
from ray._private.state import state as ray_state

from retable.execute.order import Order
from retable.execute.sources import PlanSearcher, PlanSource, SourceSearcher, Supply, SupplySearcher
from retable.execute.trial import trial
from retable.study.identity import PROVISIONAL
from retable.track.storage import Storage, dump, now

MAX_DEATHS = 3
"""A run whose process dies this often without an exception (killed, out of memory) is recorded as failed."""


class ImpossibleError(RuntimeError):
    """A run asks for more than the machine or cluster has."""


@dataclass
class Endings:
    """How the runs of one execution ended, by run id."""

    outcome: dict[str, tuple[str, str]] = field(default_factory=dict)
    deaths: dict[str, int] = field(default_factory=dict)

    def of(self, status: str) -> dict[str, str]:
        """Reasons of the runs that ended with ``status``."""
        return {run: reason for run, (ended, reason) in self.outcome.items() if ended == status}


Watcher = Callable[[str, str, dict[str, Any]], None]
"""Told ``(event, run id, facts)``: event is started, epoch, ended or died."""


def refuse_impossible(orders: Sequence[Order]) -> None:
    """Refuse runs that could never start here.

    Raises:
        ImpossibleError: naming what is asked and what there is.
    """
    have, largest = _have(), _largest()
    for order in orders:
        for kind, each in (("CPU", order.resources.cpus_per_worker), ("GPU", order.resources.gpus_per_worker)):
            asked = each * order.workers
            if each > largest.get(kind, each) and asked <= have.get(kind, 0.0):
                raise ImpossibleError(
                    f"run {order.run_id} ({order.config.model['name']}, seed {order.spec['seed']}) asks for {each:g}"
                    f" {kind}s per worker, but no machine has more than {largest[kind]:g}: lower"
                    f" resources.{kind.lower()}s_per_worker"
                )
            if asked > have.get(kind, 0.0):
                raise ImpossibleError(
                    f"run {order.run_id} ({order.config.model['name']}, seed {order.spec['seed']}) asks for {asked:g}"
                    f" {kind}s ({order.workers} workers x {each:g}), but there are {have.get(kind, 0.0):g}: lower"
                    f" recipe.workers or resources.{kind.lower()}s_per_worker, or use a larger cluster"
                )


def execute(
    orders: Sequence[Order], storage: Storage, watch: Watcher, stopping: Callable[[], bool] = lambda: False
) -> Endings:
    """Run all orders to their end; a run that fails does not stop the others. Measurements come last, one at a time:
    beside anything else they would be slower.

    A process that dies is tried again with what remains, up to :data:`MAX_DEATHS` times, then recorded as failed.
    Once ``stopping()`` is true no run is started any more; those that were not are left without an ending.
    """
    endings = Endings()
    for part, alone in ([o for o in orders if not o.measures], False), ([o for o in orders if o.measures], True):
        _to_the_end({order.run_id: order for order in part}, storage, endings, watch, stopping, alone=alone)
    return endings


def _to_the_end(
    remaining: dict[str, Order],
    storage: Storage,
    endings: Endings,
    watch: Watcher,
    stopping: Callable[[], bool],
    *,
    alone: bool,
) -> None:
    while remaining and not stopping():
        before = dict(endings.deaths)
        _fit(remaining, endings, watch, stopping, alone=alone)
        for run_id, order in list(remaining.items()):
            if run_id in endings.outcome:
                del remaining[run_id]
            elif endings.deaths.get(run_id, 0) >= MAX_DEATHS:
                endings.outcome[run_id] = give_up(order, storage)
                del remaining[run_id]
        _block(remaining, endings, watch)
        if remaining and endings.deaths == before and not stopping():
            raise RuntimeError(f"Ray Tune stopped with {len(remaining)} runs left and none of them had started")


def _block(remaining: dict[str, Order], endings: Endings, watch: Watcher) -> None:
    """Take out what cannot run because a run that it starts from has not come to its end."""
    for run_id, order in list(remaining.items()):  # parents come before their children
        lost = [p for p in order.parents if p in endings.outcome and endings.outcome[p][0] != "done"]
        if lost:
            reason = blocked_by(lost[0], endings.outcome[lost[0]][0])
            endings.outcome[run_id] = "blocked", reason
            del remaining[run_id]
            watch("ended", run_id, {"status": "blocked", "reason": reason})


def blocked_by(parent: str, status: str) -> str:
    """Why a child is not run."""
    return f"not run: parent failed ({parent})" if status == "failed" else f"not run: parent not finished ({parent})"


def execute_supply(supply: Supply, watch: Watcher) -> Endings:
    """Run what ``supply`` hands out until it has nothing left. It hears of every end, and counts deaths itself."""
    endings = Endings()
    while True:
        searcher = SupplySearcher(supply)
        if _tuned(searcher, {}, endings, watch):
            return endings
        for run_id in searcher.runs.values():
            supply.ended(run_id, ok=False)  # those that have ended it knows already


def _fit(
    orders: Mapping[str, Order], endings: Endings, watch: Watcher, stopping: Callable[[], bool], *, alone: bool
) -> None:
    parents = {k: tuple(p for p in o.parents if p in orders) for k, o in orders.items()}
    searcher = PlanSearcher(PlanSource(parents, (lambda runs: False) if alone else _fits(orders)))
    searcher.stopping = stopping
    if not _tuned(searcher, orders, endings, watch):
        for run_id in set(searcher.runs.values()) - set(endings.outcome):
            endings.deaths[run_id] = endings.deaths.get(run_id, 0) + 1


def _tuned(
    searcher: SourceSearcher,
    orders: Mapping[str, Order],
    endings: Endings,
    watch: Watcher,
) -> bool:
    """One Tuner from start to end. False if Ray's memory monitor aborted it, which it does when it kills one trial:
    what had started and has no result died."""
    folder = tempfile.mkdtemp(prefix="retable-tune-")
    trainable = tune.with_resources(
        tune.with_parameters(trial, orders=dict(orders)),
        lambda config: _resources(config["order"] if "order" in config else orders[config["run"]]),
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="runs",
            storage_path=folder,
            verbose=0,
            callbacks=[_Callback(endings, watch)],
            failure_config=tune.FailureConfig(max_failures=0, fail_fast=False),
        ),
    )
    try:
        tuner.fit()
    except tune.TuneError:
        return False
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return True


def room(order: Order) -> int:
    """How many runs such as this one fit at once."""
    have = _have()
    return max(1, min(int(have.get(kind, 0.0) // n) for kind, n in _asked(order).items() if n))


def _fits(orders: Mapping[str, Order]) -> Callable[[Collection[str]], bool]:
    """Whether runs fit at once. Tune sees that itself, but not what the workers hold that a run starts."""
    if all(order.workers == 1 for order in orders.values()):
        return lambda runs: True

    def fits(runs: Collection[str]) -> bool:
        have, asked = _have(), [_asked(orders[run]) for run in runs]
        return all(sum(each[kind] for each in asked) <= have.get(kind, 0.0) + 1e-6 for kind in ("CPU", "GPU"))

    return fits


def _asked(order: Order) -> dict[str, float]:
    each = order.resources
    return {"CPU": each.cpus_per_worker * order.workers, "GPU": each.gpus_per_worker * order.workers}


def _have() -> dict[str, float]:
    """What the cluster has, or would have with every machine that its autoscaler may start."""
    now: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    most: Mapping[str, float] = ray_state.get_max_resources_from_cluster_config() or {}
    return {kind: max(now.get(kind, 0.0), most.get(kind, 0.0)) for kind in now.keys() | most.keys()}


def _largest() -> dict[str, float]:
    """The most of each kind that one machine has; nothing where an autoscaler may start others."""
    if ray_state.get_max_resources_from_cluster_config():
        return {}
    nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]  # type: ignore[no-untyped-call]
    return {kind: max(n.get(kind, 0.0) for n in nodes) for kind in ("CPU", "GPU")}


def _resources(order: Order) -> tune.PlacementGroupFactory:
    if order.workers > 1:
        # Its workers hold the CPUs and GPUs; with CPUs of its own it could wait for ever.
        return tune.PlacementGroupFactory([{"memory": 1e6}])
    return tune.PlacementGroupFactory([{kind: n for kind, n in _asked(order).items() if n}])


def give_up(order: Order, storage: Storage) -> tuple[str, str]:
    """Record a run whose process keeps dying as failed; its status and reason."""
    reason = f"its process died {MAX_DEATHS} times without an error: killed, or out of memory"
    result = {
        "schema": 1,
        "run_id": order.run_id,
        "status": "failed",
        "reason": reason,
        "cost": {},
        "environment": {},
        "finished": now(),
    }
    if order.run_id.startswith(PROVISIONAL):  # a measurement on a machine that the driver does not know
        return "failed", reason
    storage.put_new(f"{order.folder}/spec.json", dump(order.spec))  # a process may die before it writes anything
    storage.put_new(f"{order.folder}/result.json", dump(result))
    return "failed", reason


class _Callback(tune.Callback):
    """Hears Tune in the driver and tells the watcher."""

    def __init__(self, endings: Endings, watch: Watcher):
        self.endings, self.watch = endings, watch

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles callbacks for Tuner.restore, which is never used

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.watch("started", trial.config["run"], {})

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        run_id = trial.config["run"]
        if "status" in result:
            self.endings.outcome[run_id] = result["status"], result["reason"]
            self.watch("ended", run_id, result)
        else:
            self.watch("epoch", run_id, result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        run_id = trial.config["run"]
        self.endings.deaths[run_id] = self.endings.deaths.get(run_id, 0) + 1
        self.watch("died", run_id, {})
