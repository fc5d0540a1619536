"""Reading a pack: a dataset's video packets in a few large files, on a disk or in a bucket.

A pack is a folder::

    pack.json        what it is: dataset, number of videos and bytes, the files and their SHA-256
    listing.json     classes and videos of every split, so that no video file is needed for them
    index.parquet    one row a video: what the index says, and where its record lies
    videos-00000.bin, ...

A record is the video's packet sizes (P x int32), the packets of its frames (F x int32), the packets' flags (P x uint8)
and then the packets themselves, all little-endian, in decoding order. An image of a folder is a packet, too. A video
whose packets do not tell its frames apart (access ``sequential``) is there as the file it was.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from retable.data.decode import Frames, read_frames, target_size
from retable.data.decoders import Stream
from retable.data.errors import DamagedVideo, DatasetError
from retable.data.examine import SEQUENTIAL
from retable.data.index import read_parquet
from retable.data.mirror import MIRROR, Keeper, Shard, shards_of
from retable.data.packets import Table, read_packets
from retable.data.packlist import CARD, INDEX
from retable.data.records import Record, table_from
from retable.data.remote import Remote

SCHEMA = 2
_TABLES = 256
"""Packet tables that a reader of a URL remembers, to save a request each."""


class Bytes(Protocol):
    """Random access to the files of a pack."""

    def part(self, file: str, offset: int, length: int) -> memoryview:
        """``length`` bytes of ``file`` from ``offset``; OSError if they are not there."""

    def whole(self, file: str) -> bytes:
        """A small file; FileNotFoundError if it is not there."""

    @property
    def forks(self) -> bool:
        """Whether a process that is forked from this one can read it, too."""


class LocalBytes:
    """Files of a folder, mapped into memory: the page cache is shared by all processes."""

    forks = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._maps: dict[str, memoryview] = {}

    def part(self, file: str, offset: int, length: int) -> memoryview:
        if file not in self._maps:
            with (self._folder / file).open("rb") as opened:
                self._maps[file] = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
        found = self._maps[file][offset : offset + length]
        if len(found) != length:
            raise OSError(f"{self._folder / file} ends before byte {offset + length}: the pack is incomplete")
        return found

    def whole(self, file: str) -> bytes:
        return (self._folder / file).read_bytes()


class MirroredBytes:
    """Files of a pack in a bucket, from this node's mirror where they are in it."""

    def __init__(self, folder: Path, shards: Mapping[str, Shard]) -> None:
        self._keeper = Keeper(folder, shards)
        self._here, self._there = LocalBytes(folder), self._keeper.bucket
        self.forks = self._there.forks

    def part(self, file: str, offset: int, length: int) -> memoryview:
        if self._keeper.has(file):
            with contextlib.suppress(FileNotFoundError):  # it has just made room for a file of another pack
                return self._here.part(file, offset, length)
        return self._there.part(file, offset, length)

    def whole(self, file: str) -> bytes:
        return self._here.whole(file)


