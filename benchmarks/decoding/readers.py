"""Ways to read frames: (path, sorted frame numbers) -> frames at short side 128, as each library's pages teach it."""

from __future__ import annotations

import importlib
import shutil
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch.nn import functional as F

from retable.data.clips import Clips
from retable.data.decode import target_size

SHORT_SIDE = 128
BASE = "pyav-docs"
"""The reader that ratios are to."""

Read = Callable[[Path, list[int]], Any]


def pyav_docs(path: Path, indices: list[int]) -> Any:
    """As PyAV's documentation teaches: decode, convert with to_ndarray; stop after the last frame; then resize."""
    wanted, kept = set(indices), {}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                kept[number] = frame.to_ndarray(format="rgb24")
            if number == indices[-1]:
                break
    return resized(torch.from_numpy(np.stack([kept[k] for k in indices])).permute(0, 3, 1, 2))


def resized(frames: torch.Tensor) -> torch.Tensor:
    width, height = target_size(frames.shape[3], frames.shape[2], SHORT_SIDE)
    small = F.interpolate(frames.float(), (height, width), mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).byte()


def torchcodec(mode: str) -> Read:
    """torchcodec's VideoDecoder, one thread, frames by index. ``mode``: exact or approximate."""
    decoders = importlib.import_module("torchcodec.decoders")

    def read(path: Path, indices: list[int]) -> Any:
        decoder = decoders.VideoDecoder(str(path), seek_mode=mode, num_ffmpeg_threads=1)
        return resized(decoder.get_frames_at(indices=indices).data)

    return read


def decord() -> Read:
    """decord's VideoReader, one thread, which gives frames at the target size; a video's own size is remembered."""
    module = importlib.import_module("decord")
    sizes: dict[Path, tuple[int, int]] = {}

    def read(path: Path, indices: list[int]) -> Any:
        if path not in sizes:
            height, width, _ = module.VideoReader(str(path), num_threads=1)[0].shape
            sizes[path] = target_size(width, height, SHORT_SIDE)
        width, height = sizes[path]
        return module.VideoReader(str(path), width=width, height=height, num_threads=1).get_batch(indices).asnumpy()

    return read


def opencv() -> Read:
    """OpenCV's VideoCapture from the start: grab what is not wanted, retrieve and resize what is."""
    cv2 = importlib.import_module("cv2")
    cv2.setNumThreads(1)

    def read(path: Path, indices: list[int]) -> Any:
        video, kept, wanted = cv2.VideoCapture(str(path)), [], set(indices)
        for number in range(indices[-1] + 1):
            video.grab()
            if number in wanted:
                _, frame = video.retrieve()
                size = target_size(frame.shape[1], frame.shape[0], SHORT_SIDE)
                kept.append(cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB))
        video.release()
        return np.stack(kept)

    return read


def ffmpeg() -> Read:
    """The ffmpeg program decoding every frame on one thread to nowhere: the cost of not seeking."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise ImportError("ffmpeg")

    def read(path: Path, indices: list[int]) -> None:
        command = [program, "-v", "error", "-threads", "1", "-i", str(path), "-an", "-f", "null", "-"]
        subprocess.run(command, check=True)

    return read


def ours(clips: Clips, root: Path) -> Read:
    return lambda path, indices: clips.read(path.relative_to(root).as_posix(), indices, SHORT_SIDE)


PEERS: dict[str, Callable[[], Read]] = {
    "torchcodec-exact": lambda: torchcodec("exact"),
    "torchcodec-approximate": lambda: torchcodec("approximate"),
    "decord": decord,
    "opencv": opencv,
    "ffmpeg-null": ffmpeg,
}


def peers() -> tuple[dict[str, Read], dict[str, str]]:
    """Readers that work here, and why the others do not."""
    found: dict[str, Read] = {BASE: pyav_docs}
    absent = {}
    for name, load in PEERS.items():
        try:
            found[name] = load()
        except (ImportError, OSError, RuntimeError) as error:
            absent[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return found, absent


def versions() -> dict[str, str]:
    """Of the libraries that are compared, as far as they are installed."""
    found = {"av": f"{version('av')} (FFmpeg {av.ffmpeg_version_info})"}
    for package in ("torchcodec", "decord", "opencv-contrib-python-headless"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    program = shutil.which("ffmpeg")
    if program is not None:
        said = subprocess.run([program, "-version"], check=True, capture_output=True, text=True).stdout
        found["ffmpeg"] = said.split()[2]
    return found
