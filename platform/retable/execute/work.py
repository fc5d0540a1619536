"""One rank's work on a run, without Ray: open what it reads, train from the newest checkpoint, score the views."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from retable.data.cache import Progress
from retable.data.features import FeatureData, Source, Views
from retable.data.flow import library as flow_library
from retable.data.loader import RunData, open_run_data
from retable.data.manifest import dataset_folder, open_dataset
from retable.data.samples import mirrors
from retable.execute.attempt import environment
from retable.execute.order import Order, missing_views
from retable.execute.sink import Report, StorageSink, complete_epochs, put_scores
from retable.study.config import Config, Protocol
from retable.track.storage import Storage
from retable.train.checkpoint import CorruptCheckpoint, State, unpack
from retable.train.evaluate import evaluate, for_protocol, load_model
from retable.train.job import Job
from retable.train.loop import train
from retable.train.model import inputs
from retable.train.stages import StageError, final_weights, open_features, start_of


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
    sink = StorageSink(storage, order, attempt, report)
    state = newest_state(storage, order) if world == 1 or rank == 0 else None
    if world > 1:
        state = _same_for_all(state)
    if state is not None and rank == 0:
        complete_epochs(storage, order, attempt, state)
    start = start_of(earlier(storage, order)[1], config, order.use) if order.use and state is None else None
    model = train(job, data, sink, state=state, start=start, device=device, rank=rank, world=world)
    for view in missing_views(storage, order):
        judged = model if view.protocol.checkpoint == "last" else _best_model(storage, order, device)
        judged = for_protocol(judged, config, view.protocol)
        size = config.recipe.batch_size
        scores = evaluate(
            judged, data, view.protocol, view.subset, device=device, batch_size=size, rank=rank, world=world
        )
        if rank == 0:
            put_scores(storage, order, view, scores)


def open_data(order: Order, progress: Progress | None = None) -> RunData:
    """What the model of an order reads of its dataset, frames and flow cached."""
    config = order.config
    name = config.data.dataset
    return open_run_data(
        open_dataset(name, dataset_folder(name, order.places.data)),
        config.data,
        augment=config.recipe,
        cache_dir=Path(order.places.cache),
        loader_workers=order.resources.data_processes(),
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


def feature_views(order: Order) -> tuple[Source, list[Views]]:
    """What an order with ``use: features`` reads: whose features, and of which views; those of training first."""
    config = order.config
    manifest = open_dataset(config.data.dataset, dataset_folder(config.data.dataset, order.places.data))
    each_epoch: Literal["val", "test"] = "val" if config.data.holdout > 0 else "test"
    scored = [(each_epoch, Protocol()), *((view.subset, view.protocol) for view in order.views)]
    drawn = config.recipe.feature_views
    train = Views("train", mirror=not drawn and mirrors(config.recipe, manifest.flip), drawn=drawn)
    source = Source(order.parents[0], str(order.spec["dataset"]["fingerprint"]), config.data)
    return source, [train, *dict.fromkeys(Views.of(subset, protocol) for subset, protocol in scored)]


def features_of(order: Order, device: str) -> FeatureData:
    """The features of an order's videos by the frozen run, computed where they are not cached."""
    config, (parent, _, state) = order.config, earlier(Storage(order.places.storage), order)
    manifest = open_dataset(config.data.dataset, dataset_folder(config.data.dataset, order.places.data))
    cache = Path(order.places.cache)
    videos = open_run_data(
        manifest,
        config.data,
        augment=config.recipe,
        cache_dir=cache,
        loader_workers=order.resources.data_processes(),
        inputs=inputs(parent),
    )
    source, views = feature_views(order)
    return open_features(videos, source, views, cache, parent=parent, state=state, child=config, device=device)


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


def _best_model(storage: Storage, order: Order, device: str) -> torch.nn.Module:
    for name in storage.checkpoints(order.run_id, "best"):
        data = storage.get(name)
        if data is not None:
            return load_model(order.config, data, device)
    raise RuntimeError("checkpoint: best_val needs data.holdout > 0, so that there are videos to choose on")


def _same_for_all(state: bytes | None) -> bytes | None:
    box = [state]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]
