"""Features of a frozen network, computed once and read from memory maps: their files, and the batches made of them.

A set of features is a folder ``<cache_dir>/features-<key>`` with ``array.bin`` (for every view of every video, ``(N, R,
T, C)`` float32) and ``index.json``; what binary classifiers say of them is kept likewise, as ``judged-<key>``. A folder
is written beside its final name and renamed, so that it exists whole or not at all. Who computes is not known here.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retable.data import PIPELINE_SEMANTICS
from retable.data.config import Data, Protocol
from retable.data.errors import DataError, DatasetError, DiskFull
from retable.data.files import in_turn, made
from retable.data.layouts import Subset
from retable.data.loader import Batch, RunData, epoch_rows, mirror_drawn
from retable.data.samples import view_drawn
from retable.data.transforms import MIRRORED_VIEWS

SEMANTICS = 1
"""Part of the ids of runs on features: raise it when the same network and videos would get other features."""

Write = Callable[[BinaryIO], tuple[int, ...]]
"""Writes an array's elements in C order and returns its shape."""


@dataclass(frozen=True)
class Views:
    """Which views of which videos: a protocol's, or while training ``drawn`` random ones; with none of them the centre
    one and, with ``mirror``, its mirror."""

    subset: Subset
    clips: int = 1
    crops: Literal["center", "three", "ten"] = "center"
    size: int | None = None
    mirror: bool = False
    drawn: int = 0

    @classmethod
    def of(cls, subset: Subset, protocol: Protocol) -> Views:
        """Those that a protocol scores."""
        return cls(subset, protocol.clips, protocol.crops, protocol.size)

    @property
    def mirrored(self) -> tuple[bool, ...]:
        """For each view of a video, whether it is a mirror image."""
        if self.drawn:
            return (False,) * self.drawn  # whether they are is part of what is drawn
        if self.subset == "train":
            return (False, True) if self.mirror else (False,)
        return MIRRORED_VIEWS[self.crops] * self.clips

    def nbytes(self, videos: int, frames: int, channels: int) -> int:
        """Bytes of the features of so many videos."""
        return videos * len(self.mirrored) * frames * channels * 4


@dataclass(frozen=True)
class Source:
    """What features depend on beyond the views: the frozen run, the dataset's content, and how clips are read."""

    parent: str
    fingerprint: str
    data: Data

    def describe(self, views: Views) -> dict[str, Any]:
        """All of it as plain data: what names a set of features."""
        read = self.data.model_dump(mode="json", exclude={"dataset"})
        return {
            "parent": self.parent,
            "dataset": self.fingerprint,
            "data": read,
            "views": vars(views),
            "semantics": [SEMANTICS, PIPELINE_SEMANTICS],
        }


def kept(
    kind: str, source: Source, views: Views, cache_dir: Path, write: Write, dtype: type[np.generic]
) -> NDArray[Any]:
    """An array from its memory map, made by ``write`` if it is not there; one process at a time makes it.

    Raises:
        DataError: what lies there is of another run, or damaged.
        DiskFull: it does not fit on the disk; nothing half-written is left.
    """
    told, folder = _place(kind, source, views, cache_dir)
    if not (folder / "index.json").is_file():
        cache_dir.mkdir(parents=True, exist_ok=True)
        with in_turn(folder.with_suffix(".lock")):
            if not (folder / "index.json").is_file():
                _build(folder, told, write)
    return _mapped(folder, told, dtype)


def examine(kind: str, source: Source, views: Views, cache_dir: Path, dtype: type[np.generic]) -> None:
    """Look at what is kept of this kind for these views, if anything is; compute nothing.

    Raises:
        DataError: what lies there is of another run, or damaged.
    """
    told, folder = _place(kind, source, views, cache_dir)
    if (folder / "index.json").is_file():
        _mapped(folder, told, dtype)


def _place(kind: str, source: Source, views: Views, cache_dir: Path) -> tuple[dict[str, Any], Path]:
    told = source.describe(views)
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]
    return told, cache_dir / f"{kind}-{key}"


def _build(folder: Path, told: Mapping[str, Any], write: Write) -> None:
    with made(folder) as temporary:
        try:
            with (temporary / "array.bin").open("wb") as file:
                shape = write(file)
                file.flush()
                os.fsync(file.fileno())
            index = json.dumps({"schema": 1, "of": told, "shape": shape})
            (temporary / "index.json").write_text(index, encoding="utf-8")
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            needed = sum(f.stat().st_size for f in temporary.iterdir())
            raise DiskFull(folder.parent, needed, f"features of run {told['parent']}, at least") from error


