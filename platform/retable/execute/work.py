"""What a trial does, without Ray: claim the run, train from the newest checkpoint, score views, write the result."""

from __future__ import annotations

import io
import platform
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch

from retable import __version__
from retable.data.cache import Progress
from retable.data.errors import DataError
from retable.data.features import FeatureData, Source
from retable.data.flow import library as flow_library
from retable.data.loader import Augment, RunData, open_run_data
from retable.data.manifest import dataset_folder, open_dataset
from retable.study.config import Config, Protocol, Resources
from retable.study.plan import RunSpec, View
from retable.track.claims import Claim, ClaimedError, Process
from retable.track.scores import Scores, metrics
from retable.track.storage import Storage, StorageError, dump, now
from retable.train.checkpoint import CheckpointMismatch, CorruptCheckpoint, State, unpack
from retable.train.evaluate import evaluate, load_model
from retable.train.job import Job
from retable.train.loop import train
from retable.train.model import inputs
from retable.train.stages import StageError, final_weights, open_features, start_of

Report = Callable[[dict[str, Any]], None]
"""Told ``{"epoch": ..., metrics}`` after every epoch."""


@dataclass(frozen=True)
class Places:
    """Where workers read and write; the same on every node."""

    storage: str
    data: str | None
    cache: str
    driver: Process


@dataclass(frozen=True)
class Order:
    """One run to carry out and the views to score it under."""

    spec: dict[str, Any]
    views: tuple[View, ...]
    resources: Resources
    places: Places
    stoppable: bool = False
    """Whether training ends early, without a result, where the driver asks for it (``stop.json``)."""

    @classmethod
    def of(cls, run: RunSpec, places: Places) -> Order:
        """The order to carry out a planned run."""
        return cls(run.to_json(), run.training.views, run.training.resources, places)

    @property
    def run_id(self) -> str:
        return str(self.spec["run_id"])

    @property
    def config(self) -> Config:
        return Config.model_validate(self.spec["config"])

    @property
    def parents(self) -> tuple[str, ...]:
        """Ids of the runs that must be done before this one starts."""
        return tuple(self.spec["parents"])

    @property
    def use(self) -> str | None:
        """What it takes from them: weights or features."""
        return self.spec.get("use")

    @property
    def workers(self) -> int:
        return self.config.recipe.workers

    @property
    def folder(self) -> str:
        return f"runs/{self.run_id}"


@dataclass(frozen=True)
class Outcome:
    """How carrying out an order ended. ``claimed``, ``environment`` and ``pruned`` leave the run unfinished: it can be
    gone on with, nothing is lost."""

    status: Literal["done", "failed", "claimed", "environment", "pruned"]
    reason: str | None = None


class Fenced(RuntimeError):
    """A later attempt trains this run; this one must stop."""


class Pruned(RuntimeError):
    """A search has stopped this run early; it keeps its checkpoint and gets no result."""


def missing_views(storage: Storage, order: Order) -> list[View]:
    """Views that have no scores yet."""
    return [v for v in order.views if not storage.exists(f"{order.folder}/scores/{v.key}.json")]


def carry_out(order: Order, fit: Callable[[int], None]) -> Outcome:
    """Hold the run's claim while ``fit(attempt)`` trains and scores it, then write ``result.json``.

    A failure of the run itself is recorded with its reason. What is wrong with the machine (disk, dataset, a foreign
    checkpoint) is returned, not recorded: put it right and the same command goes on.
    """
    storage = Storage(order.places.storage)
    log = _Log(storage, order)
    try:
        if not storage.exists(f"{order.folder}/spec.json"):
            storage.put_new(f"{order.folder}/spec.json", dump(order.spec))
        with Claim(storage, order.run_id, order.places.driver) as claim:
            log(f"attempt {claim.number} on {socket.gethostname()}, retable {__version__}, torch {torch.__version__}")
            return _attempt(storage, order, claim, fit, log)
    except ClaimedError as error:
        return Outcome("claimed", str(error))
    except Pruned as stop:
        log(str(stop))
        log.save()
        return Outcome("pruned", str(stop))
    except (StorageError, DataError, CheckpointMismatch, Fenced) as error:
        return Outcome("environment", str(error))


