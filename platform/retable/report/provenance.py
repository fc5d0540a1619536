"""What a table's numbers were made with, as data and in words: protocol, datasets, recipe, profile, machines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from retable.data.config import Clip, Protocol
from retable.report.values import Reader
from retable.study.config import Recipe
from retable.study.plan import Cell, Plan, Training, View
from retable.track.records import RunRecord

MACS = (
    "Operations are multiply-accumulates of one view: convolutions, linear layers and matrix products,"
    " half of their FLOPs; no normalisation, activation or pooling."
)
CROPS = {"center": "centre crop", "three": "3 crops", "ten": "10 crops"}
CHECKPOINTS = {"last": "weights after the last epoch", "best_val": "weights of the best epoch on held-out videos"}


def comparable(plan: Plan) -> bool:
    """Whether the plan's accuracies may be set against published ones: no other data, model sizes or clips."""
    changed = {path.split(".")[0] for path in plan.settings}
    return plan.study.profiles[plan.profile].comparable and not changed & {"model", "data"}


def provenance(plan: Plan, cells: Iterable[Cell], reader: Reader, seeds: tuple[int, ...]) -> dict[str, Any]:
    """Provenance of the cells of one table; ``sentences`` says it in words."""
    cells = list(cells)
    asked = [cell.evaluation for cell in cells if cell.evaluation is not None]
    trainings = {key: plan.trainings[key] for e in asked for key in plan.trainings_of(e)}
    records = {r.run_id: r for e in asked for r in reader.used(e, seeds)}
    found: dict[str, Any] = {
        "profile": plan.profile,
        "settings": dict(plan.settings),
        "protocols": _distinct(protocol_words(v.protocol) for t in trainings.values() for v in t.views),
        "clips": _distinct(clip_words(t.config.data.clip) for t in trainings.values()),
        "datasets": _datasets(trainings.values(), records.values()),
        "recipes": _distinct(recipe_words(t.config.recipe) for t in trainings.values()),
        "runs": len(records),
        "devices": _counted(r.environment.get("device") for r in records.values()),
        "versions": _versions(records.values()),
    }
    notes = [MACS] if any(cell.metric == "gmacs" and cell.static is not None for cell in cells) else []
    notes += [fusion_words(weights) for weights in _distinct_weights(plan, asked)]
    return found | {"sentences": _sentences(plan, found, [*notes, *reader.notes.values()])}


def protocol_words(protocol: Protocol) -> str:
    """``1 clip x centre crop per video, last weights``."""
    clips = "1 clip" if protocol.clips == 1 else f"{protocol.clips} clips"
    views = "" if protocol.clips == 1 and protocol.crops == "center" else ", scores averaged"
    size = "" if protocol.size is None else f" of {protocol.size} × {protocol.size} pixels"
    return f"{clips} × {CROPS[protocol.crops]}{size} per video{views}, {CHECKPOINTS[protocol.checkpoint]}"


def mixed_protocols(plan: Plan, cells: Iterable[Cell]) -> dict[str, str]:
    """Of one column's cells, by row: how each was scored, where the column does not have one protocol throughout.

    As many clips, or as many frames in all (ten clips of three, one of thirty), count as the same.
    """
    views = {cell.row: _views(plan, cell.evaluation) for cell in cells if cell.evaluation is not None}
    found = [(t.config.data.clip.frames, v.protocol) for pairs in views.values() for t, v in pairs]
    by_clips = {(p.clips, p.crops, p.size, p.checkpoint) for _, p in found}
    by_frames = {(p.clips * frames, p.crops, p.size, p.checkpoint) for frames, p in found}
    if min(len(by_clips), len(by_frames)) < 2:
        return {}

    def said(training: Training, view: View) -> str:
        return f"{protocol_words(view.protocol)}, clips of {clip_words(training.config.data.clip)}"

    return {row: f"Scored on {'; '.join(_distinct(said(*pair) for pair in pairs))}." for row, pairs in views.items()}


def _views(plan: Plan, evaluation: str) -> list[tuple[Training, View]]:
    node = plan.evaluations[evaluation]
    if node.config_id is None:
        return [pair for part in node.parts for pair in _views(plan, part)]
    training = plan.trainings[node.config_id]
    return [(training, next(view for view in training.views if view.key == node.view))]


