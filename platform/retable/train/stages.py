"""What a run takes from an earlier one: its final weights, or features of its videos by the frozen network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retable import registry
from retable.data import loader
from retable.data.config import Protocol
from retable.data.errors import DataError
from retable.data.features import FeatureData, Source, Views, kept, train_labels
from retable.study.config import Config
from retable.train.checkpoint import CorruptCheckpoint, State, check, unpack
from retable.train.classifiers import judge_all
from retable.train.evaluate import for_protocol, load_model
from retable.train.job import Job
from retable.train.model import build_model, input_specs, to_inputs
from retable.train.process import isolated

_VIEWS, _FRAMES = 10, 32
"""Views read and frames run through the network at once: fixed, so that features do not depend on a run's batch."""
_CENTRES = (4, 9)
"""The centre view and its mirror image among ten crops."""


class StageError(DataError):
    """An earlier stage is not finished, gone, or does not fit the run that starts from it."""


def final_weights(run_id: str, config: Config, states: Iterable[bytes]) -> tuple[State, bytes]:
    """The finished state of an earlier run among its checkpoints, newest first, and its bytes.

    Raises:
        StageError: none is whole and of the run's last epoch.
    """
    for data in states:
        try:
            state = unpack(data)
        except CorruptCheckpoint:
            continue
        if state.epoch == config.recipe.epochs:
            check(state, config)
            return state, data
    raise StageError(
        f"the earlier stage {run_id} has no final checkpoint: delete its result.json, and the same command trains it on"
    )


def refuse_misfits(parent: Config, child: Config, use: str) -> None:
    """Refuse weights or features that do not fit, without a number being computed.

    Raises:
        StageError: naming the first tensor, or the features, that differ.
    """
    with torch.device("meta"):
        theirs, ours = build_model(parent), build_model(child)
        if use == "weights":
            _same_tensors(theirs.state_dict(), ours.state_dict())
            return
        (spec,) = input_specs(theirs).values()
        features = theirs.eval().embed(torch.zeros(1, *spec.shape))["features"]  # type: ignore[operator]
    wanted = input_specs(ours)["features"].shape
    if features.shape[-1] != wanted[1] or wanted[0] % spec.shape[0]:
        raise StageError(
            f"the earlier stage gives {features.shape[-1]} features for {spec.shape[0]} frames at a time, but the model"
            f" takes {wanted[1]} for {wanted[0]}"
        )


def start_of(state: State, child: Config, use: str) -> dict[str, Tensor]:
    """The earlier stage's tensors that training begins with: all of them, or for ``features`` those of the head (the
    classifier) that the frozen network had already.

    Raises:
        StageError: not all of them fit.
    """
    with torch.device("meta"):
        ours = build_model(child).state_dict()
    if use == "weights":
        _same_tensors(state.model, ours)
        return state.model
    return {name: t for name, t in state.model.items() if name in ours and ours[name].shape == t.shape}


def _same_tensors(theirs: dict[str, Tensor], ours: dict[str, Tensor]) -> None:
    for name in sorted(theirs.keys() | ours.keys()):
        shapes = [tuple(state[name].shape) if name in state else None for state in (theirs, ours)]
        if shapes[0] != shapes[1]:
            said = ["has none" if shape is None else f"has {shape}" for shape in shapes]
            raise StageError(f"weights do not fit: of {name}, the earlier stage {said[0]} and this one {said[1]}")


def open_features(
    videos: loader.RunData,
    source: Source,
    wanted: Sequence[Views],
    cache_dir: Path,
    *,
    parent: Config,
    state: bytes,
    child: Config,
    device: str,
) -> FeatureData:
    """Everything that a run on features reads, computed where it is not cached.

    Args:
        videos: the child's videos with the parent's inputs, without augmentation.
        source: what the features are of.
        wanted: of which views, those of training first.
        parent, state: the frozen run's config and final checkpoint.

    Raises:
        StageError: the network gives no features.
        DataError: a cache is damaged. DiskFull: no space for it.
    """
    models: list[nn.Module] = []

    def model() -> nn.Module:
        if not models:
            models.append(load_model(parent, state, device))
        return models[0]

    train = wanted[0]
    with isolated(Job(parent, 0), device), torch.no_grad():
        sets = {
            views: kept("features", source, views, cache_dir, _writer(model, parent, videos, views, device), np.float32)
            for views in wanted
        }
    kind = judged_kind(child)
    judged = None if kind is None else _judged(videos, kind, source, train, sets[train], cache_dir, child)
    return FeatureData(videos, sets, judged)


