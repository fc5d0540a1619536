"""Making a pack: a dataset's video packets copied, not re-encoded, into a few large files. The format: ``packed.py``.

Files are written one after the other beside the pack's place, which appears when all are there; a broken-off pack is
taken up again at its last whole file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retable import __version__
from retable.data.container import packets_of
from retable.data.errors import DatasetError, DiskFull
from retable.data.examine import SEQUENTIAL, Entry, state_of
from retable.data.index import Index, all_videos
from retable.data.indexing import Progress, alone, put
from retable.data.manifest import Manifest
from retable.data.packed import SCHEMA, Pack, open_pack
from retable.data.packets import Stream
from retable.data.packlist import CARD, INDEX, LISTING, is_pack

SHARD_BYTES = 1_000_000_000
"""A file of a pack ends with the first video that makes it this large."""

_PLAN = "plan.json"


@dataclass(frozen=True)
class _Row:
    """A video's place in the pack."""

    path: str
    shard: int
    offset: int
    bytes: int


def build_pack(
    manifest: Manifest,
    index: Index,
    target: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> Pack:
    """Pack all videos of a dataset into the folder ``target``. A finished pack of the same videos is left alone.

    Raises:
        DatasetError: the index lacks videos or is older than they are, the folder holds something else or cannot be
            written, or another process makes the same pack.
        DamagedVideo: a video is not what was indexed.
        DiskFull: not enough space; whole files are kept for the next try.
    """
    paths = _indexed_videos(manifest, index)
    rows = _plan(manifest, index, paths, shard_bytes)
    needed, key = sum(row.bytes for row in rows), _key(index, rows)
    if target.exists() and any(target.iterdir()):
        if is_pack(target) and (pack := open_pack(target)).card["key"] == key:
            return pack
        raise DatasetError(f"{target} holds something else, or a pack of other videos: remove it, or choose another")
    partial = target.with_name(f"{target.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with alone(partial, "retable data pack"):
            _begin(partial, key)
            _check_space(partial, rows, needed, manifest.name)
            _write_shards(manifest, index, rows, partial, progress)
            _finish(manifest, index, rows, partial, key)
            if target.is_dir():
                target.rmdir()
            partial.rename(target)
        partial.with_name(f"{partial.name}.lock").unlink(missing_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(target.parent, needed, f"the pack of {manifest.name}") from error
        raise DatasetError(f"cannot write the pack {target}: {error}; choose another place with --out") from error
    return open_pack(target)


def _indexed_videos(manifest: Manifest, index: Index) -> list[str]:
    """All videos, if the index knows them as they are."""
    paths, states = all_videos(manifest), index.column("state")
    stale = [path for path in paths if states.get(path, "") != _state(manifest.root / path)]
    if stale:
        more = f" and {len(stale) - 1:,} more" if len(stale) > 1 else ""
        raise DatasetError(
            f"dataset {manifest.name}: {stale[0]}{more} not in the index, or written since: run retable data index"
            f" {manifest.name}"
        )
    return paths


def _state(file: Path) -> str:
    try:
        return state_of(file)
    except OSError:
        return ""


def _plan(manifest: Manifest, index: Index, paths: Sequence[str], shard_bytes: int) -> list[_Row]:
    rows: list[_Row] = []
    shard, offset = 0, 0
    for path in paths:
        entry = index[path]
        size = _record_size(manifest.root / path, entry)
        rows.append(_Row(path, shard, offset, size))
        offset += size
        if offset >= shard_bytes:
            shard, offset = shard + 1, 0
    return rows


def _record_size(file: Path, entry: Entry) -> int:
    if _as_file(file, entry):
        return file.stat().st_size
    packets, frames = len(entry.table.sizes), len(entry.table.packet)
    return 5 * packets + 4 * frames + int(entry.table.sizes.sum())


def _as_file(file: Path, entry: Entry) -> bool:
    """Whether a video goes into the pack as the file it is."""
    if entry.frames and not entry.stream.codec:
        raise DatasetError(f"{file} cannot be packed: its images are not all JPEG or all PNG")
    return entry.access == SEQUENTIAL and entry.frames > 0 and not file.is_dir()


def _key(index: Index, rows: Sequence[_Row]) -> str:
    """Names the content of a pack."""
    contents = index.column("content")
    value = [(row.path, contents[row.path], row.shard, row.offset, row.bytes) for row in rows]
    return hashlib.sha256(json.dumps([SCHEMA, value]).encode()).hexdigest()[:32]


def _begin(partial: Path, key: str) -> None:
    """Keep the whole files of a broken-off pack of the same content; begin anew otherwise."""
    try:
        same = json.loads((partial / _PLAN).read_text(encoding="utf-8")) == {"key": key}
    except (OSError, ValueError):
        same = False
    for file in partial.iterdir():
        if not same or file.suffix == ".tmp":
            file.unlink()
    put(partial / _PLAN, json.dumps({"key": key}).encode())


def _name(shard: int) -> str:
    return f"videos-{shard:05d}.bin"


def _check_space(partial: Path, rows: Sequence[_Row], needed: int, name: str) -> None:
    done = sum(file.stat().st_size for file in partial.glob("videos-*.bin"))
    if shutil.disk_usage(partial).free < needed - done:
        raise DiskFull(partial.parent, needed - done, f"the pack of {name}")


def _write_shards(
    manifest: Manifest, index: Index, rows: Sequence[_Row], partial: Path, progress: Progress | None
) -> None:
    done = 0
    for shard in range(rows[-1].shard + 1 if rows else 0):
        members = [row for row in rows if row.shard == shard]
        size, target = sum(row.bytes for row in members), partial / _name(shard)
        if not target.is_file() or target.stat().st_size != size:
            with _whole(target) as file:
                for count, record in enumerate(_records(manifest.root, index, members), 1):
                    _append(file, record)
                    if progress is not None:
                        progress(done + count, len(rows))
        done += len(members)


def _append(file: BinaryIO, record: bytes) -> None:
    file.write(record)


@contextlib.contextmanager
def _whole(target: Path) -> Iterator[BinaryIO]:
    """A file that gets its name when it is complete, and is gone if it does not get so far."""
    temporary = target.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _records(root: Path, index: Index, rows: Sequence[_Row]) -> Iterator[bytes]:
    """The record of every video, in order; a few are read ahead."""

    def one(row: _Row) -> bytes:
        return _record(root / row.path, index[row.path], row.bytes)

    ahead = 8
    with ThreadPoolExecutor(4) as pool:
        for start in range(0, len(rows), ahead):  # in slices, so that memory stays bounded
            yield from pool.map(one, rows[start : start + ahead])


def _record(file: Path, entry: Entry, size: int) -> bytes:
    if _as_file(file, entry):
        content = file.read_bytes()
    else:
        table = entry.table
        head = [np.ascontiguousarray(a, t).tobytes() for a, t in ((table.sizes, "<i4"), (table.packet, "<i4"))]
        content = b"".join([*head, table.flags.tobytes(), *(packets_of(file, entry) if len(table.sizes) else ())])
    if len(content) != size:
        raise DatasetError(f"{file} has changed while it was packed: run retable data index again")
    return content


def _finish(manifest: Manifest, index: Index, rows: Sequence[_Row], partial: Path, key: str) -> None:
    """The small files of a pack; the card is last."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([_index_row(manifest, index, row) for row in rows]), buffer, compression="zstd")
    put(partial / INDEX, buffer.getbuffer())
    put(partial / LISTING, json.dumps(_listing(manifest)).encode())
    sizes = [sum(row.bytes for row in rows if row.shard == k) for k in range(rows[-1].shard + 1 if rows else 0)]
    card = {
        "schema": SCHEMA,
        "dataset": manifest.name,
        "retable": __version__,
        "key": key,
        "videos": len(rows),
        "bytes": sum(sizes),
        "shards": [{"file": _name(k), "bytes": size} for k, size in enumerate(sizes)],
    }
    (partial / _PLAN).unlink()
    put(partial / CARD, json.dumps(card, indent=1).encode())


def _index_row(manifest: Manifest, index: Index, row: _Row) -> dict[str, Any]:
    entry = index[row.path]
    stream = {name: getattr(entry.stream, name) for name in Stream.__dataclass_fields__}
    scalars = {name: getattr(entry, name) for name in ("content", "reason", "container", "frames", "duration")}
    access = SEQUENTIAL if _as_file(manifest.root / row.path, entry) else "packets"
    return {**asdict(row), **scalars, **stream, "access": access, "packets": len(entry.table.sizes)}


def _listing(manifest: Manifest) -> dict[str, Any]:
    """Every split that can be read, as JSON."""
    splits: dict[str, Any] = {}
    for split in manifest.layout.splits:
        with contextlib.suppress(DatasetError, OSError):
            manifest.items(split)  # refuses a split that a run could not use either
            splits[str(split)] = asdict(manifest.layout.read(manifest.root, split))
    return {"schema": SCHEMA, "splits": splits}
