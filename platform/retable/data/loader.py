"""Batches of uint8 clips for training and evaluation. What a batch holds depends on the dataset, the config, the seed,
the epoch and the position in it; never on workers, caches, or where the epoch was taken up again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from retable.data import PIPELINE_SEMANTICS as SEMANTICS
from retable.data.cache import DEFAULT_LIMIT, FrameSource, Progress, open_frames
from retable.data.config import Clip, Data, Flow, Protocol
from retable.data.errors import DamagedVideo, DatasetError
from retable.data.flow_store import FlowStore, open_flow
from retable.data.layouts import FlipRule, Item, Subset
from retable.data.manifest import Manifest
from retable.data.sampling import Indices, flow_stacks, test_clips, train_clip
from retable.data.transforms import CROPS, MIRRORED_VIEWS, center_crop, contrast, crop_at, mirror, negate_x
from retable.nn import InputSpec

__all__ = ["SEMANTICS", "Augment", "Batch", "RunData", "epoch_rows", "mirror_drawn", "open_run_data"]

_AUGMENT, _SHUFFLE = 1, 2  # streams of random numbers


@dataclass(frozen=True)
class Batch:
    """Clips of one step.

    ``clips``: by input name, ``rgb`` uint8 ``(B, T, H, W, 3)``, ``flow`` uint8 ``(B, T, H, W, 2 L)``.
    ``labels``: int64 ``(B,)``, after a mirror that swaps labels.
    ``videos``: int64 ``(B,)``, row in the subset's video list; in evaluation a video has clips x crops rows.
    ``mirrored``: bool ``(B,)``, evaluation views whose probabilities ``RunData.flip_permutation`` puts back in order.
    ``side``: bool tensors ``(B, ...)`` that the model's ``label_losses`` takes by name.
    """

    clips: dict[str, Tensor]
    labels: Tensor
    videos: Tensor
    mirrored: Tensor
    side: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Augment:
    """The part of a recipe that changes pixels; fields as in :class:`retable.study.config.Recipe`."""

    crop: Literal["random", "center"] = "random"
    flip: bool = True
    contrast: float = 0.0


@dataclass(frozen=True)
class _Key:
    """Names one unit of work: a training sample (``seed``, ``epoch``, ``row``), or one test clip of a video."""

    subset: Subset
    row: int
    seed: int = 0
    epoch: int = 0
    clip: int = 0
    protocol: Protocol | None = None


@dataclass(frozen=True)
class _Rows:
    """Views made for one key, by input name ``(R, T, H, W, C)`` uint8, with label, video row and mirror of each."""

    clips: dict[str, NDArray[np.uint8]]
    labels: list[int]
    videos: list[int]
    mirrored: list[bool]


class _Samples(TorchDataset[_Rows]):
    """From a key to its views. Everything a data process needs, and no state."""

    def __init__(
        self,
        items: dict[Subset, tuple[Item, ...]],
        frames: FrameSource,
        clip: Clip,
        augment: Augment,
        manifest: Manifest,
        inputs: Mapping[str, InputSpec],
        flow: FlowStore | None,
    ) -> None:
        self.items, self.frames, self.clip, self.augment = items, frames, clip, augment
        self.inputs, self.flow = inputs, flow
        self.flip: FlipRule = manifest.flip
        self.swap = manifest.flip_permutation()

    def __getitem__(self, key: _Key) -> _Rows:
        item = self.items[key.subset][key.row]
        if key.protocol is None:
            return self._train(key, item)
        return self._view(key, item, key.protocol)

    def _train(self, key: _Key, item: Item) -> _Rows:
        """One augmented clip. Every draw is made whether used or not: rows of a table see the same clips."""
        rng = np.random.default_rng([_AUGMENT, key.seed, key.epoch, key.row])
        indices = train_clip(self.frames.counts[item.path], self.clip, rng)
        down, right, turned, factor = (float(x) for x in rng.random(4))
        mirrored = self.augment.flip and self.flip != "never" and turned < 0.5
        clips = {}
        for name, frames in self._clips(item, indices):
            size = self.clip.size
            frames = crop_at(frames, size, down, right) if self.augment.crop == "random" else center_crop(frames, size)
            if mirrored:
                frames = mirror(frames) if name == "rgb" else negate_x(mirror(frames))
            if name == "rgb" and self.augment.contrast:
                frames = contrast(frames, 1.0 + self.augment.contrast * (2.0 * factor - 1.0))
            clips[name] = np.ascontiguousarray(frames)[None]
        label = self.swap[item.label] if mirrored and self.swap is not None else item.label
        return _Rows(clips, [label], [key.row], [False])

    def _view(self, key: _Key, item: Item, protocol: Protocol) -> _Rows:
        indices = test_clips(self.frames.counts[item.path], self.clip, protocol.clips)[key.clip]
        mirrored = list(MIRRORED_VIEWS[protocol.crops])
        clips = {}
        for name, frames in self._clips(item, indices):
            views = CROPS[protocol.crops](frames, self.clip.size)
            if name == "flow":
                views = [negate_x(view) if turned else view for view, turned in zip(views, mirrored, strict=True)]
            clips[name] = np.stack(views)
        return _Rows(clips, [item.label] * len(mirrored), [key.row] * len(mirrored), mirrored)

    def _clips(self, item: Item, indices: Indices) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        """What the model reads of one clip, uncropped, by input name: frames, and the stacks of flow around them."""
        if "rgb" in self.inputs:
            yield "rgb", self.frames.read(item.path, indices.tolist())
        if self.flow is not None:
            spec, n = self.inputs["flow"], self.frames.counts[item.path]
            yield "flow", self.flow.read(item.path, flow_stacks(indices, n, spec.fields, centred=spec.centred))


class RunData:
    """The videos of one run, as batches, one iterator at a time. Made by :func:`open_run_data`."""

    def __init__(self, manifest: Manifest, samples: _Samples, loader_workers: int) -> None:
        self.classes = manifest.classes
        self.dataset = manifest.name
        swap = samples.swap
        self.flip_permutation: Tensor | None = None if swap is None else torch.tensor(swap)
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
        return self._load([[_Key("train", row, seed, epoch) for row in part] for part in parts])

    def eval_batches(
        self, subset: Subset, protocol: Protocol, batch_size: int, *, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """Every view of videos ``rank``, ``rank + world``, ...: each video ``clips`` x ``crops`` rows in a row.

        A batch has at most ``batch_size`` rows, but at least the crops of one clip.

        Raises:
            DatasetError: the protocol needs mirrored views and the dataset's labels do not allow mirroring.
        """
        views = MIRRORED_VIEWS[protocol.crops]
        if any(views) and self._samples.flip == "never":
            raise DatasetError(
                f"dataset {self.dataset} must not be mirrored: use crops center or three, not {protocol.crops}"
            )
        count = len(self._samples.items[subset])
        keys = [
            _Key(subset, row, clip=c, protocol=protocol)
            for row in range(rank, count, world)
            for c in range(protocol.clips)
        ]
        part = max(1, batch_size // len(views))
        return self._load([keys[i : i + part] for i in range(0, len(keys), part)])

    def _load(self, batches: list[list[_Key]]) -> Iterator[Batch]:
        if self._workers == 0:
            return (_collate([self._samples[key] for key in keys]) for keys in batches)
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
            collate_fn=_collate,
            persistent_workers=True,
            generator=torch.Generator(),  # its own: starting a pass must not draw from the run's global generator
        )


class _Batches:
    """The batch sampler of a persistent DataLoader: a new list of keys for every pass."""

    def __init__(self) -> None:
        self.keys: list[list[_Key]] = []

    def __iter__(self) -> Iterator[list[_Key]]:
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


def mirror_drawn(seed: int, epoch: int, row: int) -> bool:
    """Whether a training sample is seen mirrored where its place, crop and contrast are not drawn: p = 0.5."""
    return bool(np.random.default_rng([_AUGMENT, seed, epoch, row]).random() < 0.5)


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
        augment: training augmentation from the recipe.
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
    return RunData(manifest, _Samples(subsets, frames, data.clip, augment, manifest, inputs, flow), loader_workers)


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


def _collate(rows: Sequence[_Rows]) -> Batch:
    return Batch(
        clips={name: torch.from_numpy(np.concatenate([r.clips[name] for r in rows])) for name in rows[0].clips},
        labels=torch.tensor([label for r in rows for label in r.labels]),
        videos=torch.tensor([video for r in rows for video in r.videos]),
        mirrored=torch.tensor([flag for r in rows for flag in r.mirrored], dtype=torch.bool),
    )