def _writer(
    model: Callable[[], nn.Module], parent: Config, videos: loader.RunData, views: Views, device: str
) -> Callable[[BinaryIO], tuple[int, ...]]:
    def write(file: BinaryIO) -> tuple[int, ...]:
        shape: tuple[int, ...] = ()
        both = views.subset == "train" and views.mirror
        protocol = Protocol(clips=views.clips, crops="ten" if both else views.crops, size=views.size)
        frozen = for_protocol(model(), parent, protocol)
        if views.drawn:
            batches = videos.drawn_batches(views.drawn, _VIEWS)
        else:
            batches = videos.eval_batches(views.subset, protocol, _VIEWS)
        for batch in batches:
            clips = {name: _centres(clip) if both else clip for name, clip in batch.clips.items()}
            features = embedded(frozen, clips, torch.device(device))
            file.write(np.ascontiguousarray(features.cpu().numpy()).data)
            shape = tuple(features.shape[1:])
        return (len(videos.videos(views.subset)), len(views.mirrored), *shape)

    return write


def _centres(clips: Tensor) -> Tensor:
    """Of ten crops per video ``(10 B, ...)`` the two centre ones ``(2 B, ...)``."""
    return clips.reshape(-1, 10, *clips.shape[1:])[:, list(_CENTRES)].flatten(0, 1)


def embedded(model: nn.Module, clips: dict[str, Tensor], device: torch.device) -> Tensor:
    """``{name: uint8 (B, T, H, W, C)}`` -> float32 ``(B, T, features)``."""
    return embedding(model, clips, device)["features"]


def embedding(model: nn.Module, clips: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """All that the model's ``embed`` gives, float32 ``(B, T, ...)``; it sees as many frames at once as it takes."""
    specs = input_specs(model)
    ((name, spec),) = specs.items()
    b, t = clips[name].shape[:2]
    parts = clips[name].reshape(b * t // spec.shape[0], spec.shape[0], *clips[name].shape[2:])
    done: list[dict[str, Tensor]] = [
        model.embed(to_inputs({name: part}, specs, device)[name])  # type: ignore[operator]
        for part in torch.split(parts, max(1, _FRAMES // spec.shape[0]))
    ]
    whole = {key: torch.cat([part[key] for part in done]).float() for key in done[0]}
    return {key: value.reshape(b, t, *value.shape[2:]) for key, value in whole.items()}


def judged_kind(config: Config) -> str | None:
    """What the judgements of frames are kept as, by the number of folds; None where no loss of the model asks which
    frames show their class."""
    losses = getattr(registry.load(config.model["name"]).module.Model, "label_losses", None)
    if losses is None or "judged" not in inspect.signature(losses).parameters:
        return None
    folds = int(config.model.get("judge_folds", 1))
    return "judged" if folds == 1 else f"judged{folds}"


def _judged(
    videos: loader.RunData,
    kind: str,
    source: Source,
    views: Views,
    features: NDArray[Any],
    cache_dir: Path,
    child: Config,
) -> NDArray[np.bool_]:
    """Bool ``(N, R, T)``: whether the binary classifier of a view's class accepts each frame."""
    folds = int(child.model.get("judge_folds", 1))

    def write(file: BinaryIO) -> tuple[int, ...]:
        labels = train_labels(videos, views)
        with isolated(Job(child, 0)):
            file.write(judge_all(features, labels, len(videos.classes), folds).data)
        return features.shape[:3]

    return kept(kind, source, views, cache_dir, write, np.bool_)
