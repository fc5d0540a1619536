"""Scoring a trained model: every video of a subset once, its softmax scores averaged over its views."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retable.data.config import Protocol
from retable.study.config import Config
from retable.track.scores import Scores, confusion, metrics, multi_hot
from retable.train.checkpoint import check, unpack
from retable.train.job import RunData, Subset
from retable.train.model import build_model, input_specs, load_weights, to_inputs
from retable.train.process import gather, one_thread, rng_kept

if TYPE_CHECKING:
    from retable.data.loader import Batch

SEMANTICS = 1
"""Part of a view's id: raise it when the same weights and videos would get other scores."""

CROPS = {"center": 1, "three": 3, "ten": 10}
"""Views of a clip."""


class _Sums:
    """Probabilities added up per video, in float64 and in the order of the views."""

    def __init__(self, videos: int, classes: int) -> None:
        self.probs = np.zeros((videos, classes))
        self.views = np.zeros(videos, np.int64)
        self.labels = np.full(videos, -1, np.int64)

    def add(self, videos: NDArray[np.int64], labels: NDArray[np.int64], probs: NDArray[Any]) -> None:
        np.add.at(self.probs, videos, probs)
        np.add.at(self.views, videos, 1)
        self.labels[videos] = labels

    def part(self) -> tuple[NDArray[Any], ...]:
        """The rows that have been added to: their numbers, probabilities, views and labels."""
        rows = np.flatnonzero(self.views)
        return rows, self.probs[rows], self.views[rows], self.labels[rows]


def _whole(mine: _Sums, world: int) -> _Sums:
    """The sums of all ranks, on every rank."""
    whole = _Sums(*mine.probs.shape)
    for rows, probs, views, labels in gather(mine.part(), world):
        whole.probs[rows] += probs
        whole.views[rows] += views
        whole.labels[rows] = labels
    return whole


def evaluate(
    model: nn.Module,
    data: RunData,
    protocol: Protocol,
    subset: Subset,
    *,
    device: str | torch.device = "cpu",
    batch_size: int = 16,
    rank: int = 0,
    world: int = 1,
) -> Scores:
    """The scores of every video of ``subset``, in the order of ``data.videos(subset)``; the same on all ranks.

    Runs in float32 whatever the run was trained in. ``batch_size`` is views per forward pass and rank. ``model`` comes
    from ``train`` or :func:`load_model`, is used in evaluation mode and left as it was, random states too.

    Raises:
        FloatingPointError: a video's scores are not finite.
        RuntimeError: a video did not get exactly its views.
        ValueError: the model has another number of classes than the data.
    """
    place = torch.device(device)
    videos = data.videos(subset)
    sums = _Sums(len(videos), len(data.classes))
    with rng_kept(place), one_thread(place), evaluating(model), torch.no_grad():
        for batch in data.eval_batches(subset, protocol, batch_size, rank=rank, world=world):
            probs = probabilities(model, batch, data, place)
            sums.add(batch.videos.numpy(), batch.labels.numpy(), probs.cpu().numpy())
    sums = _whole(sums, world)
    _check(sums, videos, protocol)
    probs32 = (sums.probs / sums.views[:, None]).astype(np.float32)
    sets = data.label_sets(subset)
    multi = None if sets is None else multi_hot(sets, len(data.classes))
    return Scores(tuple(videos), sums.labels, probs32, tuple(data.classes), multi)


def load_model(config: Config, state: bytes, device: str | torch.device = "cpu") -> nn.Module:
    """The model of a checkpoint, ready to evaluate.

    Raises:
        CheckpointMismatch: the checkpoint is of another config.
        CorruptCheckpoint: the bytes are damaged.
    """
    found = unpack(state)
    check(found, config)
    with rng_kept(torch.device("cpu")):
        model = build_model(config)
    return load_weights(model, found.model).to(device).eval()


def for_protocol(model: nn.Module, config: Config, protocol: Protocol) -> nn.Module:
    """A trained model for test crops of ``protocol.size``: itself, or one built for these with the same weights.

    That its weights fit is known when the study is planned (:mod:`retable.study.serving`).
    """
    if protocol.size in (None, config.data.clip.size):
        return model
    larger = config.model_copy(update={"model": {**config.model, "size": protocol.size}})
    with rng_kept(torch.device("cpu")):
        other = build_model(larger)
    place = next(model.parameters()).device
    return load_weights(other, model.state_dict()).to(place).eval()


def probabilities(model: nn.Module, batch: Batch, data: RunData, device: torch.device) -> Tensor:
    """Softmax ``(B, K)`` of one batch of views, mirrored ones told in the classes of the unmirrored video."""
    logits: Tensor = model(**to_inputs(batch.clips, input_specs(model), device))["logits"]
    if logits.shape[1] != len(data.classes):
        raise ValueError(f"the model has {logits.shape[1]} classes, but the data has {len(data.classes)}")
    probs = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(dim=1)
    if data.flip_permutation is None:
        return probs
    back = probs[:, data.flip_permutation.to(device)]
    return torch.where(batch.mirrored.to(device)[:, None], back, probs)


def _check(sums: _Sums, videos: tuple[str, ...], protocol: Protocol) -> None:
    wanted = protocol.clips * CROPS[protocol.crops]
    wrong = np.flatnonzero(sums.views != wanted)
    if wrong.size:
        first = f"{videos[wrong[0]]} got {sums.views[wrong[0]]}"
        raise RuntimeError(f"{wrong.size} of {len(videos)} videos did not get {wanted} views each: {first}")
    broken = np.flatnonzero(~np.isfinite(sums.probs).all(axis=1))
    if broken.size:
        raise FloatingPointError(f"scores of {broken.size} of {len(videos)} videos are not finite: {videos[broken[0]]}")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module is back in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


__all__ = ["SEMANTICS", "Scores", "confusion", "evaluate", "load_model", "metrics"]
