"""A proxy: frame k is frame k of the source, under another name and fingerprint, whole or not at all."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from retable.data import growing, layouts
from retable.data.cache import open_frames
from retable.data.clips import open_clips, pack_folder
from retable.data.errors import DamagedVideo, DatasetError, DiskFull
from retable.data.files import alone
from retable.data.index import Index
from retable.data.indexing import build_index
from retable.data.manifest import Manifest, fingerprint, open_dataset
from retable.data.pack import build_pack
from retable.data.packed import Pack, open_pack
from retable.data.proxy import build_proxy
from retable.data.tier import Tier, proxy_name, proxy_of, proxy_words

NAME = "ucf101-proxy32-gop12"
TIER = Tier(32, 12)
Numbers = Callable[[NDArray[np.uint8]], list[int]]


@pytest.fixture
def dataset(ucf_tree: Path) -> Manifest:
    return open_dataset("ucf101", ucf_tree)


@pytest.fixture
def index(dataset: Manifest) -> Index:
    return build_index(dataset, processes=0)


NUMBERS = [list(range(20 * k, 20 * k + 12)) for k in range(6)]
"""What the frames of the dataset's videos show."""


def numbers_of(proxy: Pack, read_numbers: Numbers) -> dict[str, list[int]]:
    return {path: read_numbers(proxy.read(path, range(n), 32)) for path, n in proxy.counts.items()}


def made(dataset: Manifest, index: Index | None, folder: Path, tier: Tier = TIER, **settings: Any) -> Pack:
    return build_proxy(dataset, index, folder, tier, processes=0, **settings)


@pytest.mark.parametrize("gop", [1, 12])
def test_frame_k_of_the_proxy_is_frame_k_of_the_source(
    gop: int, tmp_path: Path, write_video: Any, read_numbers: Numbers
) -> None:
    root = tmp_path / "folder-test"
    kinds = {
        "train/a/b.mp4": ("libx264", {"bf": "3"}, 60),
        "train/b/v.webm": ("libvpx-vp9", {"cpu-used": "8"}, 60),
        "test/a/v.avi": ("mpeg4", {"bf": "2"}, 60),
        "test/b/v.mpg": ("mpeg2video", {"bf": "2"}, 1),
    }
    for path, (codec, options, frames) in kinds.items():
        write_video(root / path, frames, codec, options)
    dataset = open_dataset("folder-test", root)
    proxy = made(dataset, build_index(dataset, processes=0), tmp_path / "p", Tier(32, gop))
    for path, (_, _, frames) in kinds.items():
        assert proxy.counts[path] == frames
        found = proxy.read(path, range(frames), 32)
        assert found.shape[1:] == (32, 42, 3)  # 43 wide in the source: H.264 wants even sizes
        assert read_numbers(found) == list(range(frames))
        if frames > 40:
            assert read_numbers(proxy.read(path, [41, 3, 12, 3], 24)) == [41, 3, 12, 3]


def test_a_proxy_is_a_dataset_of_its_own(dataset: Manifest, index: Index, tmp_path: Path) -> None:
    made(dataset, index, tmp_path / NAME)
    proxy = open_dataset(NAME, tmp_path / NAME)
    assert proxy.items(1) == dataset.items(1)
    assert fingerprint(proxy, 1) != fingerprint(dataset, 1)
    there = shutil.copytree(tmp_path / NAME, tmp_path / "elsewhere" / NAME)
    assert fingerprint(open_dataset(NAME, there), 1) == fingerprint(proxy, 1)
    clips = open_clips(there)
    paths = [item.path for item in proxy.items(1)]
    for limit in (0, 10**9):
        frames = open_frames(proxy, paths, 24, tmp_path / "cache", limit=limit)
        assert dict(frames.counts) == dict.fromkeys(paths, 12)
        assert np.array_equal(frames.read(paths[0], [5, 1]), clips.read(paths[0], [5, 1], 24))


