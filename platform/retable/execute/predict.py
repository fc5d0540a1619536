"""What a finished run says of one video, and a run as a folder to hand on: checkpoint, config, card, class names."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from ruamel.yaml import YAML
from torch import nn

from retable.data.config import Protocol
from retable.data.layouts import Item, Listing, Subset, layout_of
from retable.data.loader import Augment, Batch, RunData, open_run_data
from retable.data.manifest import Manifest
from retable.study.config import Config
from retable.study.plan import Plan
from retable.track.records import RunRecord
from retable.track.storage import Storage
from retable.train.evaluate import evaluate, load_model
from retable.train.model import input_specs, inputs, to_inputs
from retable.train.stages import embedded


class NotAvailable(LookupError):
    """There is no such finished run here, or it cannot do what is asked; the message says what to do."""


@dataclass(frozen=True)
class Trained:
    """One finished run with its final weights, the names of its classes, and the protocol that it is asked under."""

    record: RunRecord
    config: Config
    state: bytes
    classes: tuple[str, ...]
    protocol: Protocol
    place: str | None = None
    """The cell's ``table.row.column``, where the run was found by one."""
    frozen: Trained | None = None
    """The run whose features this one reads instead of videos."""


def find_run(storage: Storage, run_id: str, protocol: Protocol | None = None, place: str | None = None) -> Trained:
    """A finished run by its id, or by the beginning of it.

    Raises:
        NotAvailable: no finished run, several, or no checkpoint or scores of it.
    """
    protocol = protocol or Protocol()
    ids = [known for known in storage.run_ids() if known.startswith(run_id)]
    if len(ids) != 1:
        what = f"{len(ids)} runs in {storage.url} begin" if ids else f"no run in {storage.url} begins"
        raise NotAvailable(f"{what} with {run_id!r}: retable plan --json lists the ids of a study's runs")
    record = storage.record(ids[0])
    if record is None or record.status != "done":
        raise NotAvailable(f"run {ids[0]} is not finished: the same retable run command goes on with it")
    trained = _read(storage, record, protocol, place)
    if not trained.classes:
        raise NotAvailable(f"run {ids[0]} has no per-video scores in {storage.url}, which name its classes")
    return trained


def _read(storage: Storage, record: RunRecord, protocol: Protocol, place: str | None) -> Trained:
    """A run and what it reads; an earlier stage may have no scores, and then its classes have no names."""
    kind = "last" if protocol.checkpoint == "last" else "best"
    names = storage.checkpoints(record.run_id, kind)
    states = [data for name in names if (data := storage.get(name)) is not None]
    scores = next((found for view in record.evaluations if (found := record.scores(view)) is not None), None)
    if not states:
        raise NotAvailable(f"run {record.run_id} has no {kind} checkpoint in {storage.url}")
    config = Config.model_validate(record.spec["config"])
    first = storage.record(record.spec["parents"][0]) if record.spec.get("use") == "features" else None
    frozen = None if first is None else _read(storage, first, Protocol(), None)
    return Trained(record, config, states[0], scores.classes if scores else (), protocol, place, frozen)


def find_cell(storage: Storage, plan: Plan, table: str, row: str, column: str | None, seed: int) -> Trained:
    """The run behind a cell; by default the row's first cell that one run fills.

    Raises:
        NotAvailable: no such cell, or its run is not finished.
    """
    for cell in plan.cells:
        if (cell.table, cell.row) != (table, row) or column not in (None, cell.column) or cell.evaluation is None:
            continue
        node = plan.evaluations[cell.evaluation]
        if node.config_id is not None:
            training = plan.trainings[node.config_id]
            view = next(v for v in training.views if v.key == node.view)
            if training.fingerprint is None:
                name = training.config.data.dataset
                raise NotAvailable(
                    f"which run fills the cell depends on the dataset {name}, which is not here: use --run"
                )
            run_id = training.run(seed).run_id
            return find_run(storage, run_id, view.protocol, f"{table}.{row}.{cell.column}")
    where = f"{table}.{row}" + (f".{column}" if column else "")
    raise NotAvailable(f"no cell of {where} is filled by one run (fused cells are several: name a column)")


def predict(trained: Trained, video: Path, *, device: str = "cpu") -> list[tuple[str, float]]:
    """Every class with its probability, the most probable first; the views of the protocol are averaged.

    Raises:
        DamagedVideo: the video does not decode.
    """
    model = load_model(trained.config, trained.state, device)
    with tempfile.TemporaryDirectory(prefix="retable-predict-") as cache:
        data = _one_video(trained, video, Path(cache), device)
        scores = evaluate(model, data, trained.protocol, "test", device=device)
    order = np.argsort(-scores.probs[0], kind="stable")
    return [(trained.classes[k], float(scores.probs[0, k])) for k in order]


