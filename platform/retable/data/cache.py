"""Decoded frames of a small dataset in one memory map, built once and shared by all runs and processes.

A cache is a folder ``<cache_dir>/frames-<key>-<short side>`` holding ``frames.u8`` (all frames of all videos, raw RGB)
and ``index.json``; the key is of the videos' content and of the pipeline's semantics. It is written beside its final
name and renamed, so that it exists whole or not at all.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol

import av
import numpy as np

from retable.data import PIPELINE_SEMANTICS
from retable.data.clips import Clips, current_clips
from retable.data.decode import Frames, count_frames, decode_all, read_frames, target_size
from retable.data.errors import DamagedVideo, DatasetError, DiskFull
from retable.data.files import in_turn, made
from retable.data.imagefolder import frame_files
from retable.data.manifest import Manifest, content_key
from retable.data.packed import open_pack
from retable.data.tier import proxy_of

DEFAULT_LIMIT = 8_000_000_000
"""Largest decoded size that is cached, bytes; larger datasets are read from their video files."""

Progress = Callable[[int, int], None]
"""Called with (videos done, videos in all)."""


class FrameSource(Protocol):
    """Random access to the decoded frames of a set of videos."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of frames of every video that decodes."""

    @property
    def damaged(self) -> Mapping[str, str]:
        """Why each of the other videos does not."""

    @property
    def forks(self) -> bool:
        """Whether a process that is forked from this one can read them, too."""

    def read(self, path: str, indices: Sequence[int]) -> Frames:
        """Frames of the video ``path`` (relative), ``(len(indices), H, W, 3)``."""


@dataclass(frozen=True)
class MappedFrames:
    """Frames from a memory map. Pickles as its folder: every process maps the file itself."""

    folder: Path
    entries: Mapping[str, tuple[int, int, int, int]]  # path -> offset (bytes), frames, height, width
    damaged: Mapping[str, str]

    @property
    def forks(self) -> bool:
        return True

    @cached_property
    def counts(self) -> Mapping[str, int]:
        return {path: entry[1] for path, entry in self.entries.items()}

    @cached_property
    def _bytes(self) -> Frames:
        size = (self.folder / "frames.u8").stat().st_size
        return np.asarray(np.memmap(self.folder / "frames.u8", np.uint8, "r")) if size else np.empty(0, np.uint8)

    def read(self, path: str, indices: Sequence[int]) -> Frames:
        offset, n, height, width = self.entries[path]
        video = self._bytes[offset : offset + n * height * width * 3].reshape(n, height, width, 3)
        return np.asarray(video[np.asarray(indices)])

    def __reduce__(self) -> tuple[Callable[[Path], MappedFrames], tuple[Path]]:
        return _load, (self.folder,)


@dataclass(frozen=True)
class VideoFrames:
    """Frames decoded from the video files at every read."""

    root: Path
    short_side: int
    counts: Mapping[str, int]
    damaged: Mapping[str, str]

    @property
    def forks(self) -> bool:
        return True

    def read(self, path: str, indices: Sequence[int]) -> Frames:
        return read_frames(self.root / path, indices, self.short_side)


@dataclass(frozen=True)
class ClipFrames:
    """Frames decoded at every read, from a pack or by an index: only what a frame needs is decoded."""

    clips: Clips
    short_side: int
    counts: Mapping[str, int]
    damaged: Mapping[str, str]

    @property
    def forks(self) -> bool:
        return self.clips.forks

    def read(self, path: str, indices: Sequence[int]) -> Frames:
        return self.clips.read(path, indices, self.short_side)


def open_frames(
    manifest: Manifest,
    paths: Sequence[str],
    short_side: int,
    cache_dir: Path,
    *,
    limit: int = DEFAULT_LIMIT,
    progress: Progress | None = None,
) -> FrameSource:
    """Frames of the videos ``paths``: from the cache, built if need be; when larger than ``limit``, from the dataset's
    pack, by its index, or, where it has neither, from the files.

    All give the same frames. Damaged videos are listed in ``damaged``, not raised.

    Raises:
        DatasetError: the dataset is a proxy of smaller frames.
        DiskFull: the cache does not fit on the disk.
    """
    _refuse_enlarging(manifest.name, short_side)
    key = f"v{PIPELINE_SEMANTICS}-{content_key(manifest, paths)}"
    folder = cache_dir / f"frames-{key}-{short_side}"
    if (folder / "index.json").is_file():
        return _load(folder)
    clips = current_clips(manifest, manifest.hashes(paths))
    needed = cache_size(manifest, paths, short_side)
    if needed > limit:
        if clips is not None:
            return _of_clips(clips, paths, short_side)
        return _count_all(manifest.root, paths, short_side, cache_dir / f"counts-{key}.json", progress)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with in_turn(folder.with_suffix(".lock")):
            if not (folder / "index.json").is_file():
                _build(_decoder(manifest, clips, short_side), paths, folder, progress)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                cache_dir, needed, f"the decoded frames of {manifest.name} at short side {short_side}"
            ) from error
        raise
    return _load(folder)


def _refuse_enlarging(name: str, short_side: int) -> None:
    proxy = proxy_of(name)
    if proxy is not None and proxy[1].short_side < short_side:
        source, tier = proxy
        raise DatasetError(
            f"dataset {name}: its frames have short side {tier.short_side}, but data.clip.resize is {short_side}:"
            f" make a larger one with retable data proxy {source} --short-side {short_side} --gop {tier.gop}"
        )


