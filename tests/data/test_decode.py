"""Frame k is frame k, in every container; damage is an error, never a picture."""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retable.data.decode import count_frames, decode_all, read_frames, target_size
from retable.data.errors import DamagedVideo

B_FRAMES = {"bf": "3", "preset": "fast"}
KINDS: dict[str, dict[str, Any]] = {
    "avi-gop12": {"suffix": ".avi", "codec": "mpeg4", "gop": 12},
    "avi-b-frames": {"suffix": ".avi", "codec": "mpeg4", "gop": 12, "options": {"bf": "2"}},
    "avi-one-key": {"suffix": ".avi", "codec": "mpeg4", "gop": 250},
    "mp4-b-frames": {"suffix": ".mp4", "codec": "libx264", "gop": 12, "options": B_FRAMES},
    "webm": {
        "suffix": ".webm",
        "codec": "libvpx-vp9",
        "gop": 250,
        "options": {"cpu-used": "8"},
    },
    "ts": {"suffix": ".ts", "codec": "libx264", "gop": 12, "options": B_FRAMES},
}


@pytest.fixture(scope="module", params=KINDS)
def numbered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, write_video: Any) -> Path:
    kind = dict(KINDS[request.param])
    path: Path = write_video(tmp_path_factory.mktemp("video") / f"v{kind.pop('suffix')}", frames=50, **kind)
    return path


def test_every_frame_comes_out_in_order(numbered: Path, read_numbers: Callable[..., list[int]]) -> None:
    assert read_numbers(decode_all(numbered, 24)) == list(range(50))
    assert count_frames(numbered) == 50


def test_frames_are_found_by_number_in_any_order_and_repeated(
    numbered: Path, read_numbers: Callable[..., list[int]]
) -> None:
    wanted = [49, 0, 13, 13, 12, 37, 36, 48]
    frames = read_frames(numbered, wanted, 24)
    assert read_numbers(frames) == wanted
    assert np.array_equal(frames, decode_all(numbered, 24)[wanted])


def test_a_frame_beyond_the_end_is_an_error(numbered: Path) -> None:
    with pytest.raises(DamagedVideo, match="frame 50 was wanted"):
        read_frames(numbered, [3, 50], 24)


@pytest.mark.parametrize(
    ("source", "short_side", "expected"),
    [
        ((320, 240), 128, (171, 128)),
        ((340, 256), 128, (170, 128)),
        ((240, 320), 128, (128, 171)),
        ((96, 72), 36, (48, 36)),
    ],
)
def test_the_short_side_is_exact_and_the_aspect_kept(
    source: tuple[int, int], short_side: int, expected: tuple[int, int]
) -> None:
    assert target_size(*source, short_side) == expected


def test_frames_have_the_target_size_smaller_and_larger(tmp_path: Path, write_video: Any) -> None:
    path = write_video(tmp_path / "v.avi", frames=3)
    assert decode_all(path, 24).shape == (3, 24, 32, 3)
    assert decode_all(path, 96).shape == (3, 96, 128, 3)


def test_rotation_metadata_is_applied(tmp_path: Path, write_video: Any) -> None:
    path = write_video(tmp_path / "v.mp4", frames=2, codec="libx264", first=1)  # frame 1: the left column is white
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # ISO 14496-12: version 0 header, 40 bytes before the 3 x 3 matrix
    one, minus_one = (1 << 16).to_bytes(4), (-(1 << 16)).to_bytes(4, signed=True)
    zero = bytes(4)
    content[matrix : matrix + 24] = b"".join((zero, one, zero, minus_one, zero, zero))  # a quarter turn clockwise
    path.write_bytes(content)
    frame = decode_all(path, 48)[0]
    assert frame.shape == (64, 48, 3)
    assert frame[:6].mean() > 200 > 50 > frame[10:].mean()  # left has become top


def test_a_file_that_is_no_video_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "v.avi").write_bytes(b"no video at all" * 100)
    with pytest.raises(DamagedVideo, match=r"v\.avi"):
        decode_all(tmp_path / "v.avi", 24)


def test_an_empty_file_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "v.avi").touch()
    with pytest.raises(DamagedVideo):
        count_frames(tmp_path / "v.avi")


@pytest.mark.parametrize(("suffix", "codec"), [(".avi", "mpeg4"), (".mp4", "libx264")])
def test_flipped_bytes_never_pass_as_pictures(tmp_path: Path, write_video: Any, suffix: str, codec: str) -> None:
    path = write_video(tmp_path / f"v{suffix}", frames=50, codec=codec)
    content = bytearray(path.read_bytes())
    start = content.index(b"movi" if suffix == ".avi" else b"mdat") + 100
    draw = random.Random(0)
    for _ in range(60):
        content[draw.randrange(start, start + (len(content) - start) // 2)] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DamagedVideo):
        decode_all(path, 24)


def test_a_cut_off_video_is_damaged_but_its_first_frames_can_be_read(
    tmp_path: Path, write_video: Any, read_numbers: Callable[..., list[int]]
) -> None:
    path = write_video(tmp_path / "v.avi", frames=50)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"movi") + (len(content) - content.index(b"movi")) // 2])
    with pytest.raises(DamagedVideo):
        count_frames(path)
    assert read_numbers(read_frames(path, [0, 1, 5], 24)) == [0, 1, 5]


def test_damage_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(DamagedVideo("a.avi", "cut off")))
    assert (error.path, error.reason, str(error)) == ("a.avi", "cut off", "damaged video a.avi: cut off")


@pytest.mark.parametrize(
    ("name", "frames", "shape"),
    [
        ("ucf101_like.avi", 164, (128, 171)),
        ("kinetics_like.mp4", 300, (128, 170)),
        ("kinetics_demo.mp4", 280, (128, 170)),
    ],
)
def test_real_clips_decode_whole_and_by_index(name: str, frames: int, shape: tuple[int, int]) -> None:
    folder = os.environ.get("RETABLE_REAL_CLIPS")
    if not folder:
        pytest.skip("RETABLE_REAL_CLIPS is not set: no real clips to decode")
    every = decode_all(Path(folder) / name, 128)
    assert every.shape == (frames, *shape, 3)
    wanted = [0, 11, 12, 13, 100, frames - 1]
    assert np.array_equal(read_frames(Path(folder) / name, wanted, 128), every[wanted])
    motion = np.abs(every[1:].astype(np.int16) - every[:-1]).mean((1, 2, 3))
    assert 0 < np.median(motion) < 25  # neighbours look alike, cuts aside: no garbage in between
