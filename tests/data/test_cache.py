"""The frame cache: same frames as the files, built once, whole or not at all."""

from __future__ import annotations

import errno
import os
import pickle
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retable.data import PIPELINE_SEMANTICS, cache
from retable.data.decode import decode_all
from retable.data.errors import DiskFull
from retable.data.manifest import Manifest, open_dataset


@pytest.fixture
def dataset(ucf_tree: Path) -> Manifest:
    return open_dataset("ucf101", ucf_tree)


def paths(manifest: Manifest, split: int = 1) -> list[str]:
    return [item.path for item in manifest.items(split)]


def test_cached_frames_and_frames_from_the_files_are_the_same(dataset: Manifest, tmp_path: Path) -> None:
    mapped = cache.open_frames(dataset, paths(dataset), 24, tmp_path / "c")
    direct = cache.open_frames(dataset, paths(dataset), 24, tmp_path / "c2", limit=0)
    assert isinstance(mapped, cache.MappedFrames)
    assert isinstance(direct, cache.VideoFrames)
    assert dict(mapped.counts) == dict(direct.counts) == dict.fromkeys(paths(dataset), 12)
    for path in paths(dataset):
        expected = decode_all(dataset.root / path, 24)[[3, 0, 11]]
        assert np.array_equal(mapped.read(path, [3, 0, 11]), expected)
        assert np.array_equal(direct.read(path, [3, 0, 11]), expected)


def test_all_splits_share_one_cache_and_nothing_is_decoded_twice(
    dataset: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.open_frames(dataset, paths(dataset, 1), 24, tmp_path)
    monkeypatch.setattr(cache, "decode_all", lambda *args: pytest.fail(f"decoded {args} again"))
    again = cache.open_frames(dataset, paths(dataset, 2), 24, tmp_path)
    assert set(again.counts) == set(paths(dataset, 2))


def test_another_size_or_other_content_gets_another_cache(dataset: Manifest, tmp_path: Path, write_video: Any) -> None:
    cache.open_frames(dataset, paths(dataset), 24, tmp_path)
    cache.open_frames(dataset, paths(dataset), 16, tmp_path)
    write_video(dataset.root / paths(dataset)[0], frames=9)
    changed = cache.open_frames(dataset, paths(dataset), 24, tmp_path)
    assert changed.counts[paths(dataset)[0]] == 9
    assert len(list(tmp_path.glob("frames-*/index.json"))) == 3


def test_two_builders_at_once_are_safe(dataset: Manifest, tmp_path: Path) -> None:
    def build(_: int) -> dict[str, int]:
        return dict(cache.open_frames(dataset, paths(dataset), 24, tmp_path).counts)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(build, range(4)))
    assert results == [results[0]] * 4
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []


def test_what_a_killed_builder_left_is_swept_away(dataset: Manifest, tmp_path: Path) -> None:
    cache.open_frames(dataset, paths(dataset), 24, tmp_path)
    (built,) = tmp_path.glob("frames-*-24")
    left = built.with_suffix(f".{socket.gethostname()}.{2**22 + 1}.tmp")  # above the largest process id
    built.rename(left)
    mine = built.with_suffix(f".{socket.gethostname()}.{os.getpid()}.tmp")  # of one that had this number before
    mine.mkdir()
    cache.open_frames(dataset, paths(dataset), 24, tmp_path)
    assert built.is_dir()
    assert not left.exists()
    assert not mine.exists()


@pytest.mark.parametrize("limit", [10**9, 0], ids=["frames", "counts"])
def test_what_another_pipeline_has_decoded_is_not_read(
    limit: int, dataset: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.open_frames(dataset, paths(dataset), 24, tmp_path, limit=limit)
    before = {path.name for path in tmp_path.iterdir()}
    monkeypatch.setattr(cache, "PIPELINE_SEMANTICS", PIPELINE_SEMANTICS + 1)
    cache.open_frames(dataset, paths(dataset), 24, tmp_path, limit=limit)
    assert {path.name for path in tmp_path.iterdir()} > before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_clear_message_and_leaves_nothing(
    dataset: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    calls = []

    def full(file: Any, frames: Any) -> None:
        calls.append(frames.nbytes)
        if len(calls) == 3:
            raise OSError(code, "no room")
        file.write(frames.data)

    monkeypatch.setattr(cache, "_append", full)
    with pytest.raises(DiskFull) as error:
        cache.open_frames(dataset, paths(dataset), 24, tmp_path)
    assert f"no space left in {tmp_path}" in str(error.value)
    assert f"{6 * 12 * 24 * 32 * 3:,} bytes" in str(error.value)
    assert list(tmp_path.glob("frames-*tmp")) == list(tmp_path.glob("frames-*-24")) == []


def test_other_errors_of_the_disk_are_not_called_a_full_disk(
    dataset: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(file: Any, frames: Any) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(cache, "_append", broken)
    with pytest.raises(OSError, match="input/output"):
        cache.open_frames(dataset, paths(dataset), 24, tmp_path)


@pytest.mark.parametrize("limit", [0, cache.DEFAULT_LIMIT])
def test_damaged_videos_are_listed_with_their_reason(dataset: Manifest, tmp_path: Path, limit: int) -> None:
    bad = paths(dataset)[2]
    (dataset.root / bad).write_bytes(b"nothing")
    frames = cache.open_frames(dataset, paths(dataset), 24, tmp_path, limit=limit)
    assert list(frames.damaged) == [bad]
    assert bad not in frames.counts
    assert len(frames.counts) == 5


def test_frame_counts_of_a_large_dataset_are_remembered(
    dataset: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cache.open_frames(dataset, paths(dataset), 24, tmp_path, limit=0)
    monkeypatch.setattr(cache, "count_frames", lambda path: pytest.fail(f"counted {path} again"))
    assert cache.open_frames(dataset, paths(dataset), 24, tmp_path, limit=0).counts == first.counts


def test_the_size_is_estimated_from_headers(dataset: Manifest) -> None:
    assert cache.cache_size(dataset, paths(dataset), 24) == 6 * 12 * 24 * 32 * 3
    assert cache.cache_size(dataset, paths(dataset), 24, probes=2) == 6 * 12 * 24 * 32 * 3


def test_progress_counts_up_to_all_videos(dataset: Manifest, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    cache.open_frames(dataset, paths(dataset), 24, tmp_path, progress=lambda *p: seen.append(p))
    assert seen == [(k, 6) for k in range(1, 7)]


def test_mapped_frames_travel_to_other_processes_without_their_pixels(dataset: Manifest, tmp_path: Path) -> None:
    frames = cache.open_frames(dataset, paths(dataset), 24, tmp_path)
    sent = pickle.dumps(frames)
    assert len(sent) < 1000
    path = paths(dataset)[0]
    assert np.array_equal(pickle.loads(sent).read(path, [5]), frames.read(path, [5]))
