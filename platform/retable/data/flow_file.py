"""The flow of one video as a file of JPEG pairs: for every field one picture of x and one of y, grey, quality 95.

The pictures come first, x before y, field after field. Then their sizes (2 N int32), and N, H, W and a version (int32
each), little-endian. A file can so be written as flow is computed, and any field be read alone.
"""

from __future__ import annotations

import functools
import importlib
import mmap
from dataclasses import dataclass
from itertools import accumulate
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
    """An open file. ``starts``: (2 N + 1,) place of each picture."""

    path: Path
    shape: tuple[int, int]
    starts: tuple[int, ...]
    content: mmap.mmap

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
        for number in np.unique(fields).tolist():
            there = fields == number
            for channel in (0, 1):
                picture = self._picture(2 * number + channel)
                for row, place in np.argwhere(there).tolist():
                    out[row, :, :, 2 * place + channel] = picture
        return out

    def _picture(self, number: int) -> NDArray[np.uint8]:
        cv2: Any = importlib.import_module("cv2")
        jpeg = np.frombuffer(self.content, np.uint8)[self.starts[number] : self.starts[number + 1]]
        try:
            picture = cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE)
        except cv2.error as error:
            raise _damaged(self.path, str(error)) from error
        if picture is None or picture.shape != self.shape:
            raise _damaged(self.path, f"field {number // 2} is no picture of {self.shape[1]}x{self.shape[0]}")
        found: NDArray[np.uint8] = picture
        return found


@functools.lru_cache(maxsize=1024)
def open_flow_file(path: Path) -> FlowFile:
    """Map a file into memory.

    Raises:
        DataError: it is gone or damaged; says how to compute it again.
    """
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    count, height, width, version = np.frombuffer(content[-_FOOT:].rjust(_FOOT), "<i4").tolist()
    sizes = len(content) - _FOOT - 8 * count
    if version != _VERSION or count < 0 or sizes < 0:
        raise _damaged(path, "it is cut off, or something else")
    starts = tuple(accumulate(np.frombuffer(content[sizes:-_FOOT], "<i4").tolist(), initial=0))
    if starts[-1] != sizes:
        raise _damaged(path, "it is cut off, or something else")
    return FlowFile(path, (height, width), starts, content)


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"flow file {path}: {reason}; remove it, and the next run computes it again")
