"""The videos that are read: five kinds as datasets are encoded, real encoders, painted motion. The same every time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import torch
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch.nn import functional as F

from retable.data.manifest import Manifest, open_dataset


@dataclass(frozen=True)
class Corpus:
    """Videos of one kind. ``gop``: frames from key to key; 0: one key frame."""

    suffix: str
    codec: str
    width: int
    height: int
    frames: int
    fps: int
    gop: int
    options: dict[str, str]


ASP = {"b_strategy": "0", "sc_threshold": "1000000000"}
X264 = {"preset": "medium", "crf": "23", "bf": "3", "sc_threshold": "0"}
VP9 = {"cpu-used": "8", "deadline": "realtime", "crf": "33", "b": "0", "row-mt": "0"}
CORPORA = {
    "ucf-gop12": Corpus(".avi", "mpeg4", 320, 240, 180, 25, 12, ASP),
    "ucf-gop250": Corpus(".avi", "mpeg4", 320, 240, 180, 25, 250, ASP),
    "k400-gop12": Corpus(".mp4", "libx264", 340, 256, 300, 30, 12, X264),
    "k400-gop250": Corpus(".mp4", "libx264", 340, 256, 300, 30, 250, X264),
    "ssv2": Corpus(".webm", "libvpx-vp9", 427, 240, 48, 12, 0, VP9),
}


def make(corpus: Corpus, folder: Path, clips: int, processes: int = 1) -> Manifest:
    """``clips`` videos as a dataset of one's own: two classes, train and test in turn."""
    for left in folder.rglob("partial-*"):  # of a run that was killed
        left.unlink()
    one = partial(make_one, corpus, folder)
    if processes > 1:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            list(pool.map(one, range(clips)))
    else:
        list(map(one, range(clips)))
    return open_dataset(folder.name, folder)


def make_one(corpus: Corpus, folder: Path, number: int) -> None:
    """One of the videos, if it is not there."""
    subset, name = ("train", "test")[number % 2], "ab"[number // 2 % 2]
    path = folder / subset / name / f"v{number:03d}{corpus.suffix}"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"partial-{path.name}")
        encode(corpus, temporary, seed=number)
        temporary.replace(path)


def encode(corpus: Corpus, path: Path, seed: int) -> None:
    """A camera that pans over a textured ground with noise, and a textured ball that crosses it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(corpus.codec, rate=corpus.fps)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = corpus.width, corpus.height, "yuv420p"
        stream.codec_context.gop_size = corpus.gop or 10_000
        stream.codec_context.thread_count = 1
        stream.codec_context.options = dict(corpus.options)
        if corpus.codec == "mpeg4":
            stream.bit_rate = 500_000
        for number, picture in enumerate(film(corpus, seed)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, corpus.fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def film(corpus: Corpus, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Frames ``(H, W, 3)`` uint8."""
    draw = np.random.default_rng(seed)
    height, width = corpus.height, corpus.width
    ground, ball = texture(draw, height + 64, width + 64), texture(draw, 64, 64)
    noise = draw.integers(-6, 7, (height + 16, width + 16, 1), np.int16)
    disc = (np.hypot(*np.mgrid[-32:32, -32:32]) < 30)[..., None]
    for t in range(corpus.frames):
        down, right = (round(32 + 30 * np.sin(t / period)) for period in (23, 31))
        picture = ground[down : down + height, right : right + width].copy()
        y, x = ((round(64 + 3.1 * t) + 50 * seed) % (side - 64) for side in (height, width))
        spot = picture[y : y + 64, x : x + 64]
        spot[:] = np.where(disc, np.roll(ball, t, 1), spot)
        y, x = draw.integers(0, 16, 2)
        yield np.clip(picture + noise[y : y + height, x : x + width], 0, 255).astype(np.uint8)


def texture(draw: np.random.Generator, height: int, width: int) -> NDArray[np.int16]:
    """Smooth random colours with details of several sizes."""
    total = torch.zeros(1, 3, height, width)
    for cells, weight in ((4, 1.0), (12, 0.6), (40, 0.3)):
        grid = torch.from_numpy(draw.normal(size=(1, 3, cells, cells)).astype(np.float32))
        total += weight * F.interpolate(grid, (height, width), mode="bicubic")
    return (total[0].permute(1, 2, 0) * 50 + 128).clamp(0, 255).numpy().astype(np.int16)
