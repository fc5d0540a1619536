"""Frames by index from a dataset's own video files, without a demuxer: the index knows where each packet lies.

MP4, AVI, Matroska and WebM hold packets whole; from others, and from the few files of theirs that do not, frames are
decoded from the start.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import av

from retable.data.decode import Frames, read_frames
from retable.data.errors import DamagedVideo
from retable.data.examine import DIRECT, Entry, state_of
from retable.data.imagefolder import frame_files
from retable.data.index import Index
from retable.data.packets import read_packets

_SPARSE = 4
"""A run of packets that lies in this many times its own size is read packet by packet."""


@dataclass(frozen=True, eq=False)
class VideoFiles:
    """The videos of an index, read from their files in the folder ``root``."""

    root: Path
    index: Index

    @property
    def forks(self) -> bool:
        """Whether a process that is forked from this one can read it, too."""
        return True

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """Number of frames of every video; of a damaged one, those before the damage."""
        return self.index.column("frames")

    @cached_property
    def damaged(self) -> Mapping[str, str]:
        """Why a video does not decode to its end, of all for which that is so."""
        return self.index.damaged

    def covers(self, contents: Mapping[str, str]) -> bool:
        """Whether the index has all videos of ``contents`` (path -> SHA-256), and none was written since."""
        known, states = self.index.column("content"), self.index.column("state")
        return all(
            known.get(path) == content and states[path] == state_of(self.root / path)
            for path, content in contents.items()
        )

    def read(self, path: str, indices: Sequence[int], short_side: int) -> Frames:
        """The frames ``indices`` (any order, repeats allowed), resized: ``(len(indices), H, W, 3)``.

        Raises:
            DamagedVideo: the video has no such frame, has changed since it was indexed, or does not decode.
            KeyError: the index does not know the video.
        """
        return read_indexed(self.root / path, self.index[path], indices, short_side)


def read_indexed(file: Path, entry: Entry, indices: Sequence[int], short_side: int) -> Frames:
    """Frames of one video by its index entry; see :meth:`VideoFiles.read`."""
    beyond = [k for k in indices if not 0 <= k < entry.frames]
    if beyond:
        why = f" ({entry.reason})" if entry.reason else ""
        raise DamagedVideo(file, f"frame {beyond[0]} was wanted but {entry.frames} frames can be decoded{why}")
    try:
        if state_of(file) != entry.state:
            raise DamagedVideo(file, "it was written since it was indexed: run retable data index again")
        if entry.access != DIRECT:
            return read_frames(file, indices, short_side)
        descriptor = os.open(file, os.O_RDONLY)
    except OSError as error:
        raise DamagedVideo(file, str(error)) from error
    try:
        return read_packets(str(file), entry.stream, entry.table, _Fetch(descriptor, entry), indices, short_side)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class _Fetch:
    """Packets by position from an open file."""

    descriptor: int
    entry: Entry

    def __call__(self, first: int, stop: int) -> list[memoryview]:
        offsets = self.entry.offsets[first:stop].tolist()
        sizes = self.entry.table.sizes[first:stop].tolist()
        begin = min(offsets)
        length = max(offset + size for offset, size in zip(offsets, sizes, strict=True)) - begin
        if length > _SPARSE * sum(sizes):
            return [self._part(offset, size) for offset, size in zip(offsets, sizes, strict=True)]
        whole = self._part(begin, length)
        return [whole[o - begin : o - begin + size] for o, size in zip(offsets, sizes, strict=True)]

    def _part(self, offset: int, length: int) -> memoryview:
        found = os.pread(self.descriptor, length, offset)
        if len(found) != length:
            raise OSError(f"the file ends before byte {offset + length}")
        return memoryview(found)


def packets_of(file: Path, entry: Entry) -> list[memoryview]:
    """The contents of all packets in the entry's table; of a folder, its images.

    Raises:
        DamagedVideo: the file is not what was indexed.
    """
    try:
        if file.is_dir():
            return [memoryview(path.read_bytes()) for path in frame_files(file)[: entry.frames]]
        if entry.access == DIRECT:
            with file.open("rb") as opened:
                return _Fetch(opened.fileno(), entry)(0, len(entry.offsets))
        with av.open(str(file), metadata_errors="ignore") as container:
            demuxed = container.demux(container.streams.video[0])
            found = [memoryview(bytes(packet)) for packet in islice(demuxed, len(entry.table.sizes))]
    except (av.error.FFmpegError, OSError) as error:
        raise DamagedVideo(file, str(error)) from error
    if [len(packet) for packet in found] != entry.table.sizes.tolist():
        raise DamagedVideo(file, "its packets are not those that were indexed: run retable data index again")
    return found
