"""Flow on disk: computed once, whole or not there, taken up again, and refused clearly where it cannot be."""

from __future__ import annotations

import errno
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retable.data import flow_store
from retable.data.cache import FrameSource, open_frames
from retable.data.config import Flow
from retable.data.errors import DataError, DiskFull
from retable.data.flow import estimate, quantise
from retable.data.flow_store import FlowStore, open_flow
from retable.data.indexing import build_index
from retable.data.manifest import Manifest, open_dataset
from retable.data.pack import build_pack

FLOW = Flow(method="dis", bound=4)
SIDE = 16


@pytest.fixture
def frames(tiny_motions: Manifest, tmp_path: Path) -> FrameSource:
    return open_frames(tiny_motions, paths(tiny_motions), SIDE, tmp_path)


def paths(manifest: Manifest) -> list[str]:
    return [item.path for item in manifest.items(1)][:6]


def opened(manifest: Manifest, frames: FrameSource, folder: Path, flow: Flow = FLOW, **settings: Any) -> FlowStore:
    return open_flow(manifest, paths(manifest), frames, flow, SIDE, folder, **settings)


def failing(after: int, error: Exception) -> Callable[..., Any]:
    """``estimate`` that fails after some videos."""
    calls = []

    def one(pictures: Any, flow: Flow) -> Any:
        calls.append(0)
        if len(calls) > after:
            raise error
        return estimate(pictures, flow)

    return one


def test_what_is_read_is_what_was_computed(tiny_motions: Manifest, frames: FrameSource, tmp_path: Path) -> None:
    store = opened(tiny_motions, frames, tmp_path)
    path = paths(tiny_motions)[2]
    n = frames.counts[path]
    codes = quantise(estimate(frames.read(path, range(n)), FLOW), 4)
    fields = np.array([[0, 1, 1], [n - 3, n - 2, n - 2]])
    assert json.loads((store.folder / "flow.json").read_text())["bound"] == 4
    stacks = store.read(path, fields)
    assert stacks.shape == (2, *codes.shape[1:3], 6)
    for t, row in enumerate(fields):
        for k, field in enumerate(row):
            difference = stacks[t, :, :, 2 * k : 2 * k + 2].astype(int) - codes[field]
            assert np.abs(difference).mean() < 0.5  # steps of 0.03 pixels


def test_long_videos_are_computed_in_parts(
    tiny_motions: Manifest, frames: FrameSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = opened(tiny_motions, frames, tmp_path / "a")
    monkeypatch.setattr(flow_store, "_CHUNK", 5)
    parts = opened(tiny_motions, frames, tmp_path / "b")
    for name in whole.files.values():
        assert (whole.folder / name).read_bytes() == (parts.folder / name).read_bytes()


def test_processes_compute_the_same(tiny_motions: Manifest, frames: FrameSource, tmp_path: Path) -> None:
    threads = opened(tiny_motions, frames, tmp_path / "a")
    told: list[tuple[int, int]] = []
    processes = opened(tiny_motions, frames, tmp_path / "b", processes=1, progress=lambda *done: told.append(done))
    for name in threads.files.values():
        assert (threads.folder / name).read_bytes() == (processes.folder / name).read_bytes()
    assert told == [(k, 6) for k in range(1, 7)]


def test_what_is_there_is_not_computed_again(
    tiny_motions: Manifest, frames: FrameSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tiny_motions, frames, tmp_path)
    monkeypatch.setattr(flow_store, "estimate", failing(0, AssertionError("computed again")))
    opened(tiny_motions, frames, tmp_path)
    with pytest.raises(AssertionError, match="computed again"):  # another bound is another flow
        opened(tiny_motions, frames, tmp_path, FLOW.model_copy(update={"bound": 8.0}))


def test_a_broken_off_computation_goes_on_with_what_is_missing(
    tiny_motions: Manifest, frames: FrameSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr(flow_store, "estimate", failing(4, RuntimeError("stop")))
    with pytest.raises(RuntimeError, match="stop"):
        opened(tiny_motions, frames, tmp_path)
    folder = next(path for path in tmp_path.glob("flow-*") if path.is_dir())
    assert len(list(folder.glob("*.flow"))) == 4
    left = folder / f"abc.{socket.gethostname()}.999999999.1.tmp"  # of a process that was killed
    left.write_bytes(b"half")
    monkeypatch.setattr(flow_store, "estimate", failing(2, AssertionError("more than was missing")))
    store = opened(tiny_motions, frames, tmp_path)
    assert {entry.name for entry in folder.iterdir()} == {"flow.json", *store.files.values()}


def test_a_full_disk_is_said_and_leaves_nothing_half_written(
    tiny_motions: Manifest, frames: FrameSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_store, "estimate", failing(1, OSError(errno.ENOSPC, "full")))
    with pytest.raises(DiskFull, match="the optical flow of motions-tiny"):
        opened(tiny_motions, frames, tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DiskFull):
        opened(tiny_motions, frames, tmp_path / "other")


def test_a_damaged_file_is_named(tiny_motions: Manifest, frames: FrameSource, tmp_path: Path) -> None:
    store = opened(tiny_motions, frames, tmp_path)
    path = paths(tiny_motions)[0]
    file = store.folder / store.files[path]
    whole = file.read_bytes()
    broken = {"empty": b"", "short": b"\x93NUMPY", "cut off": whole[:-100], "no picture": b"\0" * 99 + whole[99:]}
    for content in broken.values():
        file.write_bytes(content)
        with pytest.raises(DataError, match="remove it, and the next run computes it again"):
            store.read(path, np.zeros((1, 1), np.int64))


def test_flow_of_a_pack_is_that_of_its_videos(
    tiny_motions: Manifest, frames: FrameSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shutil.copytree(tiny_motions.root, tmp_path / "copy")
    files = open_dataset("motions-tiny", root)
    expected = opened(files, frames, tmp_path)
    build_pack(files, build_index(files, processes=0), tmp_path / "motions-tiny")
    monkeypatch.setattr(flow_store, "estimate", failing(0, AssertionError("computed again")))
    pack = open_dataset("motions-tiny", tmp_path / "motions-tiny")
    assert opened(pack, frames, tmp_path).files == expected.files


def test_a_video_of_one_frame_does_not_move(tmp_path: Path, write_images: Callable[..., Path]) -> None:
    for name in ("train/a/1", "train/b/1", "test/a/1", "test/b/1"):
        write_images(tmp_path / "folder-still" / name, [7])
    manifest = open_dataset("folder-still", tmp_path / "folder-still")
    names = [item.path for item in manifest.items(1)]
    source = open_frames(manifest, names, SIDE, tmp_path / "cache")
    store = open_flow(manifest, names, source, FLOW, SIDE, tmp_path / "cache")
    stack = store.read(names[0], np.full((3, 2), -1))
    assert stack.shape == (3, SIDE, 21, 4)
    assert (stack == 128).all()
