"""A pack in a bucket, read through a node's mirror: the same ids and frames, verified, within the bound."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import numpy as np
import pytest

from retable.data.cache import open_frames
from retable.data.clips import open_clips
from retable.data.decode import read_frames
from retable.data.errors import DamagedVideo, DatasetError
from retable.data.indexing import build_index
from retable.data.manifest import Manifest, dataset_folder, fingerprint, open_dataset
from retable.data.mirror import cache_folder
from retable.data.pack import build_pack


@pytest.fixture
def dataset(ucf_tree: Path) -> Manifest:
    return open_dataset("ucf101", ucf_tree)


@pytest.fixture
def bucket(dataset: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket with the dataset's pack, in files of one video each; the node's cache is empty."""
    monkeypatch.setenv("RETABLE_CACHE", str(tmp_path / "node"))
    url = f"memory://{tmp_path.name}/packs"
    build_pack(dataset, build_index(dataset, processes=0), f"{url}/ucf101", shard_bytes=1)
    return url


def there(bucket: str) -> Manifest:
    return open_dataset("ucf101", dataset_folder("ucf101", bucket))


def kept() -> list[str]:
    return sorted(file.name for file in cache_folder().glob("*/videos-*.bin"))


def test_ids_and_frames_are_those_of_the_videos(dataset: Manifest, bucket: str, tmp_path: Path) -> None:
    found = there(bucket)
    assert fingerprint(found, 1) == fingerprint(dataset, 1)
    assert kept() == []  # planning fetches no video
    paths = [item.path for item in dataset.items(1)]
    frames = open_frames(found, paths, 24, tmp_path / "frames", limit=0)
    for path in paths:
        assert np.array_equal(frames.read(path, [7, 0]), read_frames(dataset.root / path, [7, 0], 24))
    assert kept() == [f"videos-{k:05d}.bin" for k in range(6)]
    again = pickle.loads(pickle.dumps(open_clips(found)))
    assert np.array_equal(again.read(paths[0], [3], 24), read_frames(dataset.root / paths[0], [3], 24))


def test_what_is_kept_is_not_asked_for_again(bucket: str, dataset: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    clips, path = open_clips(there(bucket)), dataset.items(1)[0].path
    clips.read(path, [3], 24)

    def refuse(*args: Any, **settings: Any) -> None:
        raise AssertionError("asked the bucket")

    for name in ("cat_file", "get_file"):
        monkeypatch.setattr(type(fsspec.filesystem("memory")), name, refuse)
    assert clips.read(path, [4], 24).shape[0] == 1


def test_beyond_the_bound_frames_come_by_byte_range(
    bucket: str, dataset: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [item.path for item in dataset.items(1)]
    size = fsspec.filesystem("memory").size(f"{bucket.removeprefix('memory:/')}/ucf101/videos-00000.bin")
    monkeypatch.setenv("RETABLE_PACK_CACHE_GB", str(2.5 * size / 1e9))
    clips = open_clips(there(bucket))
    for path in paths:
        assert np.array_equal(clips.read(path, [7, 0], 24), read_frames(dataset.root / path, [7, 0], 24))
    assert len(kept()) == 2
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    assert np.array_equal(open_clips(there(bucket)).read(paths[5], [1], 24), clips.read(paths[5], [1], 24))
    assert len(kept()) == 2
    monkeypatch.setenv("RETABLE_PACK_CACHE_GB", "much")
    with pytest.raises(DatasetError, match="RETABLE_PACK_CACHE_GB is 'much': set it to a number of GB"):
        open_clips(there(bucket)).read(paths[5], [1], 24)


def test_another_pack_takes_the_place_of_what_is_not_read(
    bucket: str, dataset: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [item.path for item in dataset.items(1)]
    files, root = fsspec.filesystem("memory"), bucket.removeprefix("memory:/")
    size = files.size(f"{root}/ucf101/videos-00000.bin")
    monkeypatch.setenv("RETABLE_PACK_CACHE_GB", str(1.5 * size / 1e9))
    open_clips(there(bucket)).read(paths[0], [1], 24)
    (before,) = cache_folder().glob("*/videos-*.bin")
    for name in files.find(f"{root}/ucf101"):
        files.cp_file(name, name.replace("/packs/", "/others/"))
    open_clips(there(bucket.replace("/packs", "/others"))).read(paths[0], [1], 24)
    (after,) = cache_folder().glob("*/videos-*.bin")
    assert before.parent != after.parent


def test_a_file_that_is_not_what_was_packed_is_no_picture(bucket: str, dataset: Manifest) -> None:
    files, name = fsspec.filesystem("memory"), f"{bucket.removeprefix('memory:/')}/ucf101/videos-00000.bin"
    content = files.cat_file(name)
    files.pipe_file(name, content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DamagedVideo, match=r"videos-00000.bin is not what was packed .*: send it again"):
        open_clips(there(bucket)).read(dataset.items(1)[0].path, [0], 24)
    assert not list(cache_folder().rglob("*.tmp"))


def test_a_pack_that_was_made_again_is_another_mirror(bucket: str, dataset: Manifest, write_video: Any) -> None:
    before, path = there(bucket), dataset.items(1)[0].path
    open_clips(before).read(path, [0], 24)
    write_video(dataset.root / path, 9)
    fsspec.filesystem("memory").rm(f"{bucket.removeprefix('memory:/')}/ucf101", recursive=True)
    build_pack(dataset, build_index(dataset, processes=0), f"{bucket}/ucf101", shard_bytes=1)
    after = there(bucket)
    assert fingerprint(after, 1) == fingerprint(dataset, 1) != fingerprint(before, 1)
    assert open_clips(after).counts[path] == 9


def test_where_there_is_no_pack_there_is_no_dataset(bucket: str) -> None:
    assert not dataset_folder("hmdb51", bucket).exists()
    with pytest.raises(DatasetError, match="there is no folder"):
        open_dataset("hmdb51", dataset_folder("hmdb51", bucket))
    shutil.rmtree(cache_folder(), ignore_errors=True)