def _mapped(folder: Path, told: Mapping[str, Any], dtype: type[np.generic]) -> NDArray[Any]:
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        shape = tuple(index["shape"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / 'index.json'} is damaged ({error}); remove {folder}") from error
    if index["of"] != json.loads(json.dumps(told)):
        raise DataError(f"{folder} holds features of run {index['of']['parent']}, not of {told['parent']}: remove it")
    file = folder / "array.bin"
    found, wanted = file.stat().st_size if file.is_file() else 0, math.prod(shape) * np.dtype(dtype).itemsize
    if found != wanted:
        raise DataError(f"{file} is damaged: {found:,} bytes instead of {wanted:,}; remove {folder}")
    return np.memmap(file, dtype, "r", shape=shape)


class FeatureData:
    """The videos of one run as features: what training and evaluation read instead of pixels.

    Batches hold ``clips = {"features": float32 (B, T, C, 1, 1)}`` and, while training with ``judged`` (bool ``(N, R,
    T)``), ``side = {"judged": bool (B, T)}``. A training video is seen through its centre view or its mirror image.
    """

    def __init__(
        self, videos: RunData, sets: Mapping[Views, NDArray[np.float32]], judged: NDArray[np.bool_] | None = None
    ) -> None:
        self.classes, self.dataset, self.flip_permutation = videos.classes, videos.dataset, videos.flip_permutation
        self._videos, self._sets, self._judged = videos, sets, judged
        self._train = next(views for views in sets if views.subset == "train")
        self._labels = train_labels(videos, self._train)

    def videos(self, subset: Subset) -> tuple[str, ...]:
        """Relative paths of the subset's videos, in the order that ``Batch.videos`` numbers them."""
        return self._videos.videos(subset)

    def label_sets(self, subset: Subset) -> tuple[tuple[int, ...], ...] | None:
        """All labels of each of the subset's videos; None where every video has exactly one."""
        return self._videos.label_sets(subset)

    def steps(self, batch_size: int) -> int:
        """Updates per epoch (DatasetError if the training set is smaller than one batch)."""
        return self._videos.steps(batch_size)

    def train_batches(
        self, epoch: int, batch_size: int, *, seed: int, start: int = 0, micro: int = 1, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """As :meth:`retable.data.loader.RunData.train_batches`, in the same order."""
        self.steps(batch_size)
        count = len(self.videos("train"))
        for rows in epoch_rows(count, epoch, batch_size, seed=seed, start=start, micro=micro, rank=rank, world=world):
            yield self._trained(rows, [self._view(seed, epoch, row) for row in rows])

    def _view(self, seed: int, epoch: int, row: int) -> int:
        """Through which of its kept views a video is seen."""
        if self._train.drawn:
            return view_drawn(seed, epoch, row, self._train.drawn)
        return int(self._train.mirror and mirror_drawn(seed, epoch, row))

    def _trained(self, rows: list[int], views: list[int]) -> Batch:
        at, turned = (rows, views), [self._train.mirrored[view] for view in views]
        side = {} if self._judged is None else {"judged": torch.from_numpy(self._judged[at])}
        clips = _clips(self._sets[self._train][at])
        return Batch(clips, torch.from_numpy(self._labels[at]), torch.tensor(rows), torch.tensor(turned), side)

    def eval_batches(
        self, subset: Subset, protocol: Protocol, batch_size: int, *, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """Every view of videos ``rank``, ``rank + world``, ...; a batch has whole videos."""
        views = Views.of(subset, protocol)
        if views not in self._sets:
            raise DatasetError(f"there are no features of {subset} videos under {protocol.clips} x {protocol.crops}")
        features, mirrored = self._sets[views], views.mirrored
        labels = view_labels(self._videos, subset, (False,))[:, 0]
        rows, part = list(range(rank, len(features), world)), max(1, batch_size // len(mirrored))
        for i in range(0, len(rows), part):
            here = np.repeat(rows[i : i + part], len(mirrored))
            clips = _clips(features[rows[i : i + part]].reshape(len(here), *features.shape[2:]))
            turned = torch.tensor(mirrored * len(rows[i : i + part]))
            yield Batch(clips, torch.from_numpy(labels[here]), torch.from_numpy(here), turned)


def train_labels(videos: RunData, views: Views) -> NDArray[np.int64]:
    """``(N, R)``: the label of each training view."""
    return videos.drawn_labels(views.drawn) if views.drawn else view_labels(videos, "train", views.mirrored)


def view_labels(videos: RunData, subset: Subset, mirrored: tuple[bool, ...]) -> NDArray[np.int64]:
    """``(N, R)``: the label of each view, where a mirror may swap it."""
    plain = np.asarray(videos.labels(subset), np.int64)
    swap = videos.flip_permutation
    other = plain if swap is None else swap.numpy()[plain]
    return np.stack([other if turned else plain for turned in mirrored], axis=1)


def _clips(features: NDArray[np.float32]) -> dict[str, Tensor]:
    return {"features": torch.from_numpy(np.array(features))[..., None, None]}
