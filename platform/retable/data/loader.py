"""Batches of uint8 clips for training and evaluation. What a batch holds depends on the dataset, the config, the seed,
the epoch and the position in it; never on workers, caches, or where the epoch was taken up again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from retable.data import PIPELINE_SEMANTICS as SEMANTICS
from retable.data.cache import DEFAULT_LIMIT, Progress, open_frames
from retable.data.config import Augment, Data, Flow, Protocol
from retable.data.errors import DamagedVideo, DatasetError
from retable.data.flow_store import open_flow
from retable.data.layouts import Item, Subset
from retable.data.manifest import Manifest
from retable.data.samples import Batch, Key, Samples, collate, mirror_drawn
from retable.data.transforms import MIRRORED_VIEWS
from retable.nn import InputSpec

__all__ = ["SEMANTICS", "Augment", "Batch", "RunData", "epoch_rows", "mirror_drawn", "open_run_data"]

_SHUFFLE = 2  # a stream of random numbers; augmentation is another


class RunData:
    """The videos of one run, as batches, one iterator at a time. Made by :func:`open_run_data`."""

    def __init__(self, manifest: Manifest, samples: Samples, loader_workers: int) -> None:
        self.classes = manifest.classes
        self.dataset = manifest.name
        swap = samples.swap
        self.flip_permutation: Tensor | None = None if swap is None else torch.tensor(swap)
        self.mirrors = samples.mirrors
        self._samples = samples
        self._workers = loader_workers

    def videos(self, subset: Subset) -> tuple[str, ...]:
        """Relative paths of the subset's videos, in the order that ``Batch.videos`` numbers them."""
        return tuple(item.path for item in self._samples.items[subset])

    def label_sets(self, subset: Subset) -> tuple[tuple[int, ...], ...] | None:
        """All labels of each of the subset's videos; None where every video has exactly one."""
        items = self._samples.items[subset]
        if not _label_sets(items):
            return None
        return tuple((item.label,) if item.labels is None else item.labels for item in items)

    def labels(self, subset: Subset) -> tuple[int, ...]:
        """The labels of the subset's videos, in the same order."""
        return tuple(item.label for item in self._samples.items[subset])

    @property
    def damaged(self) -> dict[str, str]:
        """Dropped videos (``on_damage: drop``) and what is wrong with each."""
        return dict(self._samples.frames.damaged)

    def steps(self, batch_size: int) -> int:
        """Updates per epoch; the last, partial batch is dropped.

        Raises:
            DatasetError: the training set is smaller than one batch.
        """
        count = len(self._samples.items["train"])
        if count < batch_size:
            raise DatasetError(f"dataset {self.dataset}: {count} training videos do not fill a batch of {batch_size}")
        return count // batch_size

    def train_batches(
        self, epoch: int, batch_size: int, *, seed: int, start: int = 0, micro: int = 1, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """Micro-batches of updates ``start`` to the end of ``epoch``, for one rank: ``micro`` per update.

        Update u trains on places ``u * batch_size`` to ``(u + 1) * batch_size`` of the epoch's permutation, cut in
        ``world`` rank slices, each cut in ``micro`` parts. A sample's augmentation depends on (seed, epoch, sample).

        Raises:
            ValueError: ``world * micro`` does not divide ``batch_size``.
        """
        self.steps(batch_size)
        count = len(self._samples.items["train"])
        parts = epoch_rows(count, epoch, batch_size, seed=seed, start=start, micro=micro, rank=rank, world=world)
        return self._load([[Key("train", row, seed, epoch) for row in part] for part in parts])

    def drawn_batches(self, views: int, batch_size: int) -> Iterator[Batch]:
        """So many random views of every training video, drawn like training clips: the same whenever they are asked
        for, video by video."""
        keys = self._drawn(views)
        return self._load([keys[i : i + batch_size] for i in range(0, len(keys), batch_size)])

    def drawn_labels(self, views: int) -> NDArray[np.int64]:
        """``(N, views)``: the labels of :meth:`drawn_batches`, without reading them."""
        labels = [self._samples.label(key) for key in self._drawn(views)]
        return np.array(labels, np.int64).reshape(-1, views)

    def _drawn(self, views: int) -> list[Key]:
        return [Key("train", row, 0, view) for row in range(len(self._samples.items["train"])) for view in range(views)]

    def eval_batches(
        self, subset: Subset, protocol: Protocol, batch_size: int, *, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """Every view of videos ``rank``, ``rank + world``, ...: each video ``clips`` x ``crops`` rows in a row.

        A batch has at most ``batch_size`` rows, but at least the crops of one clip.

        Raises:
            DatasetError: the protocol needs mirrored views and the dataset's labels do not allow mirroring.
        """
        views = MIRRORED_VIEWS[protocol.crops]
        if any(views) and not self._samples.mirrored_views:
            raise DatasetError(
                f"dataset {self.dataset} must not be mirrored: use crops center or three, not {protocol.crops}"
            )
        count = len(self._samples.items[subset])
        keys = [
            Key(subset, row, clip=c, protocol=protocol)
            for row in range(rank, count, world)
            for c in range(protocol.clips)
        ]
        part = max(1, batch_size // len(views))
        return self._load([keys[i : i + part] for i in range(0, len(keys), part)])

    def _load(self, batches: list[list[Key]]) -> Iterator[Batch]:
        if self._workers == 0:
            return (collate([self._samples[key] for key in keys]) for keys in batches)
        self._batches.keys = batches
        return iter(self._loader)

    @cached_property
    def _batches(self) -> _Batches:
        return _Batches()

    @cached_property
    def _loader(self) -> DataLoader[Batch]:
        return DataLoader(
            self._samples,  # type: ignore[arg-type]
            batch_sampler=self._batches,
            num_workers=self._workers,
            collate_fn=collate,
            persistent_workers=True,
            pin_memory=torch.cuda.is_available(),
            multiprocessing_context=None if self._samples.frames.forks else "spawn",
            generator=torch.Generator(),  # its own: starting a pass must not draw from the run's global generator
        )


class _Batches:
    """The batch sampler of a persistent DataLoader: a new list of keys for every pass."""

    def __init__(self) -> None:
        self.keys: list[list[Key]] = []

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


def epoch_rows(
    count: int, epoch: int, batch_size: int, *, seed: int, start: int = 0, micro: int = 1, rank: int = 0, world: int = 1
) -> list[list[int]]:
    """The rows of every micro-batch that :meth:`RunData.train_batches` describes, of ``count`` training videos.

    Raises:
        ValueError: ``world * micro`` does not divide ``batch_size``.
    """
    if batch_size % (world * micro):
        raise ValueError(f"batch_size {batch_size} must be a multiple of world x micro = {world} x {micro}")
    steps, part = count // batch_size, batch_size // (world * micro)
    order = np.random.default_rng([_SHUFFLE, seed, epoch]).permutation(count).tolist()
    firsts = [u * batch_size + (rank * micro + m) * part for u in range(start, steps) for m in range(micro)]
    return [order[i : i + part] for i in firsts]


def open_run_data(
    manifest: Manifest,
    data: Data,
    *,
    augment: Augment,
    cache_dir: Path | str,
    loader_workers: int = 0,
    cache_limit: int = DEFAULT_LIMIT,
    progress: Progress | None = None,
    inputs: Mapping[str, InputSpec] | None = None,
) -> RunData:
    """Everything a run reads, ready: splits, hold-out, damage policy, frame cache.

    Args:
        manifest: from :func:`retable.data.manifest.open_dataset`, of dataset ``data.dataset``.
        data: split, clip, hold-out and damage policy of the run.
        augment: training augmentation: the recipe. Its ``flip`` also says whether mirrored test views swap labels.
        cache_dir: folder for decoded frames, shared by runs; made if need be.
        loader_workers: data processes; 0 reads in this process. Changes no number.
        cache_limit: a dataset that decodes to more bytes is read from its video files.
        progress: told (videos done, videos in all) while videos are decoded, or their flow computed, the first time.
        inputs: what the run's model takes; default: rgb. Flow is computed as ``data.flow`` says.

    Raises:
        DatasetError: see :meth:`Manifest.items`; an input that cannot be read from videos; a class count that the
            dataset does not have; or training videos with several labels or none.
        FlowUnavailable: the model takes flow, which cannot be computed here.
        DamagedVideo: a video does not decode and ``data.on_damage`` is ``error``.
        DiskFull: no space left in ``cache_dir``.
    """
    inputs = _RGB if inputs is None else inputs
    _refuse_inputs(inputs, data)
    if data.num_classes not in (None, len(manifest.classes)):
        raise DatasetError(
            f"data.num_classes is {data.num_classes} but {manifest.name} has {len(manifest.classes)} classes"
        )
    items = manifest.items(data.split, holdout=data.holdout)
    _refuse_label_sets(manifest.name, items)
    paths, side, cache_dir = [i.path for i in items], data.clip.short_side, Path(cache_dir)
    frames = open_frames(manifest, paths, side, cache_dir, limit=cache_limit, progress=progress)
    if frames.damaged and data.on_damage == "error":
        path, reason = next(iter(frames.damaged.items()))
        raise DamagedVideo(
            manifest.root / path, f"{reason} ({len(frames.damaged)} damaged; data.on_damage: drop leaves them out)"
        )
    subsets = {s: tuple(i for i in items if i.subset == s and i.path not in frames.damaged) for s in _SUBSETS}
    flow = None
    if "flow" in inputs:
        flow = open_flow(manifest, paths, frames, data.flow or Flow(), side, cache_dir, progress=progress)
    return RunData(manifest, Samples(subsets, frames, data, augment, manifest, inputs, flow), loader_workers)


_SUBSETS: tuple[Subset, ...] = ("train", "val", "test")
_RGB: Mapping[str, InputSpec] = {"rgb": InputSpec((1, 3, 1, 1))}


def _refuse_inputs(inputs: Mapping[str, InputSpec], data: Data) -> None:
    other = sorted(set(inputs) - {"rgb", "flow"})
    if other:
        raise DatasetError(f"the model takes {', '.join(other)}, which cannot be read from videos")
    if data.stream not in inputs:
        raise DatasetError(f"the stream is {data.stream}, but the model takes {', '.join(inputs)} only")
    flow = inputs.get("flow")
    if flow is not None and flow.shape[1] != 2 * flow.fields:
        raise DatasetError(
            f"the model takes {flow.shape[1]} channels of flow for {flow.fields} fields; only x and y can be read,"
            f" which are {2 * flow.fields}"
        )


def _label_sets(items: Sequence[Item]) -> list[Item]:
    """The videos that carry several labels or none."""
    return [item for item in items if item.labels is not None and len(item.labels) != 1]


def _refuse_label_sets(name: str, items: Sequence[Item]) -> None:
    """A network of one class per video cannot learn from a video that has several or none: say so before training."""
    sets = _label_sets([item for item in items if item.subset == "train"])
    if sets:
        raise DatasetError(
            f"dataset {name}: {len(sets)} training videos carry several labels or none (such as {sets[0].path});"
            " they can be scored, but not trained on: choose a split that trains on videos of one label each"
        )