def cache_size(manifest: Manifest, paths: Sequence[str], short_side: int, *, probes: int = 24) -> int:
    """Bytes the decoded frames will take, estimated from the headers of up to ``probes`` evenly spaced videos."""
    chosen = [paths[i * len(paths) // probes] for i in range(probes)] if len(paths) > probes else list(paths)
    pack = open_pack(manifest.root) if manifest.contents is not None else None
    sizes = [
        _header_size(manifest.root / path, short_side) if pack is None else pack.decoded_size(path, short_side)
        for path in chosen
    ]
    known = [size for size in sizes if size]
    return round(sum(known) / len(known) * len(paths)) if known else 0


def _header_size(path: Path, short_side: int) -> int:
    """Decoded bytes of one video as its header promises; 0 when the header is unreadable."""
    if path.is_dir():
        return _folder_size(path, short_side)
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            stream = container.streams.video[0]
            seconds = container.duration / av.time_base if container.duration else 0.0
            frames = stream.frames or round(seconds * float(stream.average_rate or 25))
            width, height = target_size(stream.width, stream.height, short_side)
            return frames * width * height * 3
    except (av.error.FFmpegError, OSError, IndexError, ZeroDivisionError):
        return 0


def _folder_size(path: Path, short_side: int) -> int:
    try:
        frame = read_frames(path, [0], short_side)
        return len(frame_files(path)) * frame.nbytes
    except DamagedVideo:
        return 0


def _load(folder: Path) -> MappedFrames:
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    return MappedFrames(folder, {p: (e[0], e[1], e[2], e[3]) for p, e in index["videos"].items()}, index["damaged"])


def _of_clips(clips: Clips, paths: Sequence[str], short_side: int) -> ClipFrames:
    damaged = {path: clips.damaged[path] for path in paths if path in clips.damaged}
    return ClipFrames(clips, short_side, {p: clips.counts[p] for p in paths if p not in damaged}, damaged)


def _decoder(manifest: Manifest, clips: Clips | None, short_side: int) -> Callable[[str], Frames]:
    """All frames of a video, by path: from its file if there is one."""
    if manifest.contents is None:
        return lambda path: decode_all(manifest.root / path, short_side)
    assert clips is not None, "a dataset that is a pack is read from it"

    def from_pack(path: str) -> Frames:
        if path in clips.damaged:
            raise DamagedVideo(path, clips.damaged[path])
        return clips.read(path, range(clips.counts[path]), short_side)

    return from_pack


def _build(decode: Callable[[str], Frames], paths: Sequence[str], folder: Path, progress: Progress | None) -> None:
    videos: dict[str, tuple[int, int, int, int]] = {}
    damaged: dict[str, str] = {}
    with made(folder) as temporary:
        with (temporary / "frames.u8").open("wb") as file:
            for path, decoded in _decoded(decode, paths, progress):
                if isinstance(decoded, DamagedVideo):
                    damaged[path] = decoded.reason
                    continue
                n, height, width, _ = decoded.shape
                videos[path] = (file.tell(), n, height, width)
                _append(file, decoded)
            file.flush()
            os.fsync(file.fileno())
        (temporary / "index.json").write_text(json.dumps({"schema": 1, "videos": videos, "damaged": damaged}))


def _append(file: BinaryIO, frames: Frames) -> None:
    file.write(frames.data)


def _decoded(
    decode: Callable[[str], Frames], paths: Sequence[str], progress: Progress | None
) -> Iterator[tuple[str, Frames | DamagedVideo]]:
    """Every video decoded, in order. Threads suffice: PyAV lets go of the interpreter lock while it decodes."""

    def one(path: str) -> Frames | DamagedVideo:
        try:
            return decode(path)
        except DamagedVideo as error:
            return error

    workers = min(os.cpu_count() or 1, 16)
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(paths), 4 * workers):  # in slices, so that memory stays bounded
            part = paths[start : start + 4 * workers]
            for done, (path, frames) in enumerate(zip(part, pool.map(one, part), strict=True), start + 1):
                yield path, frames
                if progress is not None:
                    progress(done, len(paths))


def _count_all(
    root: Path, paths: Sequence[str], short_side: int, remembered: Path, progress: Progress | None
) -> VideoFrames:
    """Frame counts by full decode, remembered by content in ``remembered``."""
    if not remembered.is_file():
        counts: dict[str, int] = {}
        damaged: dict[str, str] = {}
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
            for done, (path, n) in enumerate(zip(paths, pool.map(lambda p: _count(root / p), paths), strict=True), 1):
                if isinstance(n, str):
                    damaged[path] = n
                else:
                    counts[path] = n
                if progress is not None:
                    progress(done, len(paths))
        remembered.parent.mkdir(parents=True, exist_ok=True)
        temporary = remembered.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps({"schema": 1, "counts": counts, "damaged": damaged}), encoding="utf-8")
        temporary.replace(remembered)
    known = json.loads(remembered.read_text(encoding="utf-8"))
    return VideoFrames(root, short_side, known["counts"], known["damaged"])


def _count(path: Path) -> int | str:
    try:
        return count_frames(path)
    except DamagedVideo as error:
        return error.reason
