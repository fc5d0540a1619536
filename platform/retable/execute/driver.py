"""``retable run``: plan, take away what storage holds, execute the rest, record it. Restartable by being idempotent."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from retable.data.config import Data
from retable.data.errors import DatasetError, FlowUnavailable
from retable.data.manifest import data_place
from retable.execute.display import Display, labels
from retable.execute.nodes import local_folder, refuse_unfit
from retable.execute.order import Order, Places, missing_views
from retable.execute.publisher import Publisher
from retable.execute.refusals import refuse
from retable.execute.session import ray_session
from retable.execute.stopping import graceful
from retable.execute.tune import Endings, blocked_by, execute, refuse_impossible
from retable.execute.waiting import Waiting
from retable.execute.work import open_data
from retable.progress import progress
from retable.study.load import LoadedStudy
from retable.study.plan import Plan
from retable.track.claims import Holder, Process, holder
from retable.track.drivers import Driver, outwait
from retable.track.storage import Storage, StorageError
from retable.track.writer import Published
from retable.workspace import Workspace

INTERRUPTED = 130
"""The exit code of a command that was asked to stop."""


@dataclass(frozen=True)
class Missing:
    """What a plan still needs, and why the rest of it is not started."""

    orders: tuple[Order, ...]
    done: int
    failed: dict[str, str]
    claimed: dict[str, Holder]
    unsupported: dict[str, str]
    blocked: dict[str, str] = field(default_factory=dict)
    """Runs that start from one that failed or is another driver's, and why they are not started."""
    measured: int = 0
    """Measurements that this machine has done."""


@dataclass(frozen=True)
class Summary:
    """How a ``retable run`` ended."""

    missing: Missing
    endings: Endings
    names: dict[str, str]
    published: Published | None = None

    @property
    def exit_code(self) -> int:
        """0 all done, 1 some runs failed, 3 something about the machine is in the way, 130 asked to stop."""
        if self.endings.outcome.keys() != {o.run_id for o in self.missing.orders} or self.endings.of("stopped"):
            return INTERRUPTED
        if self.endings.of("environment") or self.endings.of("claimed") or self.missing.claimed:
            return 3
        return 1 if self.endings.of("failed") or self.missing.failed else 0

    def lines(self) -> list[str]:
        """What to tell the user at the end."""
        timed = {order.run_id for order in self.missing.orders if order.measures}
        done = self.endings.of("done").keys()
        found = [f"{len(done - timed)} runs trained, {self.missing.done} were done already"]
        if timed or self.missing.measured:
            found.append(f"{len(done & timed)} speeds measured, {self.missing.measured} were measured already")
        for reason in sorted(set(self.endings.of("environment").values()) | set(self.endings.of("claimed").values())):
            found.append(f"not finished: {reason}")
        for run_id, reason in (self.endings.of("failed") | self.missing.failed).items():
            found.append(f"failed: {self.names[run_id]}: {reason} (--retry-failed trains it again; run {run_id})")
        blocked = list((self.endings.of("blocked") | self.missing.blocked).values())
        found += [f"{reason}: {blocked.count(reason)} runs" for reason in dict.fromkeys(blocked)]
        if stopped := len(self.missing.orders) - len(self.endings.outcome) + len(self.endings.of("stopped")):
            found.append(f"{stopped} runs are saved where they were or not begun: the same command goes on from there")
        if self.missing.claimed:
            found.append(
                f"{len(self.missing.claimed)} runs are another driver's: run the same command again when it is done"
            )
        return found


def places(workspace: Workspace) -> Places:
    """Where workers of this driver read and write."""
    storage = workspace.storage
    data = data_place(workspace.data_root)
    if "://" not in data:  # workers have another working directory
        data = str(Path(data).absolute())
    return Places(storage.url, data, str(workspace.cache.absolute()), Process.this())


def refuse_this_machines_own(workspace: Workspace, *, record: bool) -> None:
    """Refuse places that mean nothing on a cluster's other machines, or to the next command.

    Raises:
        StorageError: a relative folder, or a record in the current folder (of a job: it goes with the job).
    """
    if local_folder(workspace.storage_url):
        raise StorageError(
            errno.EINVAL,
            f"storage {workspace.storage_url} is a folder of this machine's current one: on a cluster give --storage as"
            " a bucket (s3://...), or as the absolute path of a folder that all machines share",
        )
    if record and not workspace.tracking and not workspace.storage.local:
        raise StorageError(
            errno.EINVAL, "a study on a cluster with its runs in a bucket needs --tracking-uri (or --offline)"
        )


def still_missing(plan: Plan, workspace: Workspace, *, retry_failed: bool = False, elsewhere: bool = False) -> Missing:
    """Plan minus storage. ``elsewhere``: trials run on other machines than this one, which look themselves whether
    they have been measured.

    Raises:
        DatasetError: a run's dataset is not at hand; the message says how to get it.
    """
    storage, where = workspace.storage, places(workspace)
    need_datasets(plan, workspace)
    orders, failed, claimed, blocked, done = [], {}, {}, {}, 0
    for run in plan.runs:  # parents before their children
        order = Order.of(run, where)
        result = storage.get_json(f"{order.folder}/result.json")
        live = holder(storage, run.run_id)
        lost = [p for p in run.parents if p in failed or p in claimed or p in blocked]
        if live is not None:
            claimed[run.run_id] = live
        elif lost and (result is None or missing_views(storage, order)):
            blocked[run.run_id] = blocked_by(lost[0], "failed" if lost[0] in failed else "claimed")
        elif result is None or (result["status"] == "done" and missing_views(storage, order)):
            orders.append(order)
        elif result["status"] == "failed" and retry_failed:
            _reopen(storage, order, result)
            orders.append(order)
        elif result["status"] == "failed":
            failed[run.run_id] = str(result["reason"])
        else:
            done += 1
    measured = 0
    for measurement in plan.measurements.values():
        order = Order.measuring(measurement, where)
        result = None if elsewhere else storage.get_json(f"{order.folder}/result.json")
        if measurement.unsupported is not None:
            continue
        if result is None:
            orders.append(order)
        elif result["status"] == "failed" and retry_failed:
            _reopen(storage, order, result)
            orders.append(order)
        elif result["status"] == "failed":
            failed[measurement.run_id] = str(result["reason"])
        else:
            measured += 1
    unsupported = {asking.config_id: asking.unsupported for asking in plan.asked if asking.unsupported}
    return Missing(tuple(orders), done, failed, claimed, unsupported, blocked, measured)


