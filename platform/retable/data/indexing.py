"""Making the index of a dataset: parallel, resumable, alone; the file appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from retable.data.errors import DatasetError, DiskFull
from retable.data.examine import Entry, examine, lost, state_if_there, state_of
from retable.data.files import alone, put
from retable.data.index import COLUMNS, Index, all_videos, index_file, load_index, to_table
from retable.data.manifest import Manifest, hash_video
from retable.data.workers import Lost, each

LIMIT = 900.0
"""Seconds after which the decoding of one video is given up."""

BYTES_PER_VIDEO = 4000
"""Rough size of a video's part of the index; for messages."""

PART = 64
"""Videos that are put on disk together: what a broken-off run may have to do again."""

Progress = Callable[[int, int], None]
"""Called with (videos done, videos in all)."""


@dataclass(frozen=True)
class _Task:
    """A video to look at. ``content``: the hash of what is known of it; empty if nothing is."""

    path: str
    content: str


def build_index(
    manifest: Manifest,
    *,
    file: Path | None = None,
    processes: int | None = None,
    limit: float = LIMIT,
    progress: Progress | None = None,
) -> Index:
    """Decode every video of a dataset once and write what was found to ``file`` (default: ``index_file(manifest)``).

    Videos that an earlier or broken-off index knows, and that have not changed since, are not decoded again. A damaged
    video is a row with its reason; so is one that crashes its process or does not end within ``limit`` seconds.

    Raises:
        DatasetError: the lists cannot be read, the place cannot be written, or another process is at the same index.
        DiskFull: no space left; what is done is kept for the next try.
    """
    target, paths = file or index_file(manifest), all_videos(manifest)
    parts = target.with_name(f"{target.name}.parts")
    try:
        parts.mkdir(parents=True, exist_ok=True)
        with alone(target, "retable data index"):
            known = _known(target, parts)
            fresh, todo = _sorted_out(manifest.root, paths, known)
            for done, _ in enumerate(_indexed(manifest.root, todo, known, parts, processes, limit), len(fresh) + 1):
                if progress is not None:
                    progress(done, len(paths))
            rows = _known(target, parts)
            put_table(target, rows.table.take([rows.row(path) for path in paths]))
            shutil.rmtree(parts, ignore_errors=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(target.parent, BYTES_PER_VIDEO * len(paths), f"the index of {manifest.name}") from error
        raise DatasetError(f"cannot write the index {target}: {error}; choose another place with --out") from error
    return load_index(target)


def _sorted_out(root: Path, paths: list[str], known: Index) -> tuple[list[str], list[_Task]]:
    """Videos that are known and have not been written since; and the others."""
    states, contents = known.column("state"), known.column("content")
    fresh = [path for path in paths if states.get(path) and states[path] == state_if_there(root / path)]
    unchanged = set(fresh)
    return fresh, [_Task(path, contents.get(path, "")) for path in paths if path not in unchanged]


def _indexed(
    root: Path, todo: list[_Task], known: Index, parts: Path, processes: int | None, limit: float
) -> Iterator[str]:
    """The path of every video as it is done; entries go to disk a part at a time, the last part at the end."""
    entries: list[Entry] = []
    written = 0
    for task, answer in each(partial(_renew, root), todo, processes=processes, limit=limit):
        if isinstance(answer, Lost):
            entries.append(replace(lost(task.path, answer.reason), state=state_if_there(root / task.path)))
        elif isinstance(answer, str):
            entries.append(replace(known[task.path], state=answer))
        else:
            entries.append(answer)
        yield task.path
        if len(entries) == PART:
            _put_part(parts, written, entries)
            written, entries = written + 1, []
    if entries:
        _put_part(parts, written, entries)


def _renew(root: Path, task: _Task) -> Entry | str:
    """The video's entry; or its new state, if only its time stamp has changed."""
    with contextlib.suppress(OSError):  # examine() says what is wrong
        if task.content and hash_video(root / task.path) == task.content:
            return state_of(root / task.path)
    return examine(root, task.path)


def _known(target: Path, parts: Path) -> Index:
    """What the index and the parts of broken-off runs hold, newest last; a file that cannot be read holds nothing."""
    tables = [COLUMNS.empty_table()]
    for file in (target, *sorted(parts.glob("*.parquet"), key=lambda part: part.stat().st_mtime_ns)):
        with contextlib.suppress(DatasetError):
            tables.append(load_index(file).table)
    return Index(pa.concat_tables(tables))


def _put_part(parts: Path, number: int, entries: list[Entry]) -> None:
    name = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}-{number:06d}.parquet"
    put_table(parts / name, to_table(entries))


def put_table(target: Path, table: pa.Table) -> None:
    """Write a Parquet file beside its place, then move it there."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=4096)
    put(target, buffer.getbuffer())
