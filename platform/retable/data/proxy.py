"""Making a proxy: a dataset's videos as small H.264, a pack of its own with another name and fingerprint.

Frame k of the proxy is frame k of the source. Videos are encoded in processes and written by this one, file after file;
what is written is recorded every few videos, and a broken-off proxy is taken up again there.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from retable.data.clips import Clips, open_clips
from retable.data.decode import stream_frames
from retable.data.errors import DamagedVideo, DatasetError, DiskFull
from retable.data.examine import Entry, examine, lost
from retable.data.files import put
from retable.data.growing import Growing, forget
from retable.data.index import Index
from retable.data.indexing import LIMIT, Progress
from retable.data.manifest import Manifest
from retable.data.pack import SHARD_BYTES, indexed_videos
from retable.data.packed import Pack, open_pack
from retable.data.packtarget import PLAN, FolderTarget, errors_of
from retable.data.records import record_of
from retable.data.tier import Tier, proxy_name, proxy_of
from retable.data.unfinished import finish, is_finished
from retable.data.workers import Lost, each

ENCODER = {
    "preset": "medium", "crf": "18", "tune": "fastdecode", "sc_threshold": "0", "partitions": "i8x8,p8x8,b8x8",
}  # fmt: skip
"""libx264, without arithmetic coding and deblocking: larger files, and a third less time to decode. Without 4 x 4
blocks: the same size and signal-to-noise ratio at 128 pixels, and an eighth less time."""

_BYTES_PER_PIXEL = {True: 0.2, False: 0.15}
"""Rough size of an encoded frame, all key frames or not; to see beforehand whether the disk is large enough."""


@dataclass(frozen=True)
class Video:
    """What is known of a source video: its ``frames`` that can be decoded, and what is wrong with the next."""

    path: str
    content: str
    frames: int
    reason: str
    width: int
    height: int


@dataclass(frozen=True)
class Files:
    """Source videos in the folder ``root``."""

    root: Path

    def frames(self, video: Video, short_side: int) -> Iterator[NDArray[np.uint8]]:
        """The frames before the damage, ``(H, W, 3)``."""
        return islice(stream_frames(self.root / video.path, short_side), video.frames)


@dataclass(frozen=True)
class Packed:
    """Source videos in a pack."""

    clips: Clips

    def frames(self, video: Video, short_side: int) -> Iterator[NDArray[np.uint8]]:
        """The frames before the damage, ``(H, W, 3)``."""
        for first in range(0, video.frames, 64):
            yield from self.clips.read(video.path, range(first, min(first + 64, video.frames)), short_side)


def build_proxy(
    manifest: Manifest,
    index: Index | None,
    folder: Path,
    tier: Tier,
    *,
    shard_bytes: int = SHARD_BYTES,
    processes: int | None = None,
    limit: float = LIMIT,
    progress: Progress | None = None,
) -> Pack:
    """Encode all videos of a dataset into the folder ``folder``. A finished proxy of the same videos is left alone.

    Videos that are smaller than ``tier.short_side`` keep their size; sizes are rounded to even numbers. A damaged
    video keeps its good frames and its reason.

    Args:
        index: of the dataset; None if the dataset is a pack.

    Raises:
        DatasetError: the dataset is a proxy itself; the index lacks videos or is older than they are; the folder holds
            something else or cannot be written; another process makes the same; an encoder crashed or hung.
        DamagedVideo: a video is not what was indexed.
        DiskFull: not enough space; what is recorded is kept for the next try.
    """
    if proxy_of(manifest.name) is not None:
        raise DatasetError(f"dataset {manifest.name} is a proxy: make another from the videos, not from it")
    source, videos = _source(manifest, index)
    key, target = _key(videos, tier), FolderTarget(folder, "retable data proxy")
    work = partial(encode, source, tier, target.partial)
    with errors_of(folder, _size(videos, tier), f"the proxy of {manifest.name}"):
        if is_finished(target, key, folder):
            return open_pack(folder)
        with target.working():
            _begin(target, key)
            with contextlib.closing(Growing(target.partial, shard_bytes)) as growing:
                todo = [video for video in videos if video.path not in growing.done]
                if shutil.disk_usage(target.partial).free < _size(todo, tier):
                    raise DiskFull(folder.parent, _size(todo, tier), f"the proxy of {manifest.name}")
                for done, _ in enumerate(_grow(growing, work, todo, processes, limit), len(videos) - len(todo) + 1):
                    if progress is not None:
                        progress(done, len(videos))
                files, rows = growing.finished()
            finish(target, manifest, files, rows, key, name=proxy_name(manifest.name, tier), more=_card(manifest, tier))
        forget(folder)
    return open_pack(folder)


def _grow(
    growing: Growing,
    work: Callable[[Video], tuple[Entry, bytes]],
    todo: Sequence[Video],
    processes: int | None,
    limit: float,
) -> Iterator[Video]:
    """Every video as it is written."""
    for video, answer in each(work, todo, processes=processes, limit=limit):
        if isinstance(answer, Lost):
            raise DatasetError(f"{video.path}: {answer.reason}; the same command goes on from here")
        growing.write(*answer)
        yield video


def _card(manifest: Manifest, tier: Tier) -> dict[str, Any]:
    """What the card of a proxy says beside that of a pack."""
    made = {"encoder": ENCODER, "libraries": av.ffmpeg_version_info}
    return {"proxy": {"of": manifest.name, **asdict(tier), **made}}


def _source(manifest: Manifest, index: Index | None) -> tuple[Files | Packed, list[Video]]:
    if index is None:
        clips = open_clips(manifest)
        assert isinstance(clips, Pack), "without an index the dataset is a pack"
        known: Index | Pack = clips
        source: Files | Packed = Packed(clips)
        paths = sorted(clips.counts)
    else:
        known, source, paths = index, Files(manifest.root), indexed_videos(manifest, index)
    columns = [known.column(name) for name in ("content", "frames", "reason", "width", "height")]
    return source, [Video(path, *(column[path] for column in columns)) for path in paths]


def _size(videos: Sequence[Video], tier: Tier) -> int:
    """Bytes that the proxies of these videos will take, roughly."""
    total = 0.0
    for video in videos:
        scale = min(1.0, tier.short_side / max(1, min(video.width, video.height)))
        total += video.frames * video.width * video.height * scale**2
    return round(total * _BYTES_PER_PIXEL[tier.gop == 1])


def _key(videos: Sequence[Video], tier: Tier) -> str:
    """Names what the proxy is of, and how it is encoded."""
    value = [asdict(tier), ENCODER, av.ffmpeg_version_info, [(video.path, video.content) for video in videos]]
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]


def encode(source: Files | Packed, tier: Tier, folder: Path, video: Video) -> tuple[Entry, bytes]:
    """One video's entry and record. It is written to a file first, and examined as every video is.

    Raises:
        DamagedVideo: the source has not the frames that were indexed, or the proxy has not those of the source.
    """
    if not video.frames:
        return replace(lost(video.path, video.reason), content=video.content), b""
    side = min(tier.short_side, video.width, video.height)
    content = _mp4(source.frames(video, side), tier.gop)
    with tempfile.TemporaryDirectory(dir=folder, suffix=".tmp") as temporary:
        file = Path(temporary) / "proxy.mp4"
        file.write_bytes(content)
        entry = examine(file.parent, file.name)
        if entry.reason or entry.frames != video.frames:
            found = entry.reason or f"{entry.frames} frames"
            raise DamagedVideo(video.path, f"{video.frames} frames were indexed; of the proxy's can be read: {found}")
        return replace(entry, path=video.path, reason=video.reason), record_of(file, entry)


def _mp4(frames: Iterable[NDArray[np.uint8]], gop: int) -> bytes:
    """H.264, one thread: processes share the cores. The same frames give the same bytes nearly, not quite, always."""
    content, reformatter = io.BytesIO(), VideoReformatter()
    with av.open(content, "w", format="mp4") as container:
        stream: VideoStream | None = None
        for number, pixels in enumerate(frames):
            height, width = (side - side % 2 for side in pixels.shape[:2])
            if stream is None:
                stream = container.add_stream("libx264", rate=25)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                stream.codec_context.gop_size, stream.codec_context.thread_count = gop, 1
                stream.codec_context.options = dict(ENCODER)
            rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:height, :width]), format="rgb24")
            frame = reformatter.reformat(rgb, format="yuv420p", threads=1)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode(None))
    return content.getvalue()


def _begin(target: FolderTarget, key: str) -> None:
    """Keep what is there of a broken-off proxy of the same videos; begin anew otherwise."""
    try:
        same = json.loads(target.read(PLAN) or b"{}") == {"key": key}
    except ValueError:
        same = False
    if not same:
        target.clear()
        put(target.partial / PLAN, json.dumps({"key": key}).encode())
    for left in target.partial.glob("*.tmp"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
