"""A dataset's videos, labels and splits, checked; and its fingerprint, from file contents, never from decoding."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from retable.data.errors import DatasetError
from retable.data.imagefolder import image_names
from retable.data.layouts import FlipRule, Item, Layout, Listing, Subset, layout_of
from retable.data.packlist import is_pack, packed_contents, packed_layout
from retable.data.tier import proxy_command, proxy_of

_HASHES = Path(".retable") / "hashes.json"


@dataclass(frozen=True)
class Manifest:
    """One dataset on disk. ``root`` is the dataset's own folder."""

    name: str
    root: Path
    layout: Layout
    contents: Mapping[str, str] | None = field(default=None, compare=False, repr=False)  # SHA-256 by path, of a pack
    _read: dict[int, Listing] = field(default_factory=dict, compare=False, repr=False)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._listing(self.layout.splits[0]).classes

    @property
    def flip(self) -> FlipRule:
        return self.layout.flip(self.classes)

    def vanished(self, split: int) -> int:
        """How many listed videos are not on disk, for layouts that allow it (Kinetics); 0 for the others."""
        return len(self._listing(split).absent)

    def items(self, split: int, *, holdout: float = 0.0) -> tuple[Item, ...]:
        """All videos of one split, sorted by path; with ``holdout`` some training groups have subset ``val``.

        Raises:
            DatasetError: no such split, an empty class, a listed file that is missing, an impossible hold-out.
        """
        return _hold_out(self._listing(split).items, holdout, self.name)

    def _listing(self, split: int) -> Listing:
        if split not in self._read:
            self._read[split] = _checked(self, split)
        return self._read[split]

    def has(self, path: str) -> bool:
        """Whether a video is there: on disk, or in the pack that the folder is."""
        return (self.root / path).exists() if self.contents is None else path in self.contents

    def hashes(self, paths: Iterable[str]) -> dict[str, str]:
        """SHA-256 of each video; see :func:`content_hashes`."""
        return content_hashes(self.root, paths) if self.contents is None else {p: self.contents[p] for p in paths}

    def flip_permutation(self) -> tuple[int, ...] | None:
        """Label after a mirror for every label; None when a mirror keeps all labels or is never allowed."""
        rule = self.flip
        if isinstance(rule, str):
            return None
        order = list(range(len(self.classes)))
        for a, b in ((self.classes.index(x), self.classes.index(y)) for x, y in rule):
            order[a], order[b] = b, a
        return tuple(order)


def dataset_folder(name: str, data_root: Path | str | None = None) -> Path:
    """Where dataset ``name`` is looked for: in ``data_root``, else ``$RETABLE_DATA``, else ``./data``.

    Below a URL, datasets are packs; the folder is this node's mirror of one (see ``mirror.py``).
    """
    root = data_place(data_root)
    if "://" not in root:
        return Path(root) / name
    from retable.data.mirror import mirror  # planning from folders does not pay for it

    return mirror(f"{root.rstrip('/')}/{name}")


def data_place(data_root: Path | str | None = None) -> str:
    """The folder or URL that holds datasets."""
    return str(data_root or os.environ.get("RETABLE_DATA") or "data")


def open_dataset(name: str, root: Path | str) -> Manifest:
    """Open the dataset ``name`` that lies in the folder ``root`` (its own folder, see :func:`dataset_folder`).

    Raises:
        DatasetError: the folder is missing; the message names it, the layout and how to get the dataset.
        UnknownDatasetError: no layout serves this name.
    """
    layout, root = layout_of(name), Path(root)
    if not root.is_dir():
        command = layout.generate_command(name)
        way_out = f"make it with: {command} --out {root}" if command else "put the dataset there, or point to it"
        raise DatasetError(
            f"dataset {name}: there is no folder {root} (layout {layout.name}: {layout.tree}); {way_out}"
        )
    if not is_pack(root) and proxy_of(name) is not None:
        raise DatasetError(f"dataset {name}: {root} is no proxy: make it with {proxy_command(name)} --out {root}")
    if is_pack(root):
        return Manifest(name, root, packed_layout(layout, name, root), packed_contents(root))
    return Manifest(name, root, layout)


def fingerprint(manifest: Manifest, split: int, *, holdout: float = 0.0, on_damage: str = "error") -> str:
    """128-bit hex hash of what a run reads: sorted (path, content, label, subset), the hold-out and damage policy."""
    items = manifest.items(split, holdout=holdout)
    hashes = manifest.hashes(item.path for item in items)
    rows = sorted((item.path, hashes[item.path], item.label, item.subset, *_label_set(item)) for item in items)
    return _digest({"videos": rows, "holdout": holdout, "on_damage": on_damage})


