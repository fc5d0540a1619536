"""What the packets of H.264 say of themselves (ITU-T H.264, 7.3.1 and 7.4.1)."""

from __future__ import annotations

import struct
from collections.abc import Iterator


def h264_flags(data: bytes | memoryview, length_size: int) -> tuple[bool, bool]:
    """Whether an H.264 packet holds an IDR picture, and whether no other picture refers to it (ITU-T H.264, 7.3.1).

    ``length_size``: bytes of the length before each unit; 0 for start codes (Annex B).
    """
    kinds = [(byte & 31, byte >> 5 & 3) for byte in _h264_headers(bytes(data), length_size)]
    slices = [(kind, reference) for kind, reference in kinds if 1 <= kind <= 5]
    return any(kind == 5 for kind, _ in slices), bool(slices) and all(ref == 0 for _, ref in slices)


def h264_length_size(extradata: bytes) -> int:
    """Bytes of unit lengths as the ``avcC`` box says; 0 where units have start codes."""
    return (extradata[4] & 3) + 1 if len(extradata) > 6 and extradata[0] == 1 else 0


def _h264_headers(data: bytes, length_size: int) -> Iterator[int]:
    """First byte of every unit."""
    place = 0
    if length_size == 0:
        while (place := data.find(b"\0\0\1", place)) >= 0 and place + 3 < len(data):
            yield data[place + 3]
            place += 3
        return
    while place + length_size < len(data):
        (size,) = struct.unpack(">I", data[place : place + length_size].rjust(4, b"\0"))
        yield data[place + length_size]
        place += length_size + size