def test_name_and_content_cannot_be_mixed_up(dataset: Manifest, index: Index, tmp_path: Path) -> None:
    made(dataset, index, tmp_path / "p")
    for other in ("ucf101", "ucf101-proxy32-gop1"):
        with pytest.raises(DatasetError, match=f"is a pack of {NAME}, not of {other}"):
            open_dataset(other, tmp_path / "p")
    with pytest.raises(DatasetError, match="is no proxy: make it with retable data proxy ucf101 --short-side 32"):
        open_dataset(NAME, dataset.root)
    with pytest.raises(DatasetError, match=r"there is no folder .*retable data proxy ucf101 --short-side 32 --gop 12"):
        open_dataset(NAME, tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="is a proxy: make another from the videos"):
        made(open_dataset(NAME, shutil.copytree(tmp_path / "p", tmp_path / NAME)), None, tmp_path / "q")
    shutil.move(tmp_path / "p", pack_folder(dataset))
    with pytest.raises(DatasetError, match=f"is a pack of {NAME}, not of ucf101"):
        open_clips(dataset)


def test_a_proxy_is_not_enlarged(dataset: Manifest, index: Index, tmp_path: Path) -> None:
    made(dataset, index, tmp_path / NAME)
    proxy = open_dataset(NAME, tmp_path / NAME)
    with pytest.raises(DatasetError, match=r"short side 32, but data.clip.resize is 40: .* --short-side 40 --gop 12"):
        open_frames(proxy, [item.path for item in proxy.items(1)], 40, tmp_path / "cache")


def test_small_videos_keep_their_size(dataset: Manifest, index: Index, tmp_path: Path) -> None:
    proxy = made(dataset, index, tmp_path / "p", Tier(128, 1))
    assert set(proxy.column("height").values()) == {48}


def test_a_proxy_can_be_made_from_a_pack(
    dataset: Manifest, index: Index, tmp_path: Path, read_numbers: Numbers
) -> None:
    build_pack(dataset, index, tmp_path / "ucf101-packed")
    shutil.rmtree(dataset.root)
    shutil.move(tmp_path / "ucf101-packed", dataset.root)
    found = made(open_dataset("ucf101", dataset.root), None, tmp_path / "q")
    assert numbers_of(found, read_numbers) == dict(zip(index, NUMBERS, strict=True))


