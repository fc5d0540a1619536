"""A run, or the runs of a fused cell, as a folder to hand on: checkpoint, config, card, class names."""

from __future__ import annotations

from pathlib import Path

from ruamel.yaml import YAML

from retable.execute.trained import Fused, NotAvailable, Trained


def export(found: Fused, folder: Path) -> list[Path]:
    """Write ``checkpoint.pt``, ``config.yaml``, ``classes.txt`` and ``card.md`` into a new or empty folder.

    A run on the features of another one comes with that one's ``frozen.pt`` and ``frozen.yaml``. The runs of a fused
    cell come each in a folder of its own, ``1-rgb``, ``2-flow``, with a ``card.md`` above them that has the weights.

    Raises:
        NotAvailable: the folder holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise NotAvailable(f"{folder} is not empty: choose another --out")
    if len(found.parts) == 1:
        return _export(found.parts[0], folder)
    written = []
    names = [f"{i}-{part.config.data.stream}" for i, part in enumerate(found.parts, start=1)]
    for name, part in zip(names, found.parts, strict=True):
        written += _export(part, folder / name)
    lines = [f"- {name}: weight {weight:.3g}" for name, weight in zip(names, found.weights, strict=True)]
    words = "Several runs, whose softmax scores are averaged with these weights, video by video:"
    (folder / "card.md").write_text(
        "\n".join([f"# {found.parts[0].place}", "", words, "", *lines, ""]), encoding="utf-8"
    )
    return [*written, folder / "card.md"]


def _export(trained: Trained, folder: Path) -> list[Path]:
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
        f"- tested with {protocol.clips} clips x {protocol.crops} crops of {protocol.size or clip.size} pixels,"
        f" {protocol.checkpoint} checkpoint",
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
