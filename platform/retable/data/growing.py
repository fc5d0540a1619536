"""A pack of encoded videos that grows: what is written is recorded every few videos, a broken-off one grows on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from retable.data.errors import DatasetError
from retable.data.examine import Entry
from retable.data.index import read_parquet
from retable.data.indexing import put_table
from retable.data.mirror import Shard
from retable.data.records import Place, index_row
from retable.data.unfinished import shard_name

PART = 32
"""Videos that are recorded together: what a broken-off run may have to do again."""

_ROWS = "rows-"


class Growing:
    """Records into files, one after the other. ``done``: paths of the videos that are written.

    Raises:
        DatasetError: a file has lost some of what is recorded of it.
    """

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self._folder, self._shard_bytes = folder, shard_bytes
        tables = [read_parquet(part.read_bytes()) for part in sorted(folder.glob(f"{_ROWS}*.parquet"))]
        self._parts = len(tables)
        self._rows: list[dict[str, Any]] = [row for table in tables for row in table.to_pylist()]
        self._recorded = len(self._rows)
        self.done = {row["path"] for row in self._rows}
        self._shard = max((row["shard"] for row in self._rows), default=0)
        self._file = self._open(self._whole())

    def _whole(self) -> int:
        """Bytes of the last file that are recorded."""
        ends: dict[int, int] = {}
        for row in self._rows:
            ends[row["shard"]] = max(ends.get(row["shard"], 0), row["offset"] + row["bytes"])
        for shard, end in ends.items():
            file = self._folder / shard_name(shard)
            size = file.stat().st_size if file.is_file() else 0
            if size < end:
                raise DatasetError(f"{file} has {size:,} of the {end:,} bytes that were written: remove {self._folder}")
        return ends.get(self._shard, 0)

    def _open(self, size: int) -> BinaryIO:
        """The file that is written to, without what was not recorded."""
        file = (self._folder / shard_name(self._shard)).open("ab")
        file.truncate(size)
        file.seek(size)  # tell() would go on from the old end
        return file

    def write(self, entry: Entry, record: bytes) -> None:
        """Append a video."""
        if self._file.tell() >= self._shard_bytes:
            self._record()
            self._file.close()
            self._shard += 1
            self._file = self._open(0)
        place = Place(entry.path, self._shard, self._file.tell(), len(record))
        append(self._file, record)
        self._rows.append(index_row(entry, place, whole_file=False))
        self.done.add(entry.path)
        if len(self._rows) - self._recorded >= PART:
            self._record()

    def _record(self) -> None:
        """Make sure of what is written so far."""
        self._file.flush()
        os.fsync(self._file.fileno())
        fresh = self._rows[self._recorded :]
        if fresh:
            put_table(self._folder / f"{_ROWS}{self._parts:06d}.parquet", pa.Table.from_pylist(fresh))
            self._parts, self._recorded = self._parts + 1, len(self._rows)

    def close(self) -> None:
        """Let go of the file. What was not recorded is done again by whoever goes on."""
        self._file.close()

    def finished(self) -> tuple[dict[str, Shard], pa.Table]:
        """The files, all written, and the rows of the index."""
        self._record()
        files = {}
        for shard in range(self._shard + 1):
            with (self._folder / shard_name(shard)).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                files[shard_name(shard)] = Shard(file.tell(), digest)
        return files, pa.Table.from_pylist(sorted(self._rows, key=lambda row: row["path"]))


def forget(folder: Path) -> None:
    """Remove what a finished pack needed only to grow."""
    for part in folder.glob(f"{_ROWS}*.parquet"):
        part.unlink()


def append(file: BinaryIO, record: bytes) -> None:
    """Write a record."""
    file.write(record)
