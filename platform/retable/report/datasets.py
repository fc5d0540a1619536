"""Which datasets are known and at hand, and what one of them holds."""

from __future__ import annotations

from collections import Counter

from rich.console import Console

from retable.data import layouts
from retable.data.manifest import dataset_folder, fingerprint, open_dataset
from retable.data.variants import VARIANTS


def show(name: str | None, data: str | None, out: Console) -> None:
    """Print all known datasets, or one.

    Raises:
        DatasetError: the dataset is missing or faulty.
        UnknownDatasetError: no layout serves this name.
    """
    if name is None:
        _all(data, out)
    else:
        _one(name, data, out)


def _all(data: str | None, out: Console) -> None:
    generated = list(VARIANTS)
    for known in [*(n for n in layouts.names() if n != "motions"), *generated]:
        layout = layouts.layout_of(known)
        folder = dataset_folder(known, data)
        classes = layout.num_classes(known)
        state = f"in {folder}" if folder.is_dir() else (layout.generate_command(known) or f"not in {folder}")
        out.print(f"{known:18} {classes if classes is not None else '?':>4} classes, splits {layout.splits}: {state}")


def _one(name: str, data: str | None, out: Console) -> None:
    manifest = open_dataset(name, dataset_folder(name, data))
    out.print(f"{name} in {manifest.root}, layout {manifest.layout.name}, flip {manifest.flip}")
    for split in manifest.layout.splits:
        items = manifest.items(split)
        counts = Counter(item.subset for item in items)
        shown = ", ".join(f"{subset} {n}" for subset, n in sorted(counts.items(), reverse=True))
        out.print(f"  split {split}: {shown} videos, fingerprint {fingerprint(manifest, split)[:12]}")
    for label, class_name in enumerate(manifest.classes):
        out.print(f"  {label:3} {class_name}")