def test_damaged_videos_keep_their_reason_and_their_good_frames(
    dataset: Manifest, tmp_path: Path, write_video: Any, read_numbers: Numbers
) -> None:
    cut, empty, *_ = (item.path for item in dataset.items(1))
    content = write_video(dataset.root / cut, 50).read_bytes()
    (dataset.root / cut).write_bytes(content[: (content.index(b"movi") + len(content)) // 2])
    (dataset.root / empty).write_bytes(b"")
    index = build_index(dataset, processes=0)
    proxy = made(dataset, index, tmp_path / "p")
    assert dict(proxy.damaged) == index.damaged
    assert proxy.counts[cut] == index[cut].frames > 5
    assert read_numbers(proxy.read(cut, range(5), 32)) == list(range(5))
    assert proxy.counts[empty] == 0


def test_a_full_disk_keeps_what_is_recorded_and_the_next_try_goes_on(
    dataset: Manifest, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_numbers: Numbers
) -> None:
    append, calls = growing.append, []

    def full(file: Any, record: bytes) -> None:
        calls.append(0)
        if len(calls) == 4:
            file.write(record[:10])
            raise OSError(errno.ENOSPC, "no room")
        append(file, record)

    monkeypatch.setattr(growing, "PART", 1)
    with monkeypatch.context() as patch:
        patch.setattr(growing, "append", full)
        with pytest.raises(DiskFull, match=f"no space left in {tmp_path}: the proxy of ucf101 needs about"):
            made(dataset, index, tmp_path / "p", shard_bytes=1)
    assert not (tmp_path / "p").exists()
    told: list[tuple[int, int]] = []
    proxy = made(dataset, index, tmp_path / "p", shard_bytes=1, progress=lambda *done: told.append(done))
    assert told == [(4, 6), (5, 6), (6, 6)]
    assert numbers_of(proxy, read_numbers) == dict(zip(index, NUMBERS, strict=True))
    assert not list(tmp_path.glob("p.partial*"))
    names = {file.name for file in (tmp_path / "p").iterdir()}
    assert names == {"pack.json", "index.parquet", "listing.json", *(f"videos-{k:05d}.bin" for k in range(6))}


@pytest.mark.parametrize("left", [7, None], ids=["cut off", "gone"])
def test_a_file_that_has_lost_what_is_recorded_of_it_is_not_gone_on_with(
    left: int | None, dataset: Manifest, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(done: int, of: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(growing, "PART", 1)
    with pytest.raises(KeyboardInterrupt):
        made(dataset, index, tmp_path / "p", shard_bytes=1, progress=broken_off)
    shard = tmp_path / "p.partial" / "videos-00001.bin"
    content = shard.read_bytes()
    shard.unlink()
    if left is not None:
        shard.write_bytes(content[:left])
    whole = f"{len(content):,}"
    with pytest.raises(DatasetError, match=rf"videos-00001.bin has {left or 0} of the {whole} bytes .*: remove"):
        made(dataset, index, tmp_path / "p", shard_bytes=1)


def test_a_disk_that_is_too_small_is_said_before_anything_is_encoded(
    dataset: Manifest, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=10))
    with pytest.raises(DiskFull, match="the proxy of ucf101"):
        made(dataset, index, tmp_path / "p")


def test_a_decoder_used_again_gives_the_frames_of_a_new_one_after_an_error_too(
    dataset: Manifest, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = made(dataset, index, tmp_path / "p", Tier(32, 1))
    wanted = [[11, 0, 5, 5], [3], [7, 8]]
    expected = {path: [read_new(proxy, path, some, monkeypatch) for some in wanted] for path in proxy.counts}
    broken = bytearray((tmp_path / "p" / "videos-00000.bin").read_bytes())
    for turn in range(3):
        for path, frames in expected.items():
            for some, found in zip(wanted, frames, strict=True):
                assert np.array_equal(proxy.read(path, some, 32), found)
        if turn == 0:
            broken[len(broken) // 2 :] = bytes(len(broken) - len(broken) // 2)
            shutil.copytree(tmp_path / "p", tmp_path / "broken")
            (tmp_path / "broken" / "videos-00000.bin").write_bytes(broken)
            with pytest.raises(DamagedVideo):
                open_pack(tmp_path / "broken").read(sorted(expected)[3], [11], 32)


def read_new(proxy: Pack, path: str, wanted: list[int], monkeypatch: pytest.MonkeyPatch) -> NDArray[np.uint8]:
    """The frames, read by a decoder that nobody used before."""
    with monkeypatch.context() as patch:
        patch.setattr("retable.data.decoders._idle", {})
        return proxy.read(path, wanted, 32)


def test_two_at_one_proxy_are_told_and_a_finished_one_is_left_alone(
    dataset: Manifest, index: Index, tmp_path: Path
) -> None:
    with alone(tmp_path / "p.partial", "retable data proxy"), pytest.raises(DatasetError, match="another retable data"):
        made(dataset, index, tmp_path / "p")
    made(dataset, index, tmp_path / "p")
    stamp = (tmp_path / "p" / "videos-00000.bin").stat().st_mtime_ns
    made(dataset, index, tmp_path / "p")
    assert (tmp_path / "p" / "videos-00000.bin").stat().st_mtime_ns == stamp
    with pytest.raises(DatasetError, match="holds something else"):
        made(dataset, index, tmp_path / "p", Tier(32, 1))


def test_a_proxy_that_lost_a_frame_is_refused(
    dataset: Manifest, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retable.data.proxy.islice", lambda frames, count: list(frames)[:-1])
    with pytest.raises(DamagedVideo, match="12 frames were indexed; of the proxy's can be read: 11 frames"):
        made(dataset, index, tmp_path / "p")


def test_the_name_says_what_it_is() -> None:
    assert proxy_name("kinetics400", Tier(128, 1)) == "kinetics400-proxy128-gop1"
    assert proxy_of(NAME) == ("ucf101", TIER)
    assert proxy_of("ucf101") is None
    assert proxy_words("ucf101") is None
    words = proxy_words("kinetics400-proxy128-gop1")
    assert words is not None
    assert "kinetics400 encoded again with loss" in words
    assert layouts.num_classes("motions-ucf101-proxy32-gop1") == layouts.num_classes("motions-ucf101")
    assert layouts.layout_of("something_v2-proxy128-gop1").name == "something_v2"


def test_processes_make_the_same_frames(dataset: Manifest, index: Index, tmp_path: Path, read_numbers: Numbers) -> None:
    found = build_proxy(dataset, index, tmp_path / "p", TIER, processes=1)
    assert numbers_of(found, read_numbers) == dict(zip(index, NUMBERS, strict=True))
    assert open_pack(tmp_path / "p").card["proxy"]["of"] == "ucf101"
