"""A video's flow as JPEG pairs: what compression changes, and what it must not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retable.data.errors import DataError
from retable.data.flow import Codes, dequantise, quantise
from retable.data.flow_file import FlowFile, Writer, open_flow_file


def kept(codes: Codes, file: Path, parts: int = 1) -> FlowFile:
    with file.open("wb") as opened:
        writer = Writer(opened)
        for part in np.array_split(codes, parts):
            writer.write(part)
        writer.close()
    return open_flow_file(file)


def turning(height: int, width: int) -> Codes:
    """A turn about the middle by 0.03 rad, and a ball that moves its own way: (1, H, W, 2)."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    field = 0.03 * np.stack([height / 2 - y, x - width / 2], -1)
    field[np.hypot(y - height / 3, x - width / 3) < height / 6] = (2.5, -1.5)
    return quantise(field[None].astype(np.float32), 20.0)


def test_rest_stays_rest(tmp_path: Path) -> None:
    still = np.full((2, 37, 41, 2), 128, np.uint8)
    assert (kept(still, tmp_path / "f").read(np.array([[0, 1]])) == 128).all()


def test_compression_changes_displacements_by_less_than_their_steps(tmp_path: Path) -> None:
    codes = turning(128, 171)
    file = kept(codes, tmp_path / "f")
    back = file.read(np.array([[0]]))
    error = np.linalg.norm(dequantise(back, 20.0) - dequantise(codes, 20.0), axis=-1)
    assert error.mean() < 40 / 255 / 2
    assert (tmp_path / "f").stat().st_size < codes.nbytes / 5


def test_any_field_is_read_alone_and_parts_make_the_same_file(tmp_path: Path) -> None:
    codes = np.concatenate([np.full((1, 24, 32, 2), (10 * k, 255 - 10 * k), np.uint8) for k in range(7)])
    whole = kept(codes, tmp_path / "a")
    assert len(whole) == 7
    stacks = whole.read(np.array([[6, 0], [3, 3]]))
    assert stacks[:, 0, 0].tolist() == [[60, 195, 0, 255], [30, 225, 30, 225]]
    kept(codes, tmp_path / "b", parts=3)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_files_that_were_read_are_not_kept_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for k in range(20):
        kept(np.full((1, 8, 8, 2), 128, np.uint8), tmp_path / f"{k}").read(np.array([[0]]))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_file_that_was_made_again_is_read_anew(tmp_path: Path) -> None:
    kept(np.full((1, 24, 32, 2), 128, np.uint8), tmp_path / "f")
    (tmp_path / "f").unlink()
    again = kept(np.full((3, 24, 32, 2), 40, np.uint8), tmp_path / "f")
    assert len(again) == 3
    assert (again.read(np.array([[2]])) == 40).all()


def test_what_is_gone_says_how_to_get_it_again(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="remove it, and the next run computes it again"):
        open_flow_file(tmp_path / "none")