class Pack:
    """An open pack. Pickles as its place. Made by :func:`open_pack`."""

    def __init__(self, place: str, source: Bytes, card: dict[str, Any], rows: pa.Table) -> None:
        self.place, self._source, self.card, self._table = place, source, card, rows
        self._files: list[str] = [shard["file"] for shard in card["shards"]]
        self._heads: OrderedDict[str, Table] = OrderedDict()

    def __reduce__(self) -> tuple[Callable[[str], Pack], tuple[str]]:
        return open_pack, (self.place,)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {path: row for row, path in enumerate(self._table.column("path").to_pylist())}

    def column(self, name: str) -> dict[str, Any]:
        """One column of the pack's index, by path."""
        return dict(zip(self._rows, self._table.column(name).to_pylist(), strict=True))

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """Number of frames of every video; of a damaged one, those before the damage."""
        return self.column("frames")

    @cached_property
    def damaged(self) -> Mapping[str, str]:
        """Why a video does not decode to its end, of all for which that is so."""
        return {path: reason for path, reason in self.column("reason").items() if reason}

    @cached_property
    def contents(self) -> Mapping[str, str]:
        """SHA-256 of the video files that the packets come from."""
        return self.column("content")

    @property
    def forks(self) -> bool:
        """Whether a process that is forked from this one can read it, too."""
        return self._source.forks

    def decoded_size(self, path: str, short_side: int) -> int:
        """Bytes of all frames of a video at ``short_side``."""
        row = self._row(path)
        if not row["frames"]:
            return 0
        width, height = target_size(row["width"], row["height"], short_side)
        return int(row["frames"]) * width * height * 3

    def read(self, path: str, indices: Sequence[int], short_side: int) -> Frames:
        """The frames ``indices`` (any order, repeats allowed), resized: ``(len(indices), H, W, 3)``.

        Raises:
            DamagedVideo: the video has no such frame, or does not decode.
            KeyError: the pack does not hold the video.
        """
        row = self._row(path)
        record = Record(row["shard"], row["offset"], row["packets"], row["frames"])
        beyond = [k for k in indices if not 0 <= k < record.frames]
        if beyond:
            why = f" ({row['reason']})" if row["reason"] else ""
            raise DamagedVideo(path, f"frame {beyond[0]} was wanted but {record.frames} frames can be decoded{why}")
        stream = Stream(**{name: row[name] for name in Stream.__dataclass_fields__})
        try:
            if row["access"] == SEQUENTIAL:
                return self._from_file(path, row, indices, short_side)
            table = self._head(path, record)
            base = record.offset + record.head
            return read_packets(path, stream, table, self._fetch(record.shard, base, table), indices, short_side)
        except OSError as error:
            raise DamagedVideo(path, str(error)) from error

    def _from_file(self, path: str, row: dict[str, Any], indices: Sequence[int], short_side: int) -> Frames:
        with tempfile.NamedTemporaryFile(suffix=Path(path).suffix) as file:
            file.write(self._source.part(self._files[row["shard"]], row["offset"], row["bytes"]))
            file.flush()
            try:
                return read_frames(file.name, indices, short_side)
            except DamagedVideo as error:
                raise DamagedVideo(path, error.reason) from error

    def _row(self, path: str) -> dict[str, Any]:
        number = self._rows[path]
        return {name: column[number].as_py() for name, column in self._columns.items()}

    @cached_property
    def _columns(self) -> dict[str, pa.Array]:
        """Each column in one piece: looking a row up must not cost as much as decoding a small frame."""
        (batch,) = self._table.combine_chunks().to_batches() or [None]
        return {} if batch is None else dict(zip(batch.schema.names, batch.columns, strict=True))

    def _head(self, path: str, record: Record) -> Table:
        if path in self._heads:
            self._heads.move_to_end(path)
            return self._heads[path]
        table = table_from(self._source.part(self._files[record.shard], record.offset, record.head), record)
        self._heads[path] = table
        if len(self._heads) > _TABLES:
            self._heads.popitem(last=False)
        return table

    def _fetch(self, shard: int, base: int, table: Table) -> Callable[[int, int], list[memoryview]]:
        def fetch(first: int, stop: int) -> list[memoryview]:
            places = (table.starts[first : stop + 1] - table.starts[first]).tolist()
            run = self._source.part(self._files[shard], base + int(table.starts[first]), places[-1])
            return [run[a:b] for a, b in pairwise(places)]

        return fetch


def open_pack(place: Path | str) -> Pack:
    """The pack in the folder or below the bucket's URL ``place``.

    Raises:
        DatasetError: there is no pack, or one of another version.
    """
    text = str(place)
    source: Bytes = Remote(text) if "://" in text else LocalBytes(Path(place))
    try:
        card = json.loads(source.whole(CARD))
        rows = read_parquet(source.whole(INDEX))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DatasetError(f"there is no pack at {text} ({error}): make it with retable data pack") from error
    if card.get("schema") != SCHEMA:
        raise DatasetError(f"the pack at {text} is of another version: make it again with retable data pack")
    if "://" not in text and (Path(place) / MIRROR).is_file():
        source = MirroredBytes(Path(place), shards_of(card))
    return Pack(text, source, card, rows)
