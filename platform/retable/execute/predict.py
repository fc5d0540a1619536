"""What finished runs say of one video: the probabilities of its classes, and the maps behind them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retable.data.config import Protocol
from retable.data.layouts import Item, Listing, Subset, layout_of
from retable.data.loader import Batch, RunData, open_run_data
from retable.data.manifest import Manifest
from retable.execute.trained import Fused, NotAvailable, Trained
from retable.report.pictures import picture, save
from retable.train.evaluate import CROPS, evaluate, for_protocol, load_model
from retable.train.model import input_specs, inputs, to_inputs
from retable.train.stages import embedded, embedding

MIDDLE = {"center": 0, "three": 1, "ten": 4}
"""Which crop of a clip is the centre one."""


def predict(found: Fused, video: Path, *, device: str = "cpu") -> list[tuple[str, float]]:
    """Every class with its probability, the most probable first; views are averaged, then runs with their weights.

    Raises:
        DamagedVideo: the video does not decode.
    """
    each = [_probabilities(part, video, device) for part in found.parts]
    probs = np.average(np.stack(each), axis=0, weights=np.asarray(found.weights))
    return [(found.classes[k], float(probs[k])) for k in np.argsort(-probs, kind="stable")]


def maps_of(trained: Trained, video: Path, *, device: str = "cpu") -> dict[str, NDArray[Any]]:
    """What the model returns in ``maps`` (attention weights and other intermediates), and the pixels that it saw.

    ``maps.<name>``: (clips, as the model returns it for the batch of a clip's crops); ``input.<name>``: uint8
    ``(clips, crops, T, H, W, C)``. Of a run on features the pixels and the maps of the frozen network are there too.

    Raises:
        NotAvailable: the model has no maps.
    """
    model = _whole(_model(trained, trained.protocol, device))
    frozen = trained.frozen
    first = None if frozen is None else _whole(_model(frozen, trained.protocol, device))
    with tempfile.TemporaryDirectory(prefix="retable-predict-") as cache, torch.no_grad():
        data = _one_video(trained, video, Path(cache))
        batches = data.eval_batches("test", trained.protocol, 1)
        parts = [_mapped(model, first, batch.clips, torch.device(device)) for batch in batches]
    if not any(name.startswith("maps.") for name in parts[0]):
        raise NotAvailable(f"{trained.config.model['name']} returns no maps with these settings")
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


def centre_views(maps: dict[str, NDArray[Any]], protocol: Protocol) -> Iterator[dict[str, NDArray[Any]]]:
    """Of each clip in :func:`maps_of` the centre crop's part; maps that are not of single views are left out."""
    crops, middle = CROPS[protocol.crops], MIDDLE[protocol.crops]
    of_views = {name: value for name, value in maps.items() if value.ndim > 2 and value.shape[1] == crops}
    for clip in range(protocol.clips):
        yield {name: value[clip, middle] for name, value in of_views.items()}


def write_maps(found: Fused, video: Path, folder: Path, *, device: str = "cpu") -> list[Path]:
    """Write what :func:`maps_of` gives of every run: ``maps.npz``, and a picture of each clip's centre view.

    Files are named ``<run>-maps.npz`` and ``<run>-clip<n>.png``; of a single run without ``<run>-``.

    Raises:
        NotAvailable: a model has no maps.
    """
    each = [maps_of(part, video, device=device) for part in found.parts]
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for part, arrays in zip(found.parts, each, strict=True):
        start = f"{part.record.run_id[:8]}-" if len(found.parts) > 1 else ""
        np.savez_compressed(folder / f"{start}maps.npz", **arrays)  # type: ignore[arg-type]
        written.append(folder / f"{start}maps.npz")
        for clip, view in enumerate(centre_views(arrays, part.protocol)):
            written.append(folder / f"{start}clip{clip}.png")
            save(picture(view), written[-1])
    return written


def _probabilities(trained: Trained, video: Path, device: str) -> NDArray[np.float64]:
    """``(K,)``: one run's probabilities, averaged over the views of its protocol."""
    model = _model(trained, trained.protocol, device)
    with tempfile.TemporaryDirectory(prefix="retable-predict-") as cache:
        data: Any = _one_video(trained, video, Path(cache))
        if trained.frozen is not None:
            data = _OnFeatures(data, _model(trained.frozen, trained.protocol, device), device)
        scores = evaluate(model, data, trained.protocol, "test", device=device)
    return np.asarray(scores.probs[0], np.float64)


def _model(trained: Trained, protocol: Protocol, device: str) -> nn.Module:
    """The trained network, for the crops of a protocol."""
    return for_protocol(load_model(trained.config, trained.state, device), trained.config, protocol)


class _OnFeatures:
    """Videos as the features that a frozen network has of them: what evaluation reads of a run on features."""

    def __init__(self, videos: RunData, frozen: nn.Module, device: str):
        self.classes, self.flip_permutation = videos.classes, videos.flip_permutation
        self.videos, self.label_sets = videos.videos, videos.label_sets
        self._data, self._frozen, self._device = videos, frozen, torch.device(device)

    def eval_batches(self, subset: Subset, protocol: Protocol, batch_size: int, **ranks: int) -> Iterator[Batch]:
        for batch in self._data.eval_batches(subset, protocol, batch_size, **ranks):
            features = embedded(self._frozen, batch.clips, self._device).cpu()[..., None, None]
            yield replace(batch, clips={"features": features})


def _one_video(trained: Trained, video: Path, cache: Path) -> RunData:
    """The video as the only one of a test set that lies as the run's dataset does: the same frames, crops and flow. Of
    a run on features, what the frozen network reads."""
    config = trained.config
    reads = trained if trained.frozen is None else trained.frozen
    layout = layout_of(config.data.dataset)
    listing = Listing(trained.classes, (Item(video.name, 0, trained.classes[0], "test", video.stem),))
    listings = {layout.splits[0]: listing, config.data.split: listing}
    manifest = Manifest(config.data.dataset, video.absolute().parent, layout, _read=listings)
    data = config.data.model_copy(update={"holdout": 0.0, "on_damage": "error"})
    return open_run_data(manifest, data, augment=config.recipe, cache_dir=cache, inputs=inputs(reads.config))


def _whole(model: nn.Module) -> nn.Module:
    """The model, asked for the maps that it otherwise spares itself."""
    if hasattr(model, "full_maps"):
        model.full_maps = True  # type: ignore[assignment]
    return model


def _mapped(
    model: nn.Module, frozen: nn.Module | None, clips: dict[str, Tensor], device: torch.device
) -> dict[str, NDArray[Any]]:
    below = {} if frozen is None else embedding(frozen, clips, device)
    reads = {"features": below["features"].cpu()[..., None, None]} if below else clips
    outputs = model(**to_inputs(reads, input_specs(model), device))
    maps = below | outputs.get("maps", {})
    found = {f"maps.{name}": value.float().cpu().numpy() for name, value in maps.items()}
    return {f"input.{name}": value.numpy() for name, value in clips.items()} | found