def maps_of(trained: Trained, video: Path, *, device: str = "cpu") -> dict[str, NDArray[Any]]:
    """What the model returns in ``maps`` (attention weights and other intermediates), and the pixels that it saw.

    ``maps.<name>``: (clips, as the model returns it for the batch of a clip's crops); ``input.<name>``: uint8
    ``(clips, crops, T, H, W, C)``.

    Raises:
        NotAvailable: the model has no maps.
    """
    model = load_model(trained.config, trained.state, device)
    if hasattr(model, "full_maps"):
        model.full_maps = True  # type: ignore[assignment]
    with tempfile.TemporaryDirectory(prefix="retable-predict-") as cache, torch.no_grad():
        data = _one_video(trained, video, Path(cache), device)
        parts = [_mapped(model, batch.clips, device) for batch in data.eval_batches("test", trained.protocol, 1)]
    names = [name for name in parts[0] if name.startswith("maps.")]
    if not names:
        raise NotAvailable(f"{trained.config.model['name']} returns no maps with these settings")
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


def export(trained: Trained, folder: Path) -> list[Path]:
    """Write ``checkpoint.pt``, ``config.yaml``, ``classes.txt`` and ``card.md`` into a new or empty folder.

    A run on the features of another one comes with that one's ``frozen.pt`` and ``frozen.yaml``.

    Raises:
        NotAvailable: the folder holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise NotAvailable(f"{folder} is not empty: choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    _write(trained, folder / "checkpoint.pt", folder / "config.yaml")
    if trained.frozen is not None:
        _write(trained.frozen, folder / "frozen.pt", folder / "frozen.yaml")
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in trained.classes), encoding="utf-8")
    (folder / "card.md").write_text(card(trained), encoding="utf-8")
    return sorted(folder.iterdir())


def _write(trained: Trained, checkpoint: Path, config: Path) -> None:
    checkpoint.write_bytes(trained.state)
    yaml = YAML()
    yaml.default_flow_style = False
    with config.open("w", encoding="utf-8") as file:
        yaml.dump(trained.record.spec["config"], file)


def card(trained: Trained) -> str:
    """What a reader must know of the weights, in Markdown."""
    record, config = trained.record, trained.config
    dataset = record.spec["dataset"]
    clip, protocol = config.data.clip, trained.protocol
    lines = [
        f"# {config.model['name']} trained on {dataset['name']}",
        "",
        f"- cell: {trained.place or 'not asked for by a study'}; run {record.run_id}, seed {record.seed}",
        f"- dataset: {dataset['name']} split {config.data.split}, fingerprint {dataset['fingerprint']}",
        f"- input: stream {config.data.stream}, {clip.frames} frames of {clip.size} x {clip.size} pixels, short side"
        f" {clip.short_side}",
        f"- tested with {protocol.clips} clips x {protocol.crops} crops, {protocol.checkpoint} checkpoint",
        f"- trained for {config.recipe.epochs} epochs with {config.recipe.optimizer}, lr {config.recipe.lr:g}",
        f"- environment: {', '.join(f'{k} {v}' for k, v in sorted(record.environment.items()) if k != 'host')}",
        "",
        "| protocol | " + " | ".join(_METRICS) + " |",
        "|---|" + "---:|" * len(_METRICS),
    ]
    for view, found in sorted(record.evaluations.items()):
        lines.append(f"| {view} | " + " | ".join(f"{found[m]:.2f}" if m in found else "–" for m in _METRICS) + " |")
    lines += [
        "",
        "`classes.txt` names the outputs in order. `checkpoint.pt` loads with `torch.load(path, weights_only=True)`;",
        "`retable.train.evaluate.load_model(config, checkpoint)` builds the model of `config.yaml` with these weights.",
        "",
    ]
    return "\n".join(lines)


_METRICS = ("top1", "top5", "mean_class", "map")


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


def _one_video(trained: Trained, video: Path, cache: Path, device: str) -> RunData:
    """The video as the only one of a test set that lies as the run's dataset does: the same frames, crops and flow."""
    config = trained.config
    reads = trained if trained.frozen is None else trained.frozen
    layout = layout_of(config.data.dataset)
    listing = Listing(trained.classes, (Item(video.name, 0, trained.classes[0], "test", video.stem),))
    listings = {layout.splits[0]: listing, config.data.split: listing}
    manifest = Manifest(config.data.dataset, video.absolute().parent, layout, _read=listings)
    data = config.data.model_copy(update={"holdout": 0.0, "on_damage": "error"})
    found = open_run_data(manifest, data, augment=Augment(), cache_dir=cache, inputs=inputs(reads.config))
    if reads is trained:
        return found
    return cast("RunData", _OnFeatures(found, load_model(reads.config, reads.state, device), device))


def _mapped(model: nn.Module, clips: dict[str, torch.Tensor], device: str) -> dict[str, NDArray[Any]]:
    outputs = model(**to_inputs(clips, input_specs(model), torch.device(device)))
    found = {f"maps.{name}": value.float().cpu().numpy() for name, value in outputs.get("maps", {}).items()}
    return found | {f"input.{name}": value.numpy() for name, value in clips.items()}
