"""Frame-exact video decoding with PyAV: frame k is the k-th picture the decoder puts out, whatever the headers say.

Every read decodes from the first packet on. That is exact for any container, packed B-frames and edit lists included;
the price is decoding frames nobody asked for. A folder of numbered images is a video too: frame k is its k-th image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from retable.data.errors import DamagedVideo
from retable.data.imagefolder import frame_files
from retable.data.whole import is_cut_off

Frames = NDArray[np.uint8]
"""``(T, H, W, 3)`` uint8 RGB."""


def read_frames(path: Path | str, indices: Sequence[int], short_side: int) -> Frames:
    """The frames at ``indices`` (any order, repeats allowed), resized to ``short_side``: ``(len(indices), H, W, 3)``.

    Raises:
        DamagedVideo: the file does not decode up to the last wanted frame.
    """
    wanted, last = set(indices), max(indices)
    resize = Resize(short_side)
    if Path(path).is_dir():
        files = frame_files(Path(path))
        if last >= len(files):
            raise DamagedVideo(path, f"frame {last} was wanted but the folder holds {len(files)} images")
        images = dict(zip(sorted(wanted), map(resize, _images(files[k] for k in sorted(wanted))), strict=True))
        return np.stack([images[k] for k in indices])
    found: dict[int, NDArray[np.uint8]] = {}
    for k, frame in enumerate(_pictures(path)):
        if k in wanted:
            found[k] = resize(frame)
        if k == last:
            break
    missing = wanted - set(found)
    if missing:
        raise DamagedVideo(path, f"frame {min(missing)} was wanted but the video ends before it")
    return np.stack([found[k] for k in indices])


def stream_frames(path: Path | str, short_side: int) -> Iterator[NDArray[np.uint8]]:
    """Every frame in turn, resized to ``short_side``: ``(H, W, 3)``.

    Raises:
        DamagedVideo: the file does not decode to its end; the frames before the damage have come then.
    """
    return map(Resize(short_side), _pictures(path))


def decode_all(path: Path | str, short_side: int) -> Frames:
    """Every frame, resized to ``short_side``: ``(N, H, W, 3)``.

    Raises:
        DamagedVideo: the file does not decode to its end, or holds no frame.
    """
    frames = list(stream_frames(path, short_side))
    if not frames:
        raise DamagedVideo(path, "no frame in it")
    return np.stack(frames)


def count_frames(path: Path | str) -> int:
    """Number of frames, by decoding all of them.

    Raises:
        DamagedVideo: the file does not decode to its end, or holds no frame.
    """
    count = sum(1 for _ in _pictures(path))
    if count == 0:
        raise DamagedVideo(path, "no frame in it")
    return count


def target_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height with the short side at ``short_side`` and the aspect kept: (320, 240) at 128 is (171, 128)."""
    scale = short_side / min(width, height)
    return max(short_side, round(width * scale)), max(short_side, round(height * scale))


def _pictures(path: Path | str) -> Iterator[VideoFrame]:
    """Decoded pictures in presentation order; of a folder, its images.

    ``err_detect=explode`` makes the decoder refuse a broken bitstream where it would otherwise paint over the hole;
    a cut-off last packet and pictures flagged corrupt are refused here.
    """
    if Path(path).is_dir():
        yield from _images(frame_files(Path(path)))
        return
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            if not container.streams.video:
                raise DamagedVideo(path, "no video stream in it")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise DamagedVideo(path, "no decoder for it")
            stream.thread_type = "NONE"
            stream.codec_context.options = {"err_detect": "explode"}
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    raise DamagedVideo(path, "a packet is cut off")
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise DamagedVideo(path, "the decoder flags a frame as corrupt")
                    yield frame
        if is_cut_off(path):
            raise DamagedVideo(path, "the file is cut off")
    except (av.error.FFmpegError, OSError) as error:
        raise DamagedVideo(path, str(error)) from error


def _images(files: Iterable[Path]) -> Iterator[VideoFrame]:
    """Decoded image files. All must have the size of the first.

    A damaged PNG never decodes. A JPEG has no checksum: one that is cut off or breaks its own grammar is refused, a
    flipped bit inside may pass as other pixels.
    """
    size: tuple[int, int] | None = None
    for file in files:
        frame = _image(file)
        if size is not None and (frame.width, frame.height) != size:
            raise DamagedVideo(file.parent, f"{file.name} is {frame.width}x{frame.height}, not {size[0]}x{size[1]}")
        size = frame.width, frame.height
        yield frame


def _image(file: Path) -> VideoFrame:
    try:
        data = file.read_bytes()
        jpeg = data[:2] == b"\xff\xd8"
        if jpeg and b"\xff\xd9" not in data[data.rfind(b"\xff\xda") :]:  # end of image, after the last start of scan
            raise DamagedVideo(file.parent, f"{file.name} is cut off")
        codec = av.CodecContext.create("mjpeg" if jpeg else "png", "r")
        codec.thread_type = "NONE"
        codec.options = {"err_detect": "explode+crccheck"}
        packet = av.Packet(len(data))  # made by size: av.Packet(data) lacks the padding that decoders read beyond
        packet.update(data)
        frames = [*codec.decode(packet), *codec.decode(None)]
    except (av.error.FFmpegError, OSError) as error:
        raise DamagedVideo(file.parent, f"{file.name}: {error}") from error
    if len(frames) != 1 or not isinstance(frames[0], VideoFrame):
        raise DamagedVideo(file.parent, f"{file.name} holds {len(frames)} pictures, not 1")
    return frames[0]


class Resize:
    """Resize pictures of one video to RGB24; all must come out at the size of the first.

    ``rotation``: degrees counter-clockwise, for pictures that do not bring their container's rotation along.
    """

    def __init__(self, short_side: int, rotation: int | None = None) -> None:
        self._short_side = short_side
        self._rotation = rotation
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        if self._size is None:
            self._size = target_size(frame.width, frame.height, self._short_side)
        width, height = self._size
        shrinks = height < frame.height
        out = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            interpolation=Interpolation.AREA if shrinks else Interpolation.BICUBIC,
            threads=1,
        )
        pixels: NDArray[np.uint8] = np.ascontiguousarray(out.to_ndarray())
        rotation = frame.rotation if self._rotation is None else self._rotation
        quarter_turns = round(rotation / 90) % 4  # degrees counter-clockwise; PyAV leaves it to us
        return np.ascontiguousarray(np.rot90(pixels, quarter_turns)) if quarter_turns else pixels