def content_key(manifest: Manifest, paths: Iterable[str]) -> str:
    """128-bit hex hash of (path, content) alone: what decoded frames depend on, the same for all splits and labels."""
    return _digest(sorted(manifest.hashes(paths).items()))


def content_hashes(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """SHA-256 of each video, remembered by (path, size, mtime) in ``<root>/.retable/hashes.json`` where possible.

    The hash of a folder of images is that of the names and hashes of all its images.
    """
    known = _load_hashes(root)
    result: dict[str, list[object]] = {}
    for path in paths:
        state, entry = video_state(root / path), known.get(path)
        if entry is None or entry[:2] != state:
            entry = [*state, hash_video(root / path)]
        result[path] = entry
    if any(known.get(path) != entry for path, entry in result.items()):
        _save_hashes(root, {**known, **result})
    return {path: str(entry[2]) for path, entry in result.items()}


def _checked(manifest: Manifest, split: int) -> Listing:
    if split not in manifest.layout.splits:
        raise DatasetError(f"dataset {manifest.name} has splits {list(manifest.layout.splits)}, not {split}")
    listing = manifest.layout.read(manifest.root, split)
    absent = [item.path for item in listing.items if not manifest.has(item.path)]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise DatasetError(
            f"dataset {manifest.name}, split {split}: listed video {absent[0]}{more} missing in {manifest.root}"
        )
    for subset in ("train", "test"):
        filled = {label for item in listing.items if item.subset == subset for label in _labels(item)}
        empty = [name for label, name in enumerate(listing.classes) if label not in filled]
        if empty:
            raise DatasetError(
                f"dataset {manifest.name}, split {split}: class {', '.join(empty[:3])} has no {subset} video"
                f" ({len(empty)} of {len(listing.classes)} classes are empty)"
            )
    repeated = [path for path, n in Counter(item.path for item in listing.items).items() if n > 1]
    if repeated:
        raise DatasetError(f"dataset {manifest.name}, split {split}: {repeated[0]} is listed {len(repeated) + 1} times")
    return replace(listing, items=tuple(sorted(listing.items)))


def _hold_out(items: tuple[Item, ...], share: float, name: str) -> tuple[Item, ...]:
    """Move a share of the training groups, per class and at least one, to ``val``. The choice depends on names only."""
    if share == 0.0:
        return items
    held: set[tuple[int, str]] = set()
    for label in {item.label for item in items}:
        groups = {item.group for item in items if item.label == label and item.subset == "train"}
        if len(groups) < 2:
            raise DatasetError(
                f"dataset {name}: hold-out {share} needs two training groups per class, class {label} has 1"
            )
        order = sorted(groups, key=lambda group: hashlib.sha256(group.encode()).digest())
        count = min(max(1, round(share * len(order))), len(order) - 1)
        held |= {(label, group) for group in order[:count]}
    val: Subset = "val"
    return tuple(replace(i, subset=val) if i.subset == "train" and (i.label, i.group) in held else i for i in items)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":"), sort_keys=True).encode()).hexdigest()[:32]


def _labels(item: Item) -> tuple[int, ...]:
    return (item.label,) if item.labels is None else item.labels


def _label_set(item: Item) -> tuple[tuple[int, ...], ...]:
    return () if item.labels is None else (item.labels,)


def video_state(path: Path) -> list[object]:
    """What changes when a file, or any image of a folder, is written: size (bytes), and modification times."""
    if not path.is_dir():
        stat = path.stat()
        return [stat.st_size, stat.st_mtime_ns]
    stats = [(name, (path / name).stat()) for name in image_names(path)]
    return [sum(stat.st_size for _, stat in stats), _digest([(name, s.st_size, s.st_mtime_ns) for name, s in stats])]


def hash_video(path: Path) -> str:
    """SHA-256 of one video, hexadecimal; of a folder, that of the names and hashes of its images."""
    if path.is_dir():
        hashes = [(name, hash_video(path / name)) for name in image_names(path)]
        return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load_hashes(root: Path) -> dict[str, list[object]]:
    try:
        known = json.loads((root / _HASHES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _save_hashes(root: Path, hashes: dict[str, list[object]]) -> None:
    """Best effort: a read-only or full disk costs a hash next time, nothing else."""
    target = root / _HASHES
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    try:
        target.parent.mkdir(exist_ok=True)
        temporary.write_text(json.dumps(hashes), encoding="utf-8")
        temporary.replace(target)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
