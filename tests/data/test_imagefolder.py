"""A folder of numbered images is a video: frame k is its k-th image; damage is an error, never a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retable.data.cache import open_frames
from retable.data.decode import count_frames, decode_all, read_frames
from retable.data.errors import DamagedVideo
from retable.data.manifest import Manifest, content_hashes

Numbers = Callable[..., list[int]]


@pytest.mark.parametrize("suffix", ["jpg", "png", "JPEG"])
def test_every_image_comes_out_in_order_and_by_index(
    tmp_path: Path, write_images: Any, read_numbers: Numbers, suffix: str
) -> None:
    folder = write_images(tmp_path / "v", range(12), name="{:05d}." + suffix)
    assert count_frames(folder) == 12
    assert read_numbers(decode_all(folder, 24)) == list(range(12))
    wanted = [11, 0, 3, 3]
    assert np.array_equal(read_frames(folder, wanted, 24), decode_all(folder, 24)[wanted])


def test_order_is_by_number_not_by_name(tmp_path: Path, write_images: Any, read_numbers: Numbers) -> None:
    folder = write_images(tmp_path / "v", range(8, 13), name="2538-5_{}.jpg")
    assert read_numbers(decode_all(folder, 24)) == [8, 9, 10, 11, 12]


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path, write_images: Any) -> None:
    folder = write_images(tmp_path / "v", range(3))
    (folder / "Thumbs.db").write_bytes(b"x")
    (folder / "gt").mkdir()
    assert count_frames(folder) == 3


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_pixels_are_those_of_another_decoder(tmp_path: Path, write_images: Any, suffix: str) -> None:
    folder = write_images(tmp_path / "v", [0b10110101], name="{:05d}." + suffix)
    reference = np.asarray(Image.open(next(folder.iterdir())), np.int16)
    assert np.abs(decode_all(folder, 48)[0] - reference).mean() < 2  # JPEG decoders differ in chroma upsampling


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.6, 0.998])  # the last: without the end marker, which decoders forgive
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_cut_off_image_is_damage(tmp_path: Path, write_images: Any, suffix: str, keep: float) -> None:
    folder = write_images(tmp_path / "v", range(4), name="{:05d}." + suffix)
    victim = folder / f"00002.{suffix}"
    content = victim.read_bytes()
    victim.write_bytes(content[: min(int(len(content) * keep), len(content) - 2)])
    with pytest.raises(DamagedVideo, match="00002"):
        count_frames(folder)
    assert read_frames(folder, [0, 1, 3], 24).shape == (3, 24, 32, 3)


def test_an_image_that_lost_its_middle_is_damage(tmp_path: Path, write_images: Any) -> None:
    folder = write_images(tmp_path / "v", range(4))
    victim = folder / "00002.jpg"
    content = victim.read_bytes()
    start = content.rindex(b"\xff\xda") + 20  # the header of the scan stays, and the end marker
    victim.write_bytes(content[:start] + content[-2:])
    with pytest.raises(DamagedVideo, match="00002"):
        count_frames(folder)


def test_a_missing_image_is_damage_where_names_are_numbers(tmp_path: Path, write_images: Any) -> None:
    folder = write_images(tmp_path / "v", [1, 2, 4])
    with pytest.raises(DamagedVideo, match="image 3 is missing"):
        decode_all(folder, 24)


def test_a_number_used_twice_is_damage(tmp_path: Path, write_images: Any) -> None:
    folder = write_images(tmp_path / "v", range(3))
    write_images(folder, [1], name="{}.png")
    with pytest.raises(DamagedVideo, match="same number"):
        decode_all(folder, 24)


def test_images_of_different_sizes_are_damage(tmp_path: Path, write_images: Any) -> None:
    folder = write_images(tmp_path / "v", [1, 2])
    write_images(folder, [3], width=32)
    with pytest.raises(DamagedVideo, match="32x48, not 64x48"):
        decode_all(folder, 24)


@pytest.mark.parametrize("name", ["", "notes.txt"])
def test_a_folder_without_images_is_damaged(tmp_path: Path, name: str) -> None:
    if name:
        (tmp_path / name).touch()
    with pytest.raises(DamagedVideo, match="no image"):
        count_frames(tmp_path)


def test_a_frame_beyond_the_last_image_is_an_error(tmp_path: Path, write_images: Any) -> None:
    with pytest.raises(DamagedVideo, match="frame 5 was wanted"):
        read_frames(write_images(tmp_path / "v", range(5)), [5], 24)


def test_the_hash_sees_every_image_and_its_name(tmp_path: Path, write_images: Any) -> None:
    folder = write_images(tmp_path / "v", range(4))

    def value() -> str:
        return content_hashes(tmp_path, ["v"])["v"]

    first = value()
    assert value() == first
    (folder / "Thumbs.db").touch()
    assert value() == first
    (folder / "00003.jpg").rename(folder / "00004.jpg")
    renamed = value()
    write_images(folder, [200], name="00002.jpg")
    assert len({first, renamed, value()}) == 3


def test_a_large_set_of_folders_is_not_put_in_the_cache(folder_set: Manifest, tmp_path: Path) -> None:
    paths = [item.path for item in folder_set.items(1)]
    small = open_frames(folder_set, paths, 24, tmp_path / "a")
    large = open_frames(folder_set, paths, 24, tmp_path / "b", limit=1000)
    assert (type(small).__name__, type(large).__name__) == ("MappedFrames", "VideoFrames")
    assert small.counts == large.counts
    assert np.array_equal(small.read(paths[0], [5, 0]), large.read(paths[0], [5, 0]))
