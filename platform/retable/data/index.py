"""The index of a dataset: what one full decode of every video found, as one Parquet file. Made by ``indexing.py``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from retable.data.decoders import Stream
from retable.data.errors import DatasetError
from retable.data.examine import Entry
from retable.data.manifest import Manifest
from retable.data.packets import Table

_STREAM = pa.schema(
    [("codec", pa.string()), ("tag", pa.string()), ("extradata", pa.binary())]
    + [(name, pa.int32()) for name in ("width", "height", "rotation", "colorspace", "color_range")]
)
_SCALARS = pa.schema(
    [(name, pa.string()) for name in ("path", "state", "content", "status", "reason", "access", "container")]
    + [("frames", pa.int32()), ("first_bad", pa.int32()), ("duration", pa.float64())]
)
_LISTS = pa.schema(
    [
        ("offsets", pa.list_(pa.int64())),  # of packets, bytes
        ("sizes", pa.list_(pa.int32())),
        ("flags", pa.list_(pa.uint8())),  # 1: key, 2: no other frame needs it
        ("packet", pa.list_(pa.int32())),  # of frames: the packet that holds it
        ("governing", pa.list_(pa.int32())),  # the key packet to begin with
        ("times", pa.list_(pa.float32())),  # seconds
    ]
)
COLUMNS = pa.schema([*_SCALARS, *_STREAM, *_LISTS])


@dataclass(frozen=True, eq=False)
class Index(Mapping[str, Entry]):
    """Entries by path. The rows stay in Arrow's memory; an entry is made when it is asked for."""

    table: pa.Table

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {path: row for row, path in enumerate(self.table.column("path").to_pylist())}

    def __getitem__(self, path: str) -> Entry:
        row = self.table.slice(self.row(path), 1)
        value = {name: row.column(name)[0].as_py() for name in (*_SCALARS.names, *_STREAM.names)}
        lists = {name: row.column(name)[0].values.to_numpy() for name in _LISTS.names}
        stream = Stream(**{name: value[name] for name in _STREAM.names})
        table = Table(lists["sizes"], lists["flags"], lists["packet"])
        scalars = {name: value[name] for name in _SCALARS.names if name not in ("status", "first_bad")}
        return Entry(**scalars, stream=stream, table=table, offsets=lists["offsets"], times=lists["times"])

    def row(self, path: str) -> int:
        """Where an entry stands; of several of one path, the last."""
        return self._rows[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def column(self, name: str) -> dict[str, Any]:
        """One scalar column, by path."""
        values = self.table.column(name).to_pylist()
        return {path: values[row] for path, row in self._rows.items()}

    @property
    def damaged(self) -> dict[str, str]:
        """Why a video cannot be decoded to its end, of all for which that is so."""
        return {path: reason for path, reason in self.column("reason").items() if reason}


def index_file(manifest: Manifest) -> Path:
    """Where the index of a dataset is looked for."""
    return manifest.root / ".retable" / "index.parquet"


def load_index(file: Path) -> Index:
    """Read an index.

    Raises:
        DatasetError: there is none, or the file is something else.
    """
    try:
        table = read_parquet(file.read_bytes())
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{file} is no index ({error}): make it with retable data index") from error
    if not table.schema.equals(COLUMNS):
        raise DatasetError(f"{file} is an index of another version: make it again with retable data index")
    return Index(table)


def read_parquet(content: bytes) -> pa.Table:
    """A table, read in this thread: Arrow's own threads can end a process badly that is about to exit."""
    return pq.read_table(pa.BufferReader(content), use_threads=False, pre_buffer=False)


def all_videos(manifest: Manifest) -> list[str]:
    """Paths of the videos of every split that can be read, sorted.

    Raises:
        DatasetError: no split can be read (the reason is that of the first), or the dataset is a pack, without files.
    """
    if manifest.contents is not None:
        raise DatasetError(f"dataset {manifest.name}: {manifest.root} is a pack: it has its index, but no video file")
    found: set[str] = set()
    faults: list[DatasetError] = []
    for split in manifest.layout.splits:
        try:
            found |= {item.path for item in manifest.items(split)}
        except DatasetError as error:
            faults.append(error)
        except OSError as error:
            faults.append(DatasetError(f"dataset {manifest.name}: {error}"))
    if not found and faults:
        raise faults[0]
    return sorted(found)


def to_table(entries: Sequence[Entry]) -> pa.Table:
    """Entries as rows. ``status`` is ``ok`` or ``damaged``; ``first_bad`` the first frame that cannot be decoded."""
    columns = {name: [getattr(entry, name, None) for entry in entries] for name in _SCALARS.names}
    columns["status"] = ["damaged" if entry.reason else "ok" for entry in entries]
    columns["first_bad"] = [entry.frames if entry.reason else None for entry in entries]
    columns |= {name: [getattr(entry.stream, name) for entry in entries] for name in _STREAM.names}
    columns |= {name: [getattr(entry.table, name) for entry in entries] for name in ("sizes", "flags", "packet")}
    columns["governing"] = [entry.table.governing for entry in entries]
    columns["offsets"] = [entry.offsets for entry in entries]
    columns["times"] = [entry.times for entry in entries]
    return pa.Table.from_pydict(columns, schema=COLUMNS)
