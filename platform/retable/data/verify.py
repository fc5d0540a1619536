"""Is a dataset on disk what was published: complete, nothing twice, nothing broken? Decodes every video to its end."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

from retable.data.errors import DamagedVideo, DatasetError
from retable.data.layouts import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Item, Listing
from retable.data.manifest import Manifest, content_hashes
from retable.data.workers import Lost, each

Kind = Literal["lists", "count", "missing", "vanished", "extra", "duplicate", "damaged", "stale"]
Progress = Callable[[int, int], None]
"""Called with (videos decoded, videos in all)."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as published. ``paths``: all videos it is about, relative to the dataset's folder."""

    kind: Kind
    message: str
    paths: tuple[str, ...] = ()


LIMIT = 900.0
"""Seconds after which the decoding of one video is given up."""


def verify(
    manifest: Manifest, *, progress: Progress | None = None, processes: int | None = None, limit: float = LIMIT
) -> list[Finding]:
    """Everything that is wrong with a dataset; an empty list if nothing is. Raises nothing about the dataset.

    - ``lists``: a list file or folder is missing or wrong, a class is empty, a video is listed twice;
    - ``count``: another number of classes or videos than published, where the layout states it and the dataset has the
      layout's own name (``ucf101``, not ``ucf101-small``);
    - ``missing``: listed but not on disk; ``vanished``: the same where the web has lost videos (Kinetics);
    - ``extra``: a video on disk that no list names, not even as unused;
    - ``duplicate``: several videos with the same content, and whether that puts test videos into training;
    - ``damaged``: a video that does not decode to its end, or over which a process crashed or took longer than
      ``limit`` seconds.

    ``stale`` findings are those of ``check.py``: an index or pack that is older than the videos.

    ``processes`` decode (default: one per CPU; 0: this one, without the limit); frames are not kept.
    """
    listings, findings = _read(manifest)
    if not listings:
        return findings
    items = {item.path: item for listing in listings.values() for item in listing.items}
    unused = {path for listing in listings.values() for path in listing.unused} - items.keys()
    present = sorted(path for path in items if (manifest.root / path).exists())
    findings += _counts(manifest, listings, set(present), sum((manifest.root / path).exists() for path in unused))
    findings += _by_folder("missing", "listed but not on disk", items.keys() - set(present))
    gone = {path for listing in listings.values() for path in listing.absent}
    findings += _by_folder("vanished", "listed but not on disk, as happens with videos from the web", gone)
    findings += _by_folder("extra", "on disk but in no list", _on_disk(manifest.root, items.keys() | unused))
    damaged = sorted(_damaged(manifest.root, present, progress, processes, limit), key=lambda finding: finding.paths)
    broken = {path for finding in damaged for path in finding.paths}
    return [*findings, *_duplicates(manifest.root, [p for p in present if p not in broken], listings), *damaged]


def _read(manifest: Manifest) -> tuple[dict[int, Listing], list[Finding]]:
    """Every split that can be read; and what keeps the others, or a run on them, from it."""
    listings: dict[int, Listing] = {}
    faults: dict[str, None] = {}
    for split in manifest.layout.splits:
        try:
            listings[split] = manifest.layout.read(manifest.root, split)
            if all((manifest.root / item.path).exists() for item in listings[split].items):
                manifest.items(split)  # empty classes, videos listed twice
        except (DatasetError, OSError, ValueError) as error:
            faults[str(error)] = None
    return listings, [Finding("lists", fault) for fault in faults]


def _counts(
    manifest: Manifest, listings: dict[int, Listing], present: Collection[str], unused: int
) -> Iterator[Finding]:
    layout = manifest.layout
    classes = layout.num_classes(manifest.name)
    for found in sorted({len(listing.classes) for listing in listings.values()} - {classes}):
        if classes is not None:
            yield Finding("count", f"{found} classes, but {manifest.name} has {classes}")
    if manifest.name.replace("-", "_").lower() != layout.name:
        return
    for split, published in layout.counts.items():
        items = listings[split].items if split in listings else ()
        for subset, number in published.items():
            got = sum(item.subset == subset and item.path in present for item in items)
            if got != number:
                yield Finding("count", f"split {split}: {got:,} {subset} videos on disk, {number:,} published")
    if layout.total not in (None, len(present) + unused):
        yield Finding("count", f"{len(present) + unused:,} listed videos on disk, {layout.total:,} published")


def _by_folder(kind: Kind, what: str, paths: Iterable[str]) -> Iterator[Finding]:
    folders: dict[str, list[str]] = defaultdict(list)
    for path in sorted(paths):
        folders[str(PurePosixPath(path).parent)].append(path)
    for folder, members in folders.items():
        names = [PurePosixPath(path).name for path in members]
        more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
        yield Finding(kind, f"{folder}: {', '.join(names[:3])}{more}: {what}", tuple(members))


def _on_disk(root: Path, listed: Collection[str]) -> set[str]:
    """Video files, and folders that hold images, that are not ``listed``, hidden, or inside a listed folder."""
    found: set[str] = set()
    for folder, below, files in os.walk(root):
        here = Path(folder).relative_to(root).as_posix()
        if here in listed:
            below.clear()
            continue
        below[:] = [name for name in below if not name.startswith(".")]
        suffixes = {name: Path(name).suffix.lower() for name in files if not name.startswith(".")}
        found |= {(Path(here) / name).as_posix() for name, suffix in suffixes.items() if suffix in VIDEO_SUFFIXES}
        if here != "." and any(suffix in IMAGE_SUFFIXES for suffix in suffixes.values()):
            found.add(here)
    return found.difference(listed)


def _duplicates(root: Path, paths: list[str], listings: dict[int, Listing]) -> Iterator[Finding]:
    same: dict[str, list[str]] = defaultdict(list)
    for path, content in content_hashes(root, paths).items():
        same[content].append(path)
    subsets = {split: {item.path: item for item in listing.items} for split, listing in listings.items()}
    for members in same.values():
        if len(members) > 1:
            yield Finding("duplicate", f"{', '.join(members)}: same content{_leak(members, subsets)}", tuple(members))


def _leak(members: list[str], splits: dict[int, dict[str, Item]]) -> str:
    """What makes a duplicate worse than wasted disk."""
    used = {split: [items[path] for path in members if path in items] for split, items in splits.items()}
    leaks = [str(split) for split, items in used.items() if len({item.subset for item in items}) > 1]
    labels = Counter(item.class_name for items in used.values() for item in items)
    said = f"; on both sides of split {', '.join(leaks)}" if leaks else ""
    return said + (f"; with different labels: {', '.join(sorted(labels))}" if len(labels) > 1 else "")


def _damaged(
    root: Path, paths: list[str], progress: Progress | None, processes: int | None, limit: float
) -> Iterator[Finding]:
    for done, (path, why) in enumerate(each(partial(_fault, root), paths, processes=processes, limit=limit), 1):
        if progress is not None:
            progress(done, len(paths))
        reason = why.reason if isinstance(why, Lost) else why
        if reason is not None:
            yield Finding("damaged", f"{path}: {reason}", (path,))


def _fault(root: Path, path: str) -> str | None:
    """What keeps a video from decoding to its end; None if nothing does."""
    from retable.data.decode import count_frames  # not at the top: lists and counts need no decoder

    try:
        count_frames(root / path)
    except DamagedVideo as error:
        return error.reason
    return None
