"""The flow of one video as a file of JPEG pairs: for every field one picture of x and one of y, grey, quality 95.

The pictures come first, x before y, field after field. Then their sizes (2 N int32), and N, H, W and a version (int32
each), little-endian. A file can so be written as flow is computed, and any field be read alone.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from retable.data.errors import DataError
from retable.data.flow import Codes

QUALITY = 95
BYTES_PER_CODE = 0.1
"""Rough size of what a byte of flow takes compressed; measured, 0.03 to 0.08 at 256 pixels, 0.13 to 0.28 at 36."""

_VERSION = 1
_FOOT = 16


class Writer:
    """Writes fields as they come. :meth:`close` completes the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sizes: list[int] = []
        self._shape: tuple[int, ...] = (0, 0)
        self._cv2: Any = importlib.import_module("cv2")

    def write(self, codes: Codes) -> None:
        """Append the fields ``(N, H, W, 2)``."""
        self._shape = codes.shape[1:3]
        for field in codes:
            for channel in (0, 1):
                picture = np.ascontiguousarray(field[..., channel])
                _, jpeg = self._cv2.imencode(".jpg", picture, [self._cv2.IMWRITE_JPEG_QUALITY, QUALITY])
                self._sizes.append(len(jpeg))
                self._file.write(jpeg.data)

    def close(self) -> None:
        """Write what a reader needs to find them."""
        self._file.write(np.array([*self._sizes, len(self._sizes) // 2, *self._shape, _VERSION], "<i4").tobytes())


@dataclass(frozen=True, eq=False)
class FlowFile:
    """Where the pictures of a file lie. ``starts``: (2 N + 1,) int64, place of each picture, and the end of all.

    It is opened for every reading: a training set has more files than a process may keep open.
    """

    path: Path
    shape: tuple[int, int]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of fields."""
        return len(self.starts) // 2

    def read(self, fields: NDArray[np.int64]) -> Codes:
        """The fields ``(T, L)``: ``(T, H, W, 2 L)`` uint8, channels x1, y1, x2, y2, ...

        Raises:
            DataError: a picture is damaged; says how to compute it again.
        """
        t, length = fields.shape
        out = np.empty((t, *self.shape, 2 * length), np.uint8)
        if len(self) == 0:
            out[:] = 128
            return out
        with _opened(self.path) as file:
            for number in np.unique(fields).tolist():
                there = fields == number
                for channel in (0, 1):
                    picture = self._picture(file, 2 * number + channel)
                    for row, place in np.argwhere(there).tolist():
                        out[row, :, :, 2 * place + channel] = picture
        return out

    def _picture(self, file: BinaryIO, number: int) -> NDArray[np.uint8]:
        cv2: Any = importlib.import_module("cv2")
        start, stop = self.starts[number : number + 2].tolist()
        jpeg = np.frombuffer(os.pread(file.fileno(), stop - start, start), np.uint8)
        try:
            picture = cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE)
        except cv2.error as error:
            raise _damaged(self.path, str(error)) from error
        if picture is None or picture.shape != self.shape:
            raise _damaged(self.path, f"field {number // 2} is no picture of {self.shape[1]}x{self.shape[0]}")
        found: NDArray[np.uint8] = picture
        return found


def open_flow_file(path: Path) -> FlowFile:
    """What a file holds.

    Raises:
        DataError: it is gone or damaged; says how to compute it again.
    """
    with _opened(path) as file:
        state = os.fstat(file.fileno())
        return _known(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _known(path: Path, size: int, _mtime: int) -> FlowFile:
    """The end of a file, which says where everything is; of a file that was made again, anew."""
    with _opened(path) as file:
        count, height, width, version = np.frombuffer(_tail(file, size, _FOOT).rjust(_FOOT), "<i4").tolist()
        pictures = size - _FOOT - 8 * count
        if version != _VERSION or count < 0 or pictures < 0:
            raise _damaged(path, "it is cut off, or something else")
        sizes = np.frombuffer(_tail(file, size, _FOOT + 8 * count)[: 8 * count], "<i4")
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    if starts[-1] != pictures or (sizes < 0).any():
        raise _damaged(path, "it is cut off, or something else")
    return FlowFile(path, (height, width), starts)


def _tail(file: BinaryIO, size: int, length: int) -> bytes:
    return os.pread(file.fileno(), length, max(0, size - length))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError as error:
        raise _damaged(path, str(error)) from error
    except OSError as error:
        raise DataError(f"flow file {path} cannot be read: {error}") from error
    with file:
        yield file


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"flow file {path}: {reason}; remove it, and the next run computes it again")