def fusion_words(weights: tuple[float, ...]) -> str:
    """``Fused: per video, the mean of the runs' softmax scores, weights 1 : 1.5, seed by seed.``"""
    least = min((w for w in weights if w > 0), default=1.0)
    ratio = " : ".join(f"{w / least:g}" for w in weights)
    return f"Fused: per video, the mean of the runs' softmax scores, weights {ratio}, seed by seed."


def _distinct_weights(plan: Plan, evaluations: Iterable[str]) -> list[tuple[float, ...]]:
    found: dict[tuple[float, ...], None] = {}
    for key in evaluations:
        node = plan.evaluations[key]
        if node.kind == "fuse":
            found[node.weights] = None
        found |= dict.fromkeys(_distinct_weights(plan, node.parts))
    return list(found)


def clip_words(clip: Clip) -> str:
    """``8 frames of 112 x 112 pixels``."""
    return f"{clip.frames} frames of {clip.size} × {clip.size} pixels"


def recipe_words(recipe: Recipe) -> str:
    """``adam, lr 0.0001, batch 16, 40 epochs``."""
    precision = "" if recipe.precision == "fp32" else f", {recipe.precision}"
    return f"{recipe.optimizer}, lr {recipe.lr:g}, batch {recipe.batch_size}, {recipe.epochs} epochs{precision}"


def _datasets(trainings: Iterable[Training], records: Iterable[RunRecord]) -> list[dict[str, Any]]:
    recorded = {r.config_id: r.spec.get("dataset", {}).get("fingerprint") for r in records}
    by_provisional = {str(r.spec.get("provisional_id")): recorded[r.config_id] for r in records}
    found: dict[tuple[str, int], str | None] = {}
    for t in trainings:
        key = (t.config.data.dataset, t.config.data.split)
        found[key] = found.get(key) or t.fingerprint or by_provisional.get(t.provisional_id)
    return [{"name": name, "split": split, "fingerprint": value} for (name, split), value in found.items()]


def _counted(values: Iterable[str | None]) -> dict[str, int]:
    listed = [value or "unknown" for value in values]
    return {value: listed.count(value) for value in sorted(set(listed))}


def _versions(records: Iterable[RunRecord]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for record in records:
        for name, value in record.environment.items():
            if name not in ("device", "host"):
                found.setdefault(name, set()).add(value)
    return {name: sorted(values) for name, values in sorted(found.items())}


def _sentences(plan: Plan, found: dict[str, Any], notes: list[str]) -> list[str]:
    profile = plan.study.profiles[plan.profile]
    said = [f"Profile {plan.profile}{f': {profile.note}' if profile.note else '.'}"]
    if plan.settings:
        said.append(f"Set by hand: {', '.join(f'{k} = {v}' for k, v in plan.settings.items())}.")
    if not comparable(plan):
        said.append(
            "Data, networks or clips are not the paper's: no value is compared with a published one,"
            " only the order of rows and the signs of differences. Counts are of this profile's networks."
        )
    if found["protocols"]:
        datasets = ", ".join(_dataset_words(d) for d in found["datasets"])
        said.append(f"Data: {datasets}. Clips: {'; '.join(found['clips'])}. Test: {'; '.join(found['protocols'])}.")
        said.append(f"Training: {'; '.join(found['recipes'])}.")
    if found["runs"]:
        said.append(_machine_words(found))
    return said + notes


def _dataset_words(dataset: dict[str, Any]) -> str:
    fingerprint = dataset["fingerprint"]
    known = f"fingerprint {fingerprint[:8]}" if fingerprint else "not at hand"
    return f"{dataset['name']} split {dataset['split']} ({known})"


def _machine_words(found: dict[str, Any]) -> str:
    devices, versions = found["devices"], found["versions"]
    mixed = [name for name, values in versions.items() if len(values) > 1]
    runs = "1 run" if found["runs"] == 1 else f"{found['runs']} runs"
    words = f"{runs} on {', '.join(f'{d} ({n})' if len(devices) > 1 else d for d, n in devices.items())}"
    words += "".join(f", {name} {' and '.join(values)}" for name, values in versions.items()) + "."
    if len(devices) > 1:
        words += " Devices are mixed."
    return words + (f" Versions of {', '.join(mixed)} are mixed." if mixed else "")


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