def _attempt(storage: Storage, order: Order, claim: Claim, fit: Callable[[int], None], log: _Log) -> Outcome:
    reason = None
    try:
        fit(claim.number)
    except (StorageError, DataError, CheckpointMismatch, Fenced, Pruned):
        raise
    except Exception as error:
        reason = _reason(error)
        log(traceback.format_exc())
    if claim.fenced():
        raise Fenced(f"attempt {claim.number} of {order.run_id} was superseded")
    status: Literal["done", "failed"] = "done" if reason is None else "failed"
    log(status if reason is None else f"failed: {reason}")
    log.save()
    result = {
        "schema": 1,
        "run_id": order.run_id,
        "status": status,
        "reason": reason,
        "attempt": claim.number,
        "cost": _cost(storage, order),
        "environment": storage.get_json(f"{order.folder}/attempts/{claim.number}/environment.json") or {},
        "finished": now(),
    }
    storage.put_new(f"{order.folder}/result.json", dump(result))
    _prune(storage, order)
    return Outcome(status, reason)


def train_and_score(
    order: Order, attempt: int, *, device: str, rank: int = 0, world: int = 1, report: Report | None = None
) -> None:
    """One rank's work: train from the newest valid checkpoint to the end, then score every view that has no scores."""
    storage = Storage(order.places.storage)
    config = order.config
    job = Job(config, int(order.spec["seed"]), order.resources)
    if rank == 0:
        found = environment(device) | flow_library(config.data.flow)
        storage.put_json(f"{order.folder}/attempts/{attempt}/environment.json", found)
    data = features_of(order, device) if order.use == "features" else open_data(order)
    sink = _Sink(storage, order, attempt, report)
    state = newest_state(storage, order) if world == 1 or rank == 0 else None
    if world > 1:
        state = _same_for_all(state)
    if state is not None and rank == 0:
        _complete_epochs(storage, order, attempt, state)
    start = start_of(earlier(storage, order)[1], config, order.use) if order.use and state is None else None
    model = train(job, data, sink, state=state, start=start, device=device, rank=rank, world=world)
    for view in missing_views(storage, order):
        judged = model if view.protocol.checkpoint == "last" else _best_model(storage, order, device)
        size = config.recipe.batch_size
        scores = evaluate(
            judged, data, view.protocol, view.subset, device=device, batch_size=size, rank=rank, world=world
        )
        if rank == 0:
            _put_scores(storage, order, view, scores)


def open_data(order: Order, progress: Progress | None = None) -> RunData:
    """What the model of an order reads of its dataset, frames and flow cached."""
    config = order.config
    name = config.data.dataset
    recipe = config.recipe
    return open_run_data(
        open_dataset(name, dataset_folder(name, order.places.data)),
        config.data,
        augment=Augment(crop=recipe.crop, flip=recipe.flip, contrast=recipe.contrast),
        cache_dir=Path(order.places.cache),
        loader_workers=order.resources.loader_workers,
        progress=progress,
        inputs=inputs(config),
    )


def earlier(storage: Storage, order: Order) -> tuple[Config, State, bytes]:
    """The config and the final state of the run that an order starts from.

    Raises:
        StageError: it is not finished, or its checkpoint is gone.
    """
    (parent,) = order.parents
    spec = storage.get_json(f"runs/{parent}/spec.json")
    if spec is None:
        raise StageError(f"the earlier stage {parent} has not been run in this storage")
    config = Config.model_validate(spec["config"])
    found = (storage.get(name) for name in storage.checkpoints(parent))
    return config, *final_weights(parent, config, (data for data in found if data is not None))


def features_of(order: Order, device: str) -> FeatureData:
    """What an order with ``use: features`` reads: features of its videos by the frozen run, cached."""
    config, (parent, _, state) = order.config, earlier(Storage(order.places.storage), order)
    manifest = open_dataset(config.data.dataset, dataset_folder(config.data.dataset, order.places.data))
    cache = Path(order.places.cache)
    videos = open_run_data(
        manifest,
        config.data,
        augment=Augment(crop="center", flip=False),
        cache_dir=cache,
        loader_workers=order.resources.loader_workers,
        inputs=inputs(parent),
    )
    each_epoch: Literal["val", "test"] = "val" if config.data.holdout > 0 else "test"
    return open_features(
        videos,
        Source(order.parents[0], str(order.spec["dataset"]["fingerprint"]), config.data),
        cache,
        parent=parent,
        state=state,
        child=config,
        scored=[(each_epoch, Protocol()), *((view.subset, view.protocol) for view in order.views)],
        mirror=config.recipe.flip and manifest.flip != "never",
        device=device,
    )


def newest_state(storage: Storage, order: Order) -> bytes | None:
    """The newest whole checkpoint; a damaged one is passed over for the one before it."""
    best: tuple[tuple[int, int], bytes] | None = None
    for name in storage.checkpoints(order.run_id):
        data = storage.get(name)
        try:
            found = unpack(data) if data is not None else None
        except CorruptCheckpoint:
            continue
        if found is not None and data is not None and (best is None or (found.epoch, found.step) > best[0]):
            best = (found.epoch, found.step), data
    return None if best is None else best[1]


