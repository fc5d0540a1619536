"""Making a pack: a dataset's video packets copied, not re-encoded, into a few large files. The format: ``packed.py``.

Files are written one after the other; a broken-off pack is taken up again at its last whole file. Where they go is the
business of ``packtarget.py``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa

from retable.data.errors import DatasetError, DiskFull
from retable.data.examine import Entry, state_if_there
from retable.data.index import Index, all_videos
from retable.data.indexing import Progress
from retable.data.manifest import Manifest
from retable.data.packed import SCHEMA, Pack, open_pack
from retable.data.packtarget import Target, errors_of, target_of
from retable.data.records import Place, as_file, index_row, record_of, record_size
from retable.data.unfinished import Unfinished, finish, is_finished, shard_name

SHARD_BYTES = 1_000_000_000
"""A file of a pack ends with the first video that makes it this large."""

_AHEAD = 8
"""Videos that are read ahead of the one that is written."""


def build_pack(
    manifest: Manifest,
    index: Index,
    place: Path | str,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> Pack:
    """Pack all videos of a dataset into the folder, or below the bucket's URL, ``place``.

    A finished pack of the same videos is left alone.

    Raises:
        DatasetError: the index lacks videos or is older than they are, the place holds something else or cannot be
            written, or another process makes the same pack.
        DamagedVideo: a video is not what was indexed.
        DiskFull: not enough space; whole files are kept for the next try.
    """
    places = _plan(manifest, index, shard_bytes)
    needed, key = sum(place.bytes for place in places), _key(index, places)
    target = target_of(place, "retable data pack")
    with errors_of(place, needed, f"the pack of {manifest.name}"):
        if not is_finished(target, key, place):
            with target.working():
                unfinished = Unfinished(target, key)
                _check_space(target, unfinished, needed, f"the pack of {manifest.name}", place)
                _write_shards(manifest.root, index, places, unfinished, progress)
                finish(target, manifest, unfinished.files, _rows(manifest.root, index, places), key)
    return open_pack(place)


def _plan(manifest: Manifest, index: Index, shard_bytes: int) -> list[Place]:
    """Where every video will lie."""
    places: list[Place] = []
    shard, offset = 0, 0
    for path in indexed_videos(manifest, index):
        size = record_size(manifest.root / path, index[path])
        places.append(Place(path, shard, offset, size))
        offset += size
        if offset >= shard_bytes:
            shard, offset = shard + 1, 0
    return places


def indexed_videos(manifest: Manifest, index: Index) -> list[str]:
    """All videos, sorted.

    Raises:
        DatasetError: the index does not know all of them as they are.
    """
    paths, states = all_videos(manifest), index.column("state")
    stale = [path for path in paths if states.get(path, "") != state_if_there(manifest.root / path)]
    if stale:
        more = f" and {len(stale) - 1:,} more" if len(stale) > 1 else ""
        raise DatasetError(
            f"dataset {manifest.name}: {stale[0]}{more} not in the index, or written since: run retable data index"
            f" {manifest.name}"
        )
    return paths


def _key(index: Index, places: Sequence[Place]) -> str:
    """Names the content of a pack."""
    contents = index.column("content")
    value = [(place.path, contents[place.path], place.shard, place.offset, place.bytes) for place in places]
    return hashlib.sha256(json.dumps([SCHEMA, value]).encode()).hexdigest()[:32]


def _check_space(target: Target, unfinished: Unfinished, needed: int, what: str, place: Path | str) -> None:
    needed -= sum(shard.bytes for shard in unfinished.files.values())
    free = target.free()
    if free is not None and free < needed:
        raise DiskFull(Path(place).parent, needed, what)


def _write_shards(
    root: Path, index: Index, places: Sequence[Place], unfinished: Unfinished, progress: Progress | None
) -> None:
    done = 0
    for shard in range(places[-1].shard + 1 if places else 0):
        members = [place for place in places if place.shard == shard]
        if not unfinished.has(shard_name(shard), sum(place.bytes for place in members)):
            with unfinished.write(shard_name(shard)) as write:
                for count, record in enumerate(_records(root, index, members), 1):
                    write(record)
                    if progress is not None:
                        progress(done + count, len(places))
        done += len(members)


def _records(root: Path, index: Index, places: Sequence[Place]) -> Iterator[bytes]:
    """The record of every video, in order; a few are read ahead."""

    def one(place: Place) -> bytes:
        content = record_of(root / place.path, index[place.path])
        if len(content) != place.bytes:
            raise DatasetError(f"{root / place.path} has changed while it was packed: run retable data index again")
        return content

    with ThreadPoolExecutor(4) as pool:
        for start in range(0, len(places), _AHEAD):  # in slices, so that memory stays bounded
            yield from pool.map(one, places[start : start + _AHEAD])


def _rows(root: Path, index: Index, places: Sequence[Place]) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for place in places:
        entry: Entry = index[place.path]
        rows.append(index_row(entry, place, whole_file=as_file(root / place.path, entry)))
    return pa.Table.from_pylist(rows)
