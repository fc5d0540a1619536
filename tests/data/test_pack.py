"""A pack: the same frames and fingerprint anywhere, whole or not at all."""

from __future__ import annotations

import errno
import json
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from retable.data import cache, records
from retable.data.clips import open_clips, pack_folder
from retable.data.config import Clip, Data, Protocol
from retable.data.decode import decode_all, read_frames
from retable.data.errors import DamagedVideo, DatasetError, DiskFull
from retable.data.files import alone
from retable.data.index import Index, index_file
from retable.data.indexing import build_index
from retable.data.loader import Augment, open_run_data
from retable.data.manifest import Manifest, content_key, fingerprint, open_dataset
from retable.data.pack import build_pack
from retable.data.packed import Pack, open_pack
from retable.data.remote import Remote


@pytest.fixture
def dataset(ucf_tree: Path) -> Manifest:
    return open_dataset("ucf101", ucf_tree)


@pytest.fixture
def index(dataset: Manifest) -> Index:
    return build_index(dataset, processes=0)


def same_frames(found: Any, dataset: Manifest, paths: list[str]) -> bool:
    return all(
        np.array_equal(found.read(path, wanted, 24), read_frames(dataset.root / path, wanted, 24))
        for path in paths
        for wanted in ([11, 0, 5, 5], [3, 4, 5])
    )


def test_a_pack_gives_the_frames_of_the_files(dataset: Manifest, index: Index, tmp_path: Path) -> None:
    packed = build_pack(dataset, index, tmp_path / "p", shard_bytes=1000)
    assert packed.card["videos"] == 6
    assert len(packed.card["shards"]) > 1
    assert dict(packed.counts) == dict.fromkeys(index, 12)
    assert same_frames(packed, dataset, list(index))
    assert same_frames(pickle.loads(pickle.dumps(packed)), dataset, list(index))


def test_a_pack_is_a_dataset_on_another_machine(dataset: Manifest, index: Index, tmp_path: Path) -> None:
    marks = [fingerprint(dataset, split, holdout=0.4) for split in (1, 2, 701)]
    paths = [item.path for item in dataset.items(1)]
    expected = {path: decode_all(dataset.root / path, 24) for path in paths}
    key, size = content_key(dataset, paths), cache.cache_size(dataset, paths, 24)
    build_pack(dataset, index, tmp_path / "elsewhere" / "ucf101")
    shutil.rmtree(dataset.root)
    there = open_dataset("ucf101", tmp_path / "elsewhere" / "ucf101")
    assert [fingerprint(there, split, holdout=0.4) for split in (1, 2, 701)] == marks
    assert (content_key(there, paths), cache.cache_size(there, paths, 24)) == (key, size)
    assert there.items(1) == dataset.items(1)
    for limit in (0, cache.DEFAULT_LIMIT):
        frames = cache.open_frames(there, paths, 24, tmp_path / "cache", limit=limit)
        assert dict(frames.counts) == dict.fromkeys(paths, 12)
        assert all(np.array_equal(frames.read(path, [7, 2]), expected[path][[7, 2]]) for path in paths)


