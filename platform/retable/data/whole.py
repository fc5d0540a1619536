"""Does a video file end where its own boxes say? A demuxer that meets the end of a cut-off file between two packets
says nothing, and the video would just be shorter."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def is_cut_off(file: Path | str) -> bool:
    """Whether an MP4, AVI or Matroska file ends inside of what holds its frames; False for everything else."""
    path = Path(file)
    size = path.stat().st_size
    with path.open("rb") as opened:
        start = opened.read(12)
        if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return any(kind == b"mdat" and end > size for kind, end in _boxes(opened, size))
        if start[:4] == b"RIFF" and start[8:12] == b"AVI ":
            return any(kind == b"movi" and end > size for kind, end in _chunks(opened, size))
        if start[:4] == _EBML:
            return _segment_end(opened) > size
    return False


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """Kind and end of the boxes at the top of an MP4 file (ISO 14496-12, 4.2)."""
    place = 0
    while place + 8 <= size:
        file.seek(place)
        head = file.read(16)
        length = int.from_bytes(head[:4])
        if length == 1:
            length = int.from_bytes(head[8:16])
        if length < 8:  # 0: to the end of the file, wherever that is
            return
        place += length
        yield head[4:8], place


def _chunks(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """Kind and end of the chunks in all RIFF lists of an AVI file; of a list, its own kind."""
    place = 0
    while place + 12 <= size:
        file.seek(place)
        kind, length, inner = struct.unpack("<4sI4s", file.read(12))
        if kind == b"RIFF":
            place += 12
            continue
        place += 8 + length + length % 2
        yield (inner if kind == b"LIST" else kind), place - length % 2


def _segment_end(file: BinaryIO) -> int:
    """Where a Matroska file's segment ends; 0 if its size is not given (RFC 8794, 4 to 6)."""
    file.seek(4)
    header, given = _vint(file)
    file.seek(header if given else 0, 1)
    if file.read(4) != _SEGMENT:
        return 0
    length, given = _vint(file)
    return file.tell() + length if given else 0


def _vint(file: BinaryIO) -> tuple[int, bool]:
    """A number of variable length, and whether it is one: all bits set mean unknown."""
    first = file.read(1)[0]
    more = 8 - first.bit_length()
    bits = 7 * (more + 1)
    value = int.from_bytes(bytes([first]) + file.read(more)) & ((1 << bits) - 1)
    return value, value != (1 << bits) - 1
