"""Write a generated dataset: MPEG-4 AVI files in UCF101's on-disk layout, with split lists and ground truth.

The same variant gives the same bytes with the same libavcodec, whatever the number of processes. A broken-off
generation is taken up again; a finished one is left alone; a folder with other content is refused.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from retable.data.errors import DatasetError, DiskFull
from retable.data.scenes import film, video_seed
from retable.data.variants import GENERATOR, VARIANTS, Variant

BYTES_PER_PIXEL = 0.07
"""Size of the encoded videos, bytes per pixel and frame; measured, for disk estimates."""

_CARD = "motions.json"


@dataclass(frozen=True)
class Size:
    """What a variant takes on disk, estimated."""

    videos: int
    frames: int
    bytes: int


@dataclass(frozen=True)
class _Take:
    """One video to make."""

    name: str
    group: int
    clip: int

    @property
    def file(self) -> str:
        return f"{self.name}/v_{self.name}_g{self.group:02d}_c{self.clip:02d}.avi"


def plan_size(variant: str) -> Size:
    """Number of videos and frames and bytes on disk of ``variant``."""
    spec = _spec(variant)
    frames = spec.videos * sum(spec.frames) // 2
    return Size(spec.videos, frames, round(frames * spec.width * spec.height * BYTES_PER_PIXEL))


def generate(
    variant: str,
    out_dir: Path | str,
    *,
    progress: Callable[[int, int], None] | None = None,
    processes: int | None = None,
) -> Path:
    """Make the dataset ``variant`` in the folder ``out_dir`` and return it. Done before: returns at once.

    Videos are collected in ``<out_dir>.partial``, which becomes ``out_dir`` when all are there.

    Args:
        variant: a name from ``VARIANTS``.
        out_dir: the dataset's own folder; must not exist, be empty, or hold this very dataset.
        progress: told (videos done, videos in all).
        processes: default: one per CPU.

    Raises:
        DatasetError: no such variant, or ``out_dir`` holds something else.
        DiskFull: no space left; what was written is removed.
    """
    spec, out = _spec(variant), Path(out_dir)
    card = {"schema": 1, "variant": variant, "generator": GENERATOR, "spec": json.loads(json.dumps(asdict(spec)))}
    if _is_done(out, card):
        return out
    partial_dir = out.with_name(f"{out.name}.partial")
    if partial_dir.exists() and _card(partial_dir) != card:
        raise DatasetError(f"{partial_dir} is not a broken-off {variant}: remove it or choose another folder")
    try:
        partial_dir.mkdir(parents=True, exist_ok=True)
        (partial_dir / _CARD).write_text(json.dumps(card, indent=1), encoding="utf-8")
        _write_lists(spec, partial_dir / "ucfTrainTestlist")
        _write_videos(spec, partial_dir, progress, processes)
        if out.is_dir():
            out.rmdir()
        partial_dir.rename(out)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        shutil.rmtree(partial_dir, ignore_errors=True)
        raise DiskFull(out.parent, plan_size(variant).bytes, f"dataset {variant}") from error
    return out


def encode(frames: NDArray[np.uint8], fps: int) -> bytes:
    """An MPEG-4 part 2 AVI file of ``(N, H, W, 3)`` RGB frames, constant quantiser 3, a key frame every 12."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="avi", options={"fflags": "bitexact"}) as container:
        stream = container.add_stream("mpeg4", rate=fps)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.gop_size, context.qmin, context.qmax, context.thread_count = 12, 3, 3, 1
        context.options = {"flags": "bitexact", "idct": "simple", "dct": "int"}
        for pts, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(_to_yuv(picture), format="yuv420p")
            frame.pts, frame.time_base = pts, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _to_yuv(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """BT.601 limited range, planar 4:2:0 ``(H * 3 / 2, W)``; integers, so that it is the same on every CPU."""
    r, g, b = np.moveaxis(rgb.astype(np.int32), -1, 0)
    luma = ((66 * r + 129 * g + 25 * b + 128) >> 8) + 16
    r, g, b = ((c[::2, ::2] + c[1::2, ::2] + c[::2, 1::2] + c[1::2, 1::2] + 2) >> 2 for c in (r, g, b))
    blue = ((-38 * r - 74 * g + 112 * b + 128) >> 8) + 128
    red = ((112 * r - 94 * g - 18 * b + 128) >> 8) + 128
    planes = np.concatenate([luma.ravel(), blue.ravel(), red.ravel()]).astype(np.uint8)
    return planes.reshape(rgb.shape[0] * 3 // 2, rgb.shape[1])


def _spec(variant: str) -> Variant:
    if variant not in VARIANTS:
        raise DatasetError(f"there is no generated dataset {variant!r}; there are {', '.join(VARIANTS)}")
    return VARIANTS[variant]


def _card(folder: Path) -> object:
    try:
        return json.loads((folder / _CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _is_done(out: Path, card: dict[str, object]) -> bool:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not out.is_dir() or _card(out) != card:
        raise DatasetError(f"{out} holds something else than {card['variant']}: choose another folder")
    return True


def _takes(spec: Variant) -> list[_Take]:
    return [
        _Take(name, group, clip)
        for name in spec.classes
        for group in range(1, spec.groups + 1)
        for clip in range(1, spec.clips + 1)
    ]


def _write_lists(spec: Variant, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    number = {name: i for i, name in enumerate(spec.classes, 1)}
    (folder / "classInd.txt").write_text("".join(f"{i} {name}\n" for name, i in number.items()), encoding="utf-8")
    for split in (1, 2, 3):
        test = [take.group in spec.test_groups(split) for take in _takes(spec)]
        rows = list(zip(_takes(spec), test, strict=True))
        train_lines = [f"{take.file} {number[take.name]}\n" for take, tested in rows if not tested]
        test_lines = [f"{take.file}\n" for take, tested in rows if tested]
        (folder / f"trainlist{split:02d}.txt").write_text("".join(train_lines), encoding="utf-8")
        (folder / f"testlist{split:02d}.txt").write_text("".join(test_lines), encoding="utf-8")


def _write_videos(
    spec: Variant, folder: Path, progress: Callable[[int, int], None] | None, processes: int | None
) -> None:
    takes = _takes(spec)
    for name in spec.classes:
        (folder / "videos" / name).mkdir(parents=True, exist_ok=True)
    rows = []
    for done, row in enumerate(_made(partial(_make, spec, folder), takes, processes or os.cpu_count() or 1), 1):
        rows.append(row)
        if progress is not None:
            progress(done, len(takes))
    with (folder / "ground_truth.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["video", "class", "start", "end", "seed"])
        writer.writerows(rows)


_Row = tuple[str, str, int, int, int]


def _made(make: Callable[[_Take], _Row], takes: list[_Take], processes: int) -> Iterator[_Row]:
    if processes == 1:
        yield from map(make, takes)
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(make, takes, chunksize=8)


def _make(spec: Variant, folder: Path, take: _Take) -> _Row:
    """Render and write one video unless it is there; its line of the ground truth: action from start to end frame."""
    video = film(spec, take.name, take.group, take.clip)
    target = folder / "videos" / take.file
    if not target.is_file():
        temporary = target.with_suffix(".tmp")
        temporary.write_bytes(encode(video.frames, spec.fps))
        temporary.replace(target)
    return take.file, take.name, video.start, video.end, video_seed(spec, take.name, take.group, take.clip)
