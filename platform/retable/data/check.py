"""Are a dataset's index and pack still true? What is wrong with the dataset itself is the business of ``verify.py``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from retable.data.clips import pack_folder
from retable.data.errors import DataError, DatasetError
from retable.data.examine import state_of
from retable.data.index import all_videos, index_file, load_index
from retable.data.manifest import Manifest
from retable.data.mirror import MIRROR
from retable.data.packed import Pack, open_pack
from retable.data.packlist import is_pack
from retable.data.verify import LIMIT, Finding
from retable.data.workers import Lost, each

_SIDE = 16
"""Frames are decoded to this short side to see that they are there."""

Progress = Callable[[int, int], None]
"""Called with (videos done, videos in all)."""


def check_derived(manifest: Manifest) -> Iterator[Finding]:
    """What the index and the pack of a dataset with video files say that is no longer so; no video is decoded."""
    try:
        paths = all_videos(manifest)
        if index_file(manifest).is_file():
            yield from _check_index(manifest, paths)
        if is_pack(pack_folder(manifest)):
            yield from _check_pack(manifest, paths)
    except DatasetError as error:
        yield Finding("stale", str(error))


def _check_index(manifest: Manifest, paths: list[str]) -> Iterator[Finding]:
    index = load_index(index_file(manifest))
    states = index.column("state")
    present = [path for path in paths if manifest.has(path)]
    for path in present:
        if path not in states:
            yield Finding("stale", f"{path}: not in the index: run retable data index {manifest.name}", (path,))
        elif states[path] != state_of(manifest.root / path):
            again = f"run retable data index {manifest.name} again"
            yield Finding("stale", f"{path}: was written since it was indexed: {again}", (path,))


def _check_pack(manifest: Manifest, paths: list[str]) -> Iterator[Finding]:
    pack = open_pack(pack_folder(manifest))
    present = [path for path in paths if manifest.has(path)]
    hashes = manifest.hashes(present)
    stale = [path for path in present if pack.contents.get(path) != hashes[path]]
    if stale:
        more = f" and {len(stale) - 1:,} more" if len(stale) > 1 else ""
        message = f"the pack {pack.place} does not hold {stale[0]}{more} as on disk: remove it and pack again"
        yield Finding("stale", message, tuple(stale))


def check_pack(
    pack: Pack, *, progress: Progress | None = None, processes: int | None = None, limit: float = LIMIT
) -> list[Finding]:
    """What is wrong with a pack: large files that are not what was packed, videos that were damaged when they were
    packed, and frames that do not come out.

    Decodes every frame, in ``processes`` (default: one per CPU; 0: this one), each video within ``limit`` seconds.
    """
    findings = list(_check_files(pack))
    paths = list(pack.counts)
    found: dict[str, str] = {}
    for done, (path, answer) in enumerate(each(partial(_fault, pack), paths, processes=processes, limit=limit), 1):
        found[path] = answer.reason if isinstance(answer, Lost) else answer
        if progress is not None:
            progress(done, len(paths))
    return [*findings, *(Finding("damaged", f"{path}: {found[path]}", (path,)) for path in paths if found[path])]


def _check_files(pack: Pack) -> Iterator[Finding]:
    """Large files on this disk by their SHA-256; those in a bucket are checked as they are copied."""
    for shard in pack.card["shards"]:
        file = Path(pack.place) / shard["file"]
        if "://" in pack.place or (not file.is_file() and (file.parent / MIRROR).is_file()):
            continue
        try:
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            yield Finding("damaged", f"{shard['file']}: {error}")
            continue
        if digest != shard["sha256"]:
            yield Finding("damaged", f"{shard['file']}: it is not what was packed (SHA-256 {digest[:12]}...)")


def _fault(pack: Pack, path: str) -> str:
    """What is wrong with a video; empty if nothing is."""
    count = pack.counts[path]
    try:
        for first in range(0, count, 64):  # in parts, so that memory stays bounded
            pack.read(path, range(first, min(first + 64, count)), _SIDE)
    except DataError as error:
        return str(error)
    return pack.damaged.get(path, "")
