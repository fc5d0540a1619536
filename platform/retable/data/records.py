"""A video's record in a pack, as bytes and as a row of the pack's index. The format is described in ``packed.py``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retable.data.container import packets_of
from retable.data.decoders import Stream
from retable.data.errors import DatasetError
from retable.data.examine import SEQUENTIAL, Entry
from retable.data.packets import Table


@dataclass(frozen=True)
class Place:
    """Where a video's record lies in a pack: number of the file, and bytes."""

    path: str
    shard: int
    offset: int
    bytes: int


@dataclass(frozen=True)
class Record:
    """A record as its reader sees it: a packet table and then the packets."""

    shard: int
    offset: int
    packets: int
    frames: int

    @property
    def head(self) -> int:
        """Bytes of the packet table."""
        return 5 * self.packets + 4 * self.frames


def table_from(head: memoryview, record: Record) -> Table:
    """The packet table at the beginning of a record."""
    numbers = np.frombuffer(head[: 4 * (record.packets + record.frames)], "<i4")
    flags = np.frombuffer(head[4 * (record.packets + record.frames) :], np.uint8)
    return Table(numbers[: record.packets], flags, numbers[record.packets :])


def record_size(file: Path, entry: Entry) -> int:
    """Bytes of the record of the video ``file``.

    Raises:
        DatasetError: it cannot be packed.
    """
    if as_file(file, entry):
        return file.stat().st_size
    packets, frames = len(entry.table.sizes), len(entry.table.packet)
    return 5 * packets + 4 * frames + int(entry.table.sizes.sum())


def record_of(file: Path, entry: Entry) -> bytes:
    """The record of the video ``file``.

    Raises:
        DamagedVideo: the file is not what was indexed.
    """
    if as_file(file, entry):
        return file.read_bytes()
    table = entry.table
    head = [np.ascontiguousarray(a, t).tobytes() for a, t in ((table.sizes, "<i4"), (table.packet, "<i4"))]
    return b"".join([*head, table.flags.tobytes(), *(packets_of(file, entry) if len(table.sizes) else ())])


def as_file(file: Path, entry: Entry) -> bool:
    """Whether a video goes into a pack as the file it is."""
    if entry.frames and not entry.stream.codec:
        raise DatasetError(f"{file} cannot be packed: its images are not all JPEG or all PNG")
    return entry.access == SEQUENTIAL and entry.frames > 0 and not file.is_dir()


def index_row(entry: Entry, place: Place, *, whole_file: bool) -> dict[str, Any]:
    """The row of a video in a pack's index."""
    stream = {name: getattr(entry.stream, name) for name in Stream.__dataclass_fields__}
    scalars = {name: getattr(entry, name) for name in ("content", "reason", "container", "frames", "duration")}
    access = SEQUENTIAL if whole_file else "packets"
    return {**asdict(place), **scalars, **stream, "access": access, "packets": len(entry.table.sizes)}