def run_study(
    loaded: LoadedStudy,
    plan: Plan,
    workspace: Workspace,
    console: Console,
    *,
    retry_failed: bool = False,
    record: bool = True,
    address: str | None = None,
    cpus: int | None = None,
) -> Summary:
    """Execute what a plan still needs.

    Raises:
        DatasetError, StageError, DamagedVideo, DiskFull, FlowUnavailable: before anything trains.
        ImpossibleError: a run needs more than there is.
        StorageError: the storage cannot be written, or not be shared; before anything trains.
        TrackingUnavailable: MLflow cannot be reached; before anything trains.
        UnfitNodes: machines of the cluster cannot do this work.
    """
    if address is not None:
        refuse_this_machines_own(workspace, record=record)
    workspace.storage.check()
    missing = still_missing(plan, workspace, retry_failed=retry_failed, elsewhere=address is not None)
    if any(held.worker.alive() is None for held in missing.claimed.values()):
        console.print("waiting until it is clear whether another machine's driver still lives", highlight=False)
        outwait(workspace.storage, missing.claimed)
        missing = still_missing(plan, workspace, retry_failed=retry_failed, elsewhere=address is not None)
    names = labels(plan)
    for run_id, live in missing.claimed.items():
        console.print(f"{names[run_id]} is being trained by another driver: {live}", highlight=False)
    publisher = Publisher(loaded, plan, workspace, console) if record else None
    if publisher is not None:
        publisher.check()
    endings = Endings()
    if missing.orders:
        refuse(plan, workspace, missing.orders)
        warm_cache(missing.orders, console)
        asked = {order.run_id for order in missing.orders}
        runs = [r for r in plan.runs if r.run_id in asked]
        timed = [m for m in plan.measurements.values() if m.run_id in asked]
        driver = Driver(workspace.storage, missing.orders[0].places.driver)
        with ray_session(address, cpus), _maybe(publisher), driver, graceful(driver, console) as stopping:
            refuse_impossible(missing.orders)
            refuse_unfit(missing.orders)
            poll = last_epoch(workspace.storage)
            with Waiting(console), Display(runs, names, console, poll=poll, measurements=timed) as display:
                endings = execute(missing.orders, workspace.storage, _both(display.watch, publisher), stopping)
    published = publisher.publish() if publisher is not None else None
    return Summary(missing, endings, names, published)


def need_datasets(plan: Plan, workspace: Workspace) -> None:
    """Refuse a plan whose datasets are not all at hand (DatasetError says how to get each)."""
    possible = [asking for asking in plan.asked if asking.unsupported is None]
    absent = {asking.config.data.dataset for asking in possible if asking.fingerprint is None}
    problems = []
    for name in sorted(absent):
        try:
            workspace.dataset(name)
        except DatasetError as error:
            problems.append(str(error))
    if problems:
        raise DatasetError("\n".join(problems))


def _reopen(storage: Storage, order: Order, result: dict[str, Any]) -> None:
    """Set a failed result aside, so that the run is trained again from its newest checkpoint."""
    attempts = storage.names(f"{order.folder}/attempts")
    last = max((int(n) for n in attempts), default=0)
    storage.put_json(f"{order.folder}/attempts/{last}/result.json", result)
    storage.delete(f"{order.folder}/result.json")


def warm_cache(orders: tuple[Order, ...], console: Console) -> None:
    """Decode each dataset once and compute its flow, before trials share them; shows progress, finds damage early."""
    first: dict[tuple[Any, ...], Order] = {}
    for order in orders:
        if order.use == "features":
            continue  # of videos that its earlier stage reads
        data: Data = order.config.data
        key = (data.dataset, data.split, data.clip.short_side, data.holdout, data.on_damage, data.flow)
        first.setdefault(key, order)
    for order in first.values():
        data = order.config.data
        step = "decoding" if data.flow is None else f"decoding and {data.flow.method} flow of"
        with progress(f"{step} {data.dataset}", console) as told:
            try:
                open_data(order, progress=told)
            except FlowUnavailable as error:
                raise FlowUnavailable(f"{order.config.model['name']} (run {order.run_id}): {error}") from error


def last_epoch(storage: Storage) -> Callable[[str], dict[str, Any] | None]:
    def poll(run_id: str) -> dict[str, Any] | None:
        epochs = list(storage.epochs(run_id))
        return epochs[-1] if epochs else None

    return poll


def _both(watch: Callable[..., None], publisher: Publisher | None) -> Callable[[str, str, dict[str, Any]], None]:
    def told(event: str, run_id: str, facts: dict[str, Any]) -> None:
        watch(event, run_id, facts)
        if publisher is not None and event == "ended":
            publisher.wake()

    return told


def _maybe(publisher: Publisher | None) -> AbstractContextManager[Any]:
    return publisher if publisher is not None else nullcontext()
