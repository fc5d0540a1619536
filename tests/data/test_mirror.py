"""A pack in a bucket, read through a node's mirror: the same ids and frames, verified, within the bound."""

from __future__ import annotations

import errno
import json
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retable.data.cache import open_frames
from retable.data.clips import open_clips
from retable.data.config import Augment, Clip, Data
from retable.data.decode import read_frames
from retable.data.errors import DamagedVideo, DatasetError
from retable.data.indexing import build_index
from retable.data.loader import open_run_data
from retable.data.manifest import Manifest, dataset_folder, fingerprint, open_dataset
from retable.data.mirror import Keeper, cache_folder, shards_of
from retable.data.pack import build_pack
from retable.data.packed import open_pack
from retable.data.remote import Remote


@pytest.fixture
def dataset(ucf_tree: Path) -> Manifest:
    return open_dataset("ucf101", ucf_tree)


@pytest.fixture(params=("memory", "s3"))
def packs(dataset: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A bucket with the dataset's pack, in files of one video each; the node's cache is empty."""
    monkeypatch.setenv("RETABLE_CACHE", str(tmp_path / "node"))
    place = f"memory://{tmp_path}" if request.param == "memory" else request.getfixturevalue("bucket")
    build_pack(dataset, build_index(dataset, processes=0), f"{place}/packs/ucf101", shard_bytes=1)
    return f"{place}/packs"


def there(packs: str) -> Manifest:
    return open_dataset("ucf101", dataset_folder("ucf101", packs))


def kept() -> list[str]:
    return sorted(file.name for file in cache_folder().glob("*/videos-*.bin"))


def test_ids_and_frames_are_those_of_the_videos(dataset: Manifest, packs: str, tmp_path: Path) -> None:
    found = there(packs)
    assert fingerprint(found, 1) == fingerprint(dataset, 1)
    assert kept() == []  # planning fetches no video
    paths = [item.path for item in dataset.items(1)]
    frames = open_frames(found, paths, 24, tmp_path / "frames", limit=0)
    for path in paths:
        assert np.array_equal(frames.read(path, [7, 0]), read_frames(dataset.root / path, [7, 0], 24))
    assert kept() == [f"videos-{k:05d}.bin" for k in range(6)]
    again = pickle.loads(pickle.dumps(open_clips(found)))
    assert np.array_equal(again.read(paths[0], [3], 24), read_frames(dataset.root / paths[0], [3], 24))


def test_what_is_kept_is_not_asked_for_again(packs: str, dataset: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    clips, path = open_clips(there(packs)), dataset.items(1)[0].path
    clips.read(path, [3], 24)

    def refuse(*args: Any, **settings: Any) -> None:
        raise AssertionError("asked the bucket")

    monkeypatch.setattr(Remote, "_at", refuse)
    assert clips.read(path, [4], 24).shape[0] == 1


def test_beyond_the_bound_frames_come_by_byte_range(
    packs: str, dataset: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [item.path for item in dataset.items(1)]
    size = Remote(f"{packs}/ucf101").size("videos-00000.bin")
    assert size is not None
    monkeypatch.setenv("RETABLE_PACK_CACHE_GB", str(2.5 * size / 1e9))
    clips = open_clips(there(packs))
    for path in paths:
        assert np.array_equal(clips.read(path, [7, 0], 24), read_frames(dataset.root / path, [7, 0], 24))
    assert len(kept()) == 2
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    assert np.array_equal(open_clips(there(packs)).read(paths[5], [1], 24), clips.read(paths[5], [1], 24))
    assert len(kept()) == 2
    monkeypatch.setenv("RETABLE_PACK_CACHE_GB", "much")
    with pytest.raises(DatasetError, match="RETABLE_PACK_CACHE_GB is 'much': set it to a number of GB"):
        open_clips(there(packs)).read(paths[5], [1], 24)


def test_another_pack_takes_the_place_of_what_is_not_read(
    packs: str, dataset: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [item.path for item in dataset.items(1)]
    files, others = Remote(f"{packs}/ucf101"), Remote(f"{packs.replace('/packs', '/others')}/ucf101")
    size = files.size("videos-00000.bin")
    assert size is not None
    monkeypatch.setenv("RETABLE_PACK_CACHE_GB", str(1.5 * size / 1e9))
    open_clips(there(packs)).read(paths[0], [1], 24)
    (before,) = cache_folder().glob("*/videos-*.bin")
    for name in files.names():
        others.put(name, files.whole(name))
    open_clips(there(packs.replace("/packs", "/others"))).read(paths[0], [1], 24)
    (after,) = cache_folder().glob("*/videos-*.bin")
    assert before.parent != after.parent


def test_a_file_that_is_not_what_was_packed_is_no_picture(packs: str, dataset: Manifest) -> None:
    files, name = Remote(f"{packs}/ucf101"), "videos-00000.bin"
    content = files.whole(name)
    files.put(name, content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DamagedVideo, match=r"videos-00000.bin is not what was packed .*: send it again"):
        open_clips(there(packs)).read(dataset.items(1)[0].path, [0], 24)
    assert not list(cache_folder().rglob("*.tmp"))


def test_a_pack_that_was_made_again_is_another_mirror(packs: str, dataset: Manifest, write_video: Any) -> None:
    before, path = there(packs), dataset.items(1)[0].path
    open_clips(before).read(path, [0], 24)
    write_video(dataset.root / path, 9)
    files = Remote(f"{packs}/ucf101")
    for name in files.names():
        files.remove(name)
    build_pack(dataset, build_index(dataset, processes=0), f"{packs}/ucf101", shard_bytes=1)
    after = there(packs)
    assert fingerprint(after, 1) == fingerprint(dataset, 1) != fingerprint(before, 1)
    assert open_clips(after).counts[path] == 9


def test_where_there_is_no_pack_there_is_no_dataset(packs: str) -> None:
    assert not dataset_folder("hmdb51", packs).exists()
    with pytest.raises(DatasetError, match="there is no folder"):
        open_dataset("hmdb51", dataset_folder("hmdb51", packs))
    shutil.rmtree(cache_folder(), ignore_errors=True)


def keeper(packs: str) -> Keeper:
    folder = there(packs).root
    return Keeper(folder, shards_of(open_pack(folder).card))


def test_files_that_others_are_fetching_count(packs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = keeper(packs), keeper(packs)
    size = Remote(f"{packs}/ucf101").size("videos-00000.bin")
    assert size is not None
    monkeypatch.setenv("RETABLE_PACK_CACHE_GB", str(1.5 * size / 1e9))
    fetch, found = Remote.fetch, list[bool]()

    def both(self: Remote, file: str, size: int, target: Path) -> None:
        found.append(second.has("videos-00001.bin"))
        fetch(self, file, size, target)

    monkeypatch.setattr(Remote, "fetch", both)
    assert first.has("videos-00000.bin")
    assert found == [False]


def test_a_file_that_makes_room_for_another_is_read_from_the_bucket(
    packs: str, dataset: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, path, has = open_clips(there(packs)), dataset.items(1)[0].path, Keeper.has

    def gone(self: Keeper, file: str) -> bool:
        found = has(self, file)
        (self.folder / file).unlink()
        return found

    monkeypatch.setattr(Keeper, "has", gone)
    assert np.array_equal(clips.read(path, [7, 0], 24), read_frames(dataset.root / path, [7, 0], 24))


def test_a_file_that_another_process_removes_meanwhile_is_no_fault(
    packs: str, dataset: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, paths = open_clips(there(packs)), [item.path for item in dataset.items(1)]
    clips.read(paths[0], [0], 24)
    (cache_folder() / "gone").mkdir()
    (cache_folder() / "gone" / "videos-00000.bin").symlink_to("nowhere")  # listed, and not there when it is looked at
    assert np.array_equal(clips.read(paths[1], [0], 24), read_frames(dataset.root / paths[1], [0], 24))


def test_a_disk_that_others_fill_is_no_damage(packs: str, dataset: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Remote, "fetch", full)
    path = dataset.items(1)[0].path
    assert open_clips(there(packs)).read(path, [7, 0], 24).shape[0] == 2
    assert not list(cache_folder().rglob("*.tmp"))


def test_a_proxy_made_again_is_another_mirror_though_it_is_of_the_same_videos(packs: str) -> None:
    before, files = there(packs), Remote(f"{packs}/ucf101")
    card = json.loads(files.whole("pack.json"))
    card["shards"][0]["sha256"] = "0" * 64  # encoded again, the same frames may take other bytes
    files.put("pack.json", json.dumps(card).encode())
    assert there(packs).root != before.root


def test_data_processes_read_from_a_bucket(dataset: Manifest, packs: str, tmp_path: Path) -> None:
    """They are not forked: what obstore waits for would stay behind."""
    data = Data(dataset="ucf101", clip=Clip(frames=2, size=16, resize=20))

    def batches(workers: int) -> list[bytes]:
        run = open_run_data(
            there(packs), data, augment=Augment(), cache_dir=tmp_path / "c", loader_workers=workers, cache_limit=0
        )
        return [batch.clips["rgb"].numpy().tobytes() for batch in run.train_batches(0, 2, seed=0)]

    expected = batches(0)
    shutil.rmtree(cache_folder())
    assert batches(1) == expected