def test_a_pack_is_read_from_a_bucket_by_byte_range(
    dataset: Manifest, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_pack(dataset, index, tmp_path / "p")
    for file in (tmp_path / "p").iterdir():
        Remote("memory://bucket/p").put(file.name, file)
    clips = open_clips("memory://bucket/p")
    assert isinstance(clips, Pack)
    assert same_frames(clips, dataset, list(index))
    fetched: list[int] = []
    plain = clips._source.part

    def part(file: str, offset: int, length: int) -> memoryview:
        fetched.append(length)
        return plain(file, offset, length)

    monkeypatch.setattr(clips._source, "part", part)
    clips.read(next(iter(index)), [0], 24)
    assert len(fetched) == 1  # the packet table is remembered
    assert fetched[0] == index[next(iter(index))].table.sizes[0]


def test_the_loader_takes_the_pack_else_the_index_else_the_files(
    dataset: Manifest, index: Index, tmp_path: Path
) -> None:
    def source() -> Any:
        frames = cache.open_frames(dataset, list(index), 24, tmp_path / "c", limit=0)
        assert dict(frames.counts) == dict.fromkeys(index, 12)
        path = next(iter(index))
        assert np.array_equal(frames.read(path, [3, 0]), decode_all(dataset.root / path, 24)[[3, 0]])
        return getattr(frames, "clips", None)

    build_pack(dataset, index, pack_folder(dataset))
    assert isinstance(source(), Pack)
    shutil.rmtree(pack_folder(dataset))
    assert type(source()).__name__ == "VideoFiles"
    index_file(dataset).write_bytes(b"of another version")
    assert source() is None
    build_index(dataset, processes=0)
    file = dataset.root / next(iter(index))
    file.write_bytes(file.read_bytes() + b"\0")
    assert source() is None


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [(".mpg", "mpeg2video", {"bf": "2"}), (".mp4", "libx264", {"bf": "2"}), (".webm", "libvpx-vp9", {"cpu-used": "8"})],
)
def test_every_container_can_be_packed(
    tmp_path: Path, write_video: Any, suffix: str, codec: str, options: dict[str, str]
) -> None:
    root = tmp_path / "folder-test"
    files = [write_video(root / s / c / f"v{suffix}", 30, codec, options) for s in ("train", "test") for c in "ab"]
    dataset = open_dataset("folder-test", root)
    packed = build_pack(dataset, build_index(dataset, processes=0), tmp_path / "p")
    for file in files:
        path = file.relative_to(root).as_posix()
        assert np.array_equal(packed.read(path, [29, 3, 4], 24), decode_all(file, 24)[[29, 3, 4]])