class _Sink:
    """Puts what training hands over into the run's folder, fenced by the attempt number."""

    def __init__(self, storage: Storage, order: Order, attempt: int, report: Report | None):
        self.storage, self.order, self.attempt, self.report = storage, order, attempt, report

    def epoch(self, epoch: int, metrics: dict[str, float], state: bytes, *, best: bool) -> None:
        # The checkpoint first: should the process die between the two, the epoch's metrics are in the checkpoint.
        self.checkpoint(state)
        if best:
            self.storage.put(f"{self.order.folder}/ckpt/best.{self.attempt}.pt", state)
        line = {"epoch": epoch, **metrics}
        self.storage.put_new(f"{self.order.folder}/epochs/{epoch}.{self.attempt}.json", dump(line))
        if self.report is not None:
            self.report(line)  # returns when the driver has heard it, and has decided
        if self.order.stoppable:
            self._stop_if_asked(epoch)

    def _stop_if_asked(self, epoch: int) -> None:
        asked = self.storage.get_json(f"{self.order.folder}/stop.json")
        if asked is not None and asked["epoch"] == epoch:
            raise Pruned(f"stopped by {asked['search']} after {epoch + 1} epochs")

    def checkpoint(self, state: bytes) -> None:
        later = [n for n in self.storage.names(f"{self.order.folder}/attempts") if int(n) > self.attempt]
        if later:
            raise Fenced(f"attempt {self.attempt} of {self.order.run_id} was superseded by attempt {later[-1]}")
        self.storage.put(f"{self.order.folder}/ckpt/last.{self.attempt}.pt", state)


class _Log:
    """Lines about a run, kept in ``log.txt`` beside those of earlier attempts."""

    def __init__(self, storage: Storage, order: Order):
        self.storage, self.name = storage, f"{order.folder}/log.txt"
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(f"{now()} {line}")

    def save(self) -> None:
        before = self.storage.get(self.name) or b""
        self.storage.put(self.name, before + "".join(f"{line}\n" for line in self.lines).encode())


def environment(device: str) -> dict[str, str]:
    """What the numbers may depend on beyond the config: recorded, and said in tables that mix it."""
    return {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else f"cpu {platform.machine()}",
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "retable": __version__,
    }


def _complete_epochs(storage: Storage, order: Order, attempt: int, state: bytes) -> None:
    """Write the metrics of an epoch whose attempt died after its checkpoint and before its metrics."""
    found = unpack(state)
    known = {int(n.split(".")[0]) for n in storage.names(f"{order.folder}/epochs")}
    if found.metrics and found.epoch - 1 not in known:
        line = {"epoch": found.epoch - 1, **found.metrics}
        storage.put_new(f"{order.folder}/epochs/{found.epoch - 1}.{attempt}.json", dump(line))


def _best_model(storage: Storage, order: Order, device: str) -> torch.nn.Module:
    for name in storage.checkpoints(order.run_id, "best"):
        data = storage.get(name)
        if data is not None:
            return load_model(order.config, data, device)
    raise RuntimeError("checkpoint: best_val needs data.holdout > 0, so that there are videos to choose on")


def _put_scores(storage: Storage, order: Order, view: View, scores: Scores) -> None:
    buffer = io.BytesIO()
    scores.to_parquet(buffer)
    storage.put(f"{order.folder}/scores/{view.key}.parquet", buffer.getvalue())
    storage.put_json(f"{order.folder}/scores/{view.key}.json", metrics(scores))


def _same_for_all(state: bytes | None) -> bytes | None:
    box = [state]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def _cost(storage: Storage, order: Order) -> dict[str, float]:
    epochs = list(storage.epochs(order.run_id))
    sums = {key: sum(e.get(key, 0.0) for e in epochs) for key in ("seconds", "cpu_seconds")}
    steps = [e["step_seconds"] for e in epochs if "step_seconds" in e]
    return {**sums, "step_seconds": median(steps) if steps else 0.0, "epochs": float(len(epochs))}


def _prune(storage: Storage, order: Order) -> None:
    """Keep the final checkpoint (and the best): those of the newest attempt that wrote one."""
    for kind in ("last", "best"):
        for name in storage.checkpoints(order.run_id, kind)[1:]:
            storage.delete(name)


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return f"out of memory: {error or 'host memory'}"
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]
