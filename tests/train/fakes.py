"""Videos in memory, a sink that keeps what it is given, and small jobs: what tests of training are made of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retable.data.config import Clip, Data, Protocol
from retable.data.loader import Batch
from retable.study.config import Config, Recipe, Resources
from retable.train.job import Job, Subset

MODEL = str(Path(__file__).with_name("tiny_model.py"))
_CROPS = {"center": 1, "three": 3, "ten": 10}


class Blobs:
    """A blob on noise that moves right, down or not at all: three classes, uint8 clips of 4 x 8 x 8.

    With ``swap``, moving right and moving down trade places in a mirror (not true, but a permutation), and half of the
    ten crops are mirrored. ``wasteful`` data draws from torch's global generator, as a ``DataLoader`` does. ``scale``
    enlarges the frames. With ``several``, odd videos carry class 0 beside their own, and even ones no label.
    """

    classes = ("right", "down", "still")

    def __init__(
        self,
        *,
        test: int = 7,
        val: int = 0,
        swap: bool = False,
        wasteful: bool = False,
        scale: int = 1,
        several: bool = False,
    ) -> None:
        self.counts: dict[str, int] = {"train": 26, "val": val, "test": test}
        self.flip_permutation: Tensor | None = torch.tensor([1, 0, 2]) if swap else None
        self.wasteful, self.scale, self.several = wasteful, scale, several
        self.trained: list[list[int]] = []

    def videos(self, subset: Subset) -> tuple[str, ...]:
        return tuple(f"{subset}/{i:02}.avi" for i in range(self.counts[subset]))

    def label_sets(self, subset: Subset) -> tuple[tuple[int, ...], ...] | None:
        if not self.several:
            return None
        return tuple((i % 3, 0) if i % 2 else () for i in range(self.counts[subset]))

    def steps(self, batch_size: int) -> int:
        return self.counts["train"] // batch_size

    def train_batches(
        self, epoch: int, batch_size: int, *, seed: int, start: int = 0, micro: int = 1, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        order = np.random.default_rng([seed, epoch]).permutation(self.counts["train"])
        part = batch_size // world // micro
        for update in range(start, self.steps(batch_size)):
            for m in range(micro):
                if self.wasteful:
                    torch.rand(3)
                first = update * batch_size + (rank * micro + m) * part
                rows = order[first : first + part].tolist()
                self.trained.append(rows)
                clips = [self._frames("train", i, (seed, epoch, i)) for i in rows]
                yield _batch(clips, rows, [False] * part)

    def eval_batches(
        self, subset: Subset, protocol: Protocol, batch_size: int, *, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        crops = _CROPS[protocol.crops]
        views = [
            (video, view) for video in range(rank, self.counts[subset], world) for view in range(protocol.clips * crops)
        ]
        size = max(1, batch_size // crops) * crops  # the crops of a clip stay together
        for first in range(0, len(views), size):
            chunk = views[first : first + size]
            clips = [self._frames(subset, video, (view,) if view else ()) for video, view in chunk]
            yield _batch(clips, [video for video, _ in chunk], [crops == 10 and view % 2 == 1 for _, view in chunk])

    def _frames(self, subset: str, video: int, noise: tuple[int, ...]) -> NDArray[np.uint8]:
        return clip(subset, video, noise).repeat(self.scale, axis=1).repeat(self.scale, axis=2)


def clip(subset: str, video: int, noise: tuple[int, ...] = ()) -> NDArray[np.uint8]:
    """``(4, 8, 8, 3)``; its class is ``video % 3``."""
    rng = np.random.default_rng([len(subset), video])
    pixels = rng.integers(0, 90, (4, 8, 8, 3))
    if noise:
        pixels += np.random.default_rng(noise).integers(0, 30, pixels.shape)
    y, x = rng.integers(0, 4, 2)
    for t in range(4):
        down, right = y + t * (video % 3 == 1), x + t * (video % 3 == 0)
        pixels[t, down : down + 2, right : right + 2] += 130
    return pixels.astype(np.uint8)


def _batch(clips: list[NDArray[np.uint8]], videos: list[int], mirrored: list[bool]) -> Batch:
    return Batch(
        clips={"rgb": torch.from_numpy(np.stack(clips))},
        labels=torch.tensor([video % 3 for video in videos]),
        videos=torch.tensor(videos),
        mirrored=torch.tensor(mirrored),
    )


class Kept:
    """A sink that keeps everything: ``states`` of every call in order, ``metrics`` by epoch, ``best`` epochs."""

    def __init__(self) -> None:
        self.states: list[bytes] = []
        self.metrics: dict[int, dict[str, float]] = {}
        self.best: list[int] = []

    def epoch(self, epoch: int, metrics: dict[str, float], state: bytes, *, best: bool) -> None:
        self.metrics[epoch] = metrics
        self.states.append(state)
        self.best += [epoch] if best else []

    def checkpoint(self, state: bytes) -> None:
        self.states.append(state)

    def wants_stop(self) -> bool:
        return False


def make_job(
    *, seed: int = 0, checkpoint_steps: int | None = None, holdout: float = 0.0, model: Any = None, **recipe: Any
) -> Job:
    """Two epochs of three updates of eight clips, unless told otherwise."""
    settings = {"epochs": 2, "batch_size": 8, "lr": 0.05, **recipe}
    return Job(
        config=Config(
            model={"name": MODEL, "num_classes": 3, "frames": 4, "size": 8, **(model or {})},
            data=Data(dataset="blobs", clip=Clip(frames=4, size=8), num_classes=3, holdout=holdout),
            recipe=Recipe.model_validate(settings),
        ),
        seed=seed,
        resources=Resources(checkpoint_steps=checkpoint_steps),
    )


def numbers(metrics: dict[int, dict[str, float]]) -> dict[int, dict[str, float]]:
    """Metrics without the times."""
    return {epoch: {k: v for k, v in row.items() if not k.endswith("seconds")} for epoch, row in metrics.items()}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Bit-identical state dicts."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