def test_videos_that_need_decoding_from_the_start_are_packed_as_files(
    dataset: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("retable.data.examine._agrees", lambda *args: False)
        index = build_index(dataset, processes=0)
    assert set(index.column("access").values()) == {"sequential"}
    assert same_frames(build_pack(dataset, index, tmp_path / "p"), dataset, list(index))
    path, shard = list(index)[-1], tmp_path / "p" / "videos-00000.bin"
    content = shard.read_bytes()
    shard.write_bytes(content[:-100])
    with pytest.raises(DamagedVideo, match=f"damaged video {path}: .*the pack is incomplete"):
        open_pack(tmp_path / "p").read(path, [11], 24)
    shard.write_bytes(content[:-3000] + bytes(3000))
    with pytest.raises(DamagedVideo, match=f"damaged video {path}: "):
        open_pack(tmp_path / "p").read(path, [11], 24)


@pytest.mark.parametrize(("codec", "suffix"), [("mjpeg", ".jpg"), ("png", ".png")])
def test_folders_of_images_are_packed(tmp_path: Path, codec: str, suffix: str) -> None:
    root = tmp_path / "folder-images"
    draw = np.random.default_rng(0)
    for video in (root / s / c / "v1" for s in ("train", "test") for c in "ab"):
        video.mkdir(parents=True)
        for number in range(1, 6):
            image = av.VideoFrame.from_ndarray(draw.integers(0, 255, (33, 47, 3), np.uint8), format="rgb24")
            image.save(video / f"{number:05d}{suffix}")
    dataset = open_dataset("folder-images", root)
    index = build_index(dataset, processes=0)
    packed = build_pack(dataset, index, tmp_path / "p")
    for path in index:
        assert (index[path].stream.codec, index[path].stream.width, index[path].frames) == (codec, 47, 5)
        assert np.array_equal(packed.read(path, [4, 0, 2, 2], 24), read_frames(root / path, [4, 0, 2, 2], 24))
        with pytest.raises(DamagedVideo, match="frame 5 was wanted"):
            packed.read(path, [5], 24)


def test_damaged_videos_keep_their_reason_and_their_good_frames(
    dataset: Manifest, tmp_path: Path, write_video: Any
) -> None:
    cut, empty, *_ = (item.path for item in dataset.items(1))
    content = write_video(dataset.root / cut, 50).read_bytes()
    movie = content.index(b"movi")
    (dataset.root / cut).write_bytes(content[: (movie + len(content)) // 2])
    (dataset.root / empty).write_bytes(b"")
    index = build_index(dataset, processes=0)
    packed = build_pack(dataset, index, tmp_path / "p")
    assert dict(packed.damaged) == index.damaged
    assert list(packed.damaged) == [cut, empty]
    assert 5 < packed.counts[cut] < 50
    assert np.array_equal(packed.read(cut, [0, 5], 24), read_frames(dataset.root / cut, [0, 5], 24))
    for path in (cut, empty):
        with pytest.raises(DamagedVideo, match=r"was wanted but \d+ frames can be decoded \("):
            packed.read(path, [49], 24)


def test_a_finished_pack_is_left_alone_and_another_is_refused(
    dataset: Manifest, index: Index, tmp_path: Path, write_video: Any
) -> None:
    build_pack(dataset, index, tmp_path / "p")
    stamp = (tmp_path / "p" / "videos-00000.bin").stat().st_mtime_ns
    build_pack(dataset, index, tmp_path / "p")
    assert (tmp_path / "p" / "videos-00000.bin").stat().st_mtime_ns == stamp
    write_video(dataset.root / next(iter(index)), 9)
    with pytest.raises(DatasetError, match="written since: run retable data index ucf101"):
        build_pack(dataset, index, tmp_path / "q")
    with pytest.raises(DatasetError, match="holds something else"):
        build_pack(dataset, build_index(dataset, processes=0), tmp_path / "p")


def test_a_full_disk_leaves_whole_files_and_the_next_try_goes_on(
    dataset: Manifest, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []

    def full(file: Path, entry: Any) -> bytes:
        calls.append(file)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, "no room")
        return records.record_of(file, entry)

    with monkeypatch.context() as patch:
        patch.setattr("retable.data.pack.record_of", full)
        with pytest.raises(DiskFull, match=f"no space left in {tmp_path}: the pack of ucf101 needs about"):
            build_pack(dataset, index, tmp_path / "p", shard_bytes=1)
    left = sorted(path.name for path in (tmp_path / "p.partial").iterdir())
    assert left == ["plan.json", *(f"videos-{k:05d}.bin" for k in range(3))]
    assert not (tmp_path / "p").exists()
    calls.clear()
    monkeypatch.setattr("retable.data.pack.record_of", full)
    calls += [tmp_path] * 4
    assert same_frames(build_pack(dataset, index, tmp_path / "p", shard_bytes=1), dataset, list(index))
    assert len(calls) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p", "ucf101"]


def test_a_pack_is_written_to_a_bucket_and_taken_up_again_there(
    dataset: Manifest, index: Index, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, put, sent = f"{bucket}/packs/ucf101", Remote.put, list[str]()

    def broken(self: Remote, file: str, content: bytes | Path) -> None:
        if isinstance(content, Path):
            sent.append(file)
            if len(sent) == 3:
                raise OSError("the connection was reset")
        put(self, file, content)

    monkeypatch.setattr(Remote, "put", broken)
    with pytest.raises(DatasetError, match=r"cannot write the pack of ucf101 to s3://.*: the connection was reset"):
        build_pack(dataset, index, url, shard_bytes=1)
    with pytest.raises(DatasetError, match="there is no pack at"):
        open_pack(url)
    assert same_frames(build_pack(dataset, index, url, shard_bytes=1), dataset, list(index))
    assert sorted(sent) == sorted([*(f"videos-{k:05d}.bin" for k in range(6)), "videos-00002.bin"])
    assert build_pack(dataset, index, tmp_path / "p", shard_bytes=1).card == open_pack(url).card
    there = {name: Remote(url).whole(name) for name in Remote(url).names()}
    assert there == {file.name: file.read_bytes() for file in (tmp_path / "p").iterdir()}
    with pytest.raises(DatasetError, match="holds something else, or a pack of other videos"):
        build_pack(dataset, index, url)
    Remote(f"{bucket}/other").put("file", b"x")
    with pytest.raises(DatasetError, match="holds something else: remove it"):
        build_pack(dataset, index, f"{bucket}/other")


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(
    dataset: Manifest, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(DiskFull, match="free some, or choose another folder"):
        build_pack(dataset, index, tmp_path / "p")
    assert list((tmp_path / "p.partial").glob("videos*")) == []


def test_two_packers_of_one_pack_are_told(dataset: Manifest, index: Index, tmp_path: Path) -> None:
    with alone(tmp_path / "p.partial", "retable data pack"), pytest.raises(DatasetError, match="another retable data"):
        build_pack(dataset, index, tmp_path / "p")


def test_a_packer_that_another_overtook_is_told_and_spoils_nothing(
    dataset: Manifest, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(target: Any, key: str, place: Any) -> bool:
        monkeypatch.undo()
        build_pack(dataset, index, place)
        return False

    monkeypatch.setattr("retable.data.pack.is_finished", overtaken)
    with pytest.raises(DatasetError, match="another retable data pack has just made it; run the command again"):
        build_pack(dataset, index, tmp_path / "p")
    assert same_frames(build_pack(dataset, index, tmp_path / "p"), dataset, list(index))
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("p")) == ["p"]


def test_a_cut_off_pack_is_an_error_and_never_a_picture(dataset: Manifest, index: Index, tmp_path: Path) -> None:
    build_pack(dataset, index, tmp_path / "p")
    shard = tmp_path / "p" / "videos-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(DamagedVideo, match="the pack is incomplete"):
        open_pack(tmp_path / "p").read(list(index)[-1], [11], 24)


def test_what_is_no_pack_says_so(tmp_path: Path, dataset: Manifest, index: Index) -> None:
    for place in (tmp_path / "none", "memory://none"):
        with pytest.raises(DatasetError, match="there is no pack at"):
            open_pack(place)
    build_pack(dataset, index, tmp_path / "p")
    with pytest.raises(DatasetError, match="is a pack of ucf101, not of hmdb51"):
        open_dataset("hmdb51", tmp_path / "p")
    card = tmp_path / "p" / "pack.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "schema": 99}))
    with pytest.raises(DatasetError, match="another version"):
        open_pack(tmp_path / "p")


def test_batches_from_a_pack_are_those_from_the_files(tiny_motions: Manifest, tmp_path: Path) -> None:
    root = tmp_path / "motions-tiny"
    shutil.copytree(tiny_motions.root, root)
    dataset = open_dataset("motions-tiny", root)
    data = Data(dataset="motions-tiny", clip=Clip(frames=4, size=16, resize=20))

    def batches(manifest: Manifest, cache_dir: str, limit: int) -> list[bytes]:
        run = open_run_data(
            manifest, data, augment=Augment(contrast=0.2), cache_dir=tmp_path / cache_dir, cache_limit=limit
        )
        taken = [*run.train_batches(0, 8, seed=0), *run.eval_batches("test", Protocol(clips=2, crops="three"), 8)]
        return [batch.clips["rgb"].numpy().tobytes() for batch in taken]

    expected = batches(dataset, "a", cache.DEFAULT_LIMIT)
    build_pack(dataset, build_index(dataset, processes=0), tmp_path / "there" / "motions-tiny")
    packed = open_dataset("motions-tiny", tmp_path / "there" / "motions-tiny")
    assert batches(dataset, "b", 0) == expected  # by the index
    shutil.rmtree(root)
    assert batches(packed, "c", 0) == expected  # from the pack
    assert batches(packed, "d", cache.DEFAULT_LIMIT) == expected  # from a cache made of the pack
