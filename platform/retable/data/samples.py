"""From the name of a unit of work to its views: reading, sampling, cropping, augmenting. What a data process runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from retable.data.cache import FrameSource
from retable.data.config import Augment, Data, Protocol
from retable.data.flow_store import FlowStore
from retable.data.layouts import FlipRule, Item, Subset
from retable.data.manifest import Manifest
from retable.data.sampling import Indices, flow_stacks, test_clips, train_clip
from retable.data.transforms import CROPS, MIRRORED_VIEWS, contrast, cut, mirror, negate_x
from retable.data.windows import Draw, train_window
from retable.nn import InputSpec

_AUGMENT = 1  # a stream of random numbers; the loader's shuffle is another


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

    def pin_memory(self) -> Self:
        """The same with its clips in page-locked memory, from where a GPU takes them without the host's waiting."""
        return type(self)(
            {name: clip.pin_memory() for name, clip in self.clips.items()},
            self.labels, self.videos, self.mirrored, self.side,
        )  # fmt: skip


@dataclass(frozen=True)
class Key:
    """Names one unit of work: a training sample (``seed``, ``epoch``, ``row``), or one test clip of a video."""

    subset: Subset
    row: int
    seed: int = 0
    epoch: int = 0
    clip: int = 0
    protocol: Protocol | None = None


@dataclass(frozen=True)
class Rows:
    """Views made for one key, by input name ``(R, T, H, W, C)`` uint8, with label, video row and mirror of each."""

    clips: dict[str, NDArray[np.uint8]]
    labels: list[int]
    videos: list[int]
    mirrored: list[bool]


def mirrors(augment: Augment, rule: FlipRule) -> bool:
    """Whether half of the training clips are mirror images."""
    return augment.flip == "plain" or (augment.flip == "swap_labels" and rule != "never")


def view_drawn(seed: int, epoch: int, row: int, views: int) -> int:
    """Which of a video's kept training views a sample is."""
    return int(np.random.default_rng([_AUGMENT, seed, epoch, row]).integers(views))


def mirror_drawn(seed: int, epoch: int, row: int) -> bool:
    """Whether a training sample is seen mirrored where its place, crop and contrast are not drawn: p = 0.5."""
    return bool(np.random.default_rng([_AUGMENT, seed, epoch, row]).random() < 0.5)


class Samples(TorchDataset[Rows]):
    """From a key to its views. Everything a data process needs, and no state."""

    def __init__(
        self,
        items: dict[Subset, tuple[Item, ...]],
        frames: FrameSource,
        data: Data,
        augment: Augment,
        manifest: Manifest,
        inputs: Mapping[str, InputSpec],
        flow: FlowStore | None,
    ) -> None:
        self.items, self.frames, self.clip, self.augment = items, frames, data.clip, augment
        self.inputs, self.flow = inputs, flow
        self.scales = augment.scales.rgb if data.stream == "rgb" else augment.scales.flow
        self.mirrors = mirrors(augment, manifest.flip)
        self.mirrored_views = augment.flip == "plain" or manifest.flip != "never"
        self.swap = None if augment.flip == "plain" else manifest.flip_permutation()

    def __getitem__(self, key: Key) -> Rows:
        item = self.items[key.subset][key.row]
        if key.protocol is None:
            return self._train(key, item)
        return self._view(key, item, key.protocol)

    def _train(self, key: Key, item: Item) -> Rows:
        """One augmented clip."""
        indices, draw, mirrored, label = self._drawn(key, item)
        clips = {}
        for name, frames in self._clips(item, indices):
            size, (height, width) = self.clip.size, frames.shape[1:3]
            frames = cut(frames, train_window(height, width, size, self.augment, draw, self.scales), size)
            if mirrored:
                frames = mirror(frames) if name == "rgb" else negate_x(mirror(frames))
            if name == "rgb" and self.augment.contrast:
                frames = contrast(frames, 1.0 + self.augment.contrast * (2.0 * draw.contrast - 1.0))
            clips[name] = np.ascontiguousarray(frames)[None]
        return Rows(clips, [label], [key.row], [False])

    def label(self, key: Key) -> int:
        """The label of a training sample, without reading it."""
        return self._drawn(key, self.items[key.subset][key.row])[-1]

    def _drawn(self, key: Key, item: Item) -> tuple[Indices, Draw, bool, int]:
        """What is drawn for a training sample: its frames, its window, whether it is mirrored; and its label then."""
        rng = np.random.default_rng([_AUGMENT, key.seed, key.epoch, key.row])
        indices = train_clip(self.frames.counts[item.path], self.clip, rng)
        draw = Draw.of(rng)
        mirrored = self.mirrors and draw.turn < 0.5
        return indices, draw, mirrored, self.swap[item.label] if mirrored and self.swap is not None else item.label

    def _view(self, key: Key, item: Item, protocol: Protocol) -> Rows:
        indices = test_clips(self.frames.counts[item.path], self.clip, protocol.clips)[key.clip]
        mirrored = list(MIRRORED_VIEWS[protocol.crops])
        clips = {}
        for name, frames in self._clips(item, indices):
            views = CROPS[protocol.crops](frames, protocol.size or self.clip.size)
            if name == "flow":
                views = [negate_x(view) if turned else view for view, turned in zip(views, mirrored, strict=True)]
            clips[name] = np.stack(views)
        return Rows(clips, [item.label] * len(mirrored), [key.row] * len(mirrored), mirrored)

    def _clips(self, item: Item, indices: Indices) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        """What the model reads of one clip, uncropped, by input name: frames, and the stacks of flow around them."""
        if "rgb" in self.inputs:
            yield "rgb", self.frames.read(item.path, indices.tolist())
        if self.flow is not None:
            spec, n = self.inputs["flow"], self.frames.counts[item.path]
            yield "flow", self.flow.read(item.path, flow_stacks(indices, n, spec.fields, centred=spec.centred))


def collate(rows: Sequence[Rows]) -> Batch:
    """The views of several keys as one batch."""
    return Batch(
        clips={name: torch.from_numpy(np.concatenate([r.clips[name] for r in rows])) for name in rows[0].clips},
        labels=torch.tensor([label for r in rows for label in r.labels]),
        videos=torch.tensor([video for r in rows for video in r.videos]),
        mirrored=torch.tensor([flag for r in rows for flag in r.mirrored], dtype=torch.bool),
    )
