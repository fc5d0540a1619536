"""Optical flow of a dataset's videos on disk, computed once per video content, method, bound and short side.

One file per video, ``<cache_dir>/flow-<method>-<bound>-<short side>-v<semantics>/<content hash>.flow`` (its format:
``flow_file.py``), and ``flow.json``, which says how they were made. A file is written beside its name and moved, so
that it is whole or not there: a computation that was broken off goes on with the videos that lack one.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retable.data import FLOW_SEMANTICS
from retable.data.cache import FrameSource, Progress, open_frames
from retable.data.config import Flow
from retable.data.errors import DataError, DiskFull
from retable.data.files import in_turn, put
from retable.data.flow import Codes, estimate, library, pinned, quantise, require, weights_hash
from retable.data.flow_file import BYTES_PER_CODE, QUALITY, Writer, open_flow_file
from retable.data.manifest import Manifest

_CHUNK = 128
"""Frames of a video in memory at a time."""
_LIMIT = 24 * 3600.0
"""Seconds after which a worker process that is still at one video is given up."""


@dataclass(frozen=True)
class FlowStore:
    """Stacks of flow fields, from files that every process opens for itself."""

    folder: Path
    files: Mapping[str, str]  # path of a video -> name of its file

    def read(self, path: str, fields: NDArray[np.int64]) -> Codes:
        """The fields ``(T, L)`` of the video ``path``: ``(T, H, W, 2 L)`` uint8, channels x1, y1, x2, y2, ...

        Raises:
            DataError: the file is gone or damaged; removing it makes the next run compute it again.
        """
        return open_flow_file(self.folder / self.files[path]).read(fields)


def open_flow(
    manifest: Manifest,
    paths: Sequence[str],
    frames: FrameSource,
    flow: Flow,
    short_side: int,
    cache_dir: Path,
    *,
    processes: int = 0,
    progress: Progress | None = None,
) -> FlowStore:
    """The flow of the videos ``paths`` (those that decode), computed where it is not there yet.

    Args:
        frames: their frames at ``short_side``, from :func:`retable.data.cache.open_frames`.
        processes: worker processes; 0 uses threads of this one, which wait for each other little.
        progress: told (videos done, videos in all) while flow is computed.

    Raises:
        FlowUnavailable: the method cannot be used here.
        DiskFull: no space left; what is finished stays, and nothing half-written does.
    """
    flow = pinned(flow)
    folder = cache_dir / folder_name(flow, short_side)
    files = {path: f"{key}.flow" for path, key in manifest.hashes(paths).items() if path in frames.counts}
    store = FlowStore(folder, files)
    if _missing(store):
        require(flow)
        folder.mkdir(parents=True, exist_ok=True)
        with in_turn(folder.with_name(f"{folder.name}.lock")):
            _sweep(folder)
            _describe(folder, flow, short_side)
            _compute(store, frames, flow, processes, progress, f"the optical flow of {manifest.name}")
    return store


def compute(
    manifest: Manifest,
    flow: Flow,
    short_side: int,
    cache_dir: Path,
    *,
    processes: int = 0,
    progress: Callable[[str], AbstractContextManager[Progress]],
) -> tuple[int, int]:
    """The flow of all splits of a dataset, for runs to find; returns how many videos there are, and their bytes.

    Args:
        progress: ``with progress(step) as told`` tells of one step.

    Raises:
        DatasetError, FlowUnavailable, DiskFull: as :func:`open_flow`.
    """
    require(flow)
    sizes: dict[str, int] = {}
    for split in manifest.layout.splits:
        paths = [item.path for item in manifest.items(split)]
        with progress(f"decoding {manifest.name}") as told:
            frames = open_frames(manifest, paths, short_side, cache_dir, progress=told)
        with progress(f"{flow.method} flow of {manifest.name}") as told:
            store = open_flow(manifest, paths, frames, flow, short_side, cache_dir, processes=processes, progress=told)
        sizes |= {name: (store.folder / name).stat().st_size for name in store.files.values()}
    return len(sizes), sum(sizes.values())


def folder_name(flow: Flow, short_side: int) -> str:
    """Where the flow of one :func:`~retable.data.flow.pinned` method and size is kept."""
    weights = f"-{weights_hash(flow.weights)[:8]}" if flow.weights else ""
    return f"flow-{flow.method}{weights}-{flow.bound:g}-{short_side}-v{FLOW_SEMANTICS}"


def _describe(folder: Path, flow: Flow, short_side: int) -> None:
    """Write down how the files are made, for people."""
    file = folder / "flow.json"
    if not file.is_file():
        told = {"schema": 1, **flow.model_dump(mode="json"), "short_side": short_side, "jpeg_quality": QUALITY}
        put(file, json.dumps(told | {"semantics": FLOW_SEMANTICS, "libraries": library(flow)}, indent=1).encode())


def _missing(store: FlowStore) -> dict[str, str]:
    """File -> a video that it is to be made from."""
    there = {entry.name for entry in os.scandir(store.folder)} if store.folder.is_dir() else set()
    return {name: path for path, name in store.files.items() if name not in there}


def _compute(
    store: FlowStore, frames: FrameSource, flow: Flow, processes: int, progress: Progress | None, what: str
) -> None:
    todo = _missing(store)
    total = len(set(store.files.values()))
    needed = _size(frames, list(todo.values()))
    if todo and shutil.disk_usage(store.folder).free < needed:
        raise DiskFull(store.folder, needed, what)
    work = functools.partial(_make, store, frames, flow)
    try:
        for done, (path, lost) in enumerate(_each(work, list(todo.values()), processes), total - len(todo) + 1):
            if lost is not None:
                raise DataError(f"{what}: {path}: {lost}")
            if progress is not None:
                progress(done, total)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(store.folder, needed, what) from error
        raise


def _each(work: Callable[[str], None], paths: Sequence[str], processes: int) -> Iterator[tuple[str, str | None]]:
    """Every video as it is done, and what became of a process that was lost over it.

    Threads suffice for most: OpenCV and PyAV let go of the interpreter lock while they work.
    """
    if processes:
        from retable.data.workers import each

        for path, lost in each(work, paths, processes=processes, limit=_LIMIT):
            yield path, None if lost is None else lost.reason
        return
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield from zip(paths, pool.map(work, paths), strict=True)


def _make(store: FlowStore, frames: FrameSource, flow: Flow, path: str) -> None:
    """Compute one video's flow and put its file in place."""
    target = store.folder / store.files[path]
    temporary = store.folder / f"{target.stem}.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}.tmp"
    n = frames.counts[path]
    try:
        with temporary.open("xb") as file:
            writer = Writer(file)
            for start in range(0, max(1, n - 1), _CHUNK):
                pictures = frames.read(path, range(start, min(start + _CHUNK + 1, n)))
                writer.write(quantise(estimate(pictures, flow), flow.bound))
            writer.close()
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _size(frames: FrameSource, paths: Sequence[str]) -> int:
    """Bytes that the flow of these videos takes, roughly, if all have the size of the first."""
    if not paths:
        return 0
    height, width = frames.read(paths[0], [0]).shape[1:3]
    fields = sum(frames.counts[path] - 1 for path in paths)
    return int(fields * height * width * 2 * BYTES_PER_CODE)


def _sweep(folder: Path) -> None:
    """Remove what a killed process of this host left behind."""
    for left in folder.glob(f"*.{socket.gethostname()}.*.tmp"):
        pid = left.name.split(".")[-3]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with contextlib.suppress(OSError):
                left.unlink()
