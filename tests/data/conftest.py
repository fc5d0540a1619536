"""Videos whose pixels say which frame they are, and a miniature generated dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from retable.data import variants
from retable.data.generate import generate
from retable.data.manifest import Manifest, open_dataset

BITS = 8
WriteVideo = Callable[..., Path]


def painted(number: int, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """A frame that shows ``number`` in binary as eight black or white columns: lossy coding cannot hide it."""
    bits = [(number >> bit) & 1 for bit in range(BITS)]
    columns = np.repeat(np.array(bits, np.uint8) * 255, width // BITS)
    return np.broadcast_to(columns[None, :, None], (height, width, 3)).copy()


def number_in(frame: NDArray[np.uint8]) -> int:
    """The number that :func:`painted` put there, at any size."""
    height, width = frame.shape[:2]
    centres = [round((bit + 0.5) * width / BITS) for bit in range(BITS)]
    return sum(int(frame[height // 2, x].mean() > 127) << bit for bit, x in enumerate(centres))


@pytest.fixture(scope="session")
def read_numbers() -> Callable[[NDArray[np.uint8]], list[int]]:
    return lambda frames: [number_in(frame) for frame in frames]


@pytest.fixture(scope="session")
def write_video() -> WriteVideo:
    """``write_video(path, frames=40, codec="mpeg4", options={}, gop=12)``: numbered frames, 64 x 48."""

    def write(
        path: Path,
        frames: int = 40,
        codec: str = "mpeg4",
        options: dict[str, str] | None = None,
        gop: int = 12,
        first: int = 0,
        container_options: dict[str, str] | None = None,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w", options=container_options or {}) as container:
            stream = container.add_stream(codec, rate=25)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.codec_context.gop_size, stream.codec_context.thread_count = gop, 1
            stream.codec_context.options = options or {}
            for number in range(frames):
                frame = av.VideoFrame.from_ndarray(painted(first + number), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return write


@pytest.fixture(scope="session")
def write_images() -> WriteVideo:
    """``write_images(folder, numbers, name="{:05d}.jpg", width=64)``: numbered images, 48 high, named by number."""

    def write(folder: Path, numbers: Iterable[int], name: str = "{:05d}.jpg", width: int = 64) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for number in numbers:
            Image.fromarray(painted(number, width)).save(folder / name.format(number))
        return folder

    return write


@pytest.fixture
def folder_set(tmp_path: Path, write_images: WriteVideo) -> Manifest:
    """Two classes with two training videos and one test video each, all folders of 6 images."""
    for k, name in enumerate(f"{s}/{c}/{v}" for c in ("a", "b") for s, v in (("train", 1), ("train", 2), ("test", 3))):
        write_images(tmp_path / "folder-mine" / name, range(10 * k, 10 * k + 6))
    return open_dataset("folder-mine", tmp_path / "folder-mine")


@pytest.fixture
def ucf_tree(tmp_path: Path, write_video: WriteVideo) -> Path:
    """Two classes, three groups of one short video, split 1 tests on g01."""
    root = tmp_path / "ucf101"
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("1 Jump\n2 Run\n")
    names = {c: [f"{c}/v_{c}_g{g:02d}_c01.avi" for g in (1, 2, 3)] for c in ("Jump", "Run")}
    for k, name in enumerate(names["Jump"] + names["Run"]):
        write_video(root / "UCF-101" / name, frames=12, first=20 * k)
    for split in (1, 2, 3):
        test = [files[split - 1] for files in names.values()]
        train = [f"{n} {i}" for i, files in enumerate(names.values(), 1) for n in files if n not in test]
        (lists / f"testlist{split:02d}.txt").write_text("\n".join(test))
        (lists / f"trainlist{split:02d}.txt").write_text("\n".join(train))
    return root


@pytest.fixture(scope="session")
def tiny_motions(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Left/right and grow/shrink, six groups of two short videos of 32 x 24: 48 videos."""
    name = "motions-tiny"
    variants.VARIANTS[name] = variants.Variant(seed=3, pairs=(0, 2), groups=6, width=32, height=24, frames=(28, 30))
    try:
        return open_dataset(name, generate(name, tmp_path_factory.mktemp("motions") / name, processes=1))
    finally:
        del variants.VARIANTS[name]
