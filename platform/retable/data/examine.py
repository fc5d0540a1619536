"""One full decode of one video: what is really in it, and how its frames can be reached. Headers are not believed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from retable.data.decode import Resize, read_frames
from retable.data.decoders import NO_DEBLOCKING, Stream
from retable.data.errors import DamagedVideo
from retable.data.h264 import h264_flags, h264_length_size
from retable.data.imagefolder import frame_files
from retable.data.manifest import hash_video, video_state
from retable.data.packets import DISPOSABLE, KEY, Table, read_packets
from retable.data.whole import is_cut_off

DIRECT, PACKETS, SEQUENTIAL = "direct", "packets", "sequential"
"""How frames are reached: packets lie whole in the file; packets come from the demuxer only; from the start only."""

_PROBE_SIDE = 48
_PROBED_KEYS = 3
_BLOCK_HEADER = 64
"""Bytes that a container may put between the place it gives and a packet's own first byte."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One video of an index.

    ``state``: size and time stamp that tell whether the file was written since, as JSON. ``content``: its SHA-256.
    ``frames``: how many can be decoded; all of them if ``reason`` is empty, else those before the damage.
    ``offsets``: (P,) int64, where each packet lies in the file; only with access ``direct``, and not for folders.
    ``times``: (F,) float32, seconds from the first frame. ``duration``: seconds, with the last frame's own.
    """

    path: str
    state: str
    content: str
    reason: str
    access: str
    container: str
    stream: Stream
    frames: int
    duration: float
    table: Table
    offsets: NDArray[np.int64]
    times: NDArray[np.float32]


@dataclass(frozen=True)
class _Demuxed:
    """One packet. ``begin``, ``length``: seconds, None where the container does not say."""

    packet: av.Packet[VideoStream]
    key: bool
    offset: int
    begin: float | None
    length: float | None


@dataclass
class _Seen:
    """What the decoder put out: packet of each frame, their looks, small pictures of some, and the fault at the end."""

    packets: list[int | None]
    looks: set[tuple[int, ...]]
    pictures: dict[int, NDArray[np.uint8]]
    reason: str = ""


def examine(root: Path, path: str) -> Entry:
    """The index entry of the video ``path`` (relative to ``root``). Damage is an entry too, not an error."""
    file = root / path
    try:
        entry = replace(lost(path, ""), state=state_of(file), content=hash_video(file))
    except OSError as error:
        return lost(path, str(error))
    try:
        return _folder(file, entry) if file.is_dir() else _video(file, entry)
    except DamagedVideo as error:
        return replace(entry, reason=error.reason)
    except (av.error.FFmpegError, OSError) as error:
        return replace(entry, reason=str(error))


def state_of(file: Path) -> str:
    """Size and modification time, as text to compare."""
    return json.dumps(video_state(file))


def state_if_there(file: Path) -> str:
    """:func:`state_of`, empty where the file cannot be looked at."""
    try:
        return state_of(file)
    except OSError:
        return ""


def lost(path: str, reason: str) -> Entry:
    """An entry without frames."""
    table = Table(np.empty(0, np.int32), np.empty(0, np.uint8), np.empty(0, np.int32))
    none = Stream("", "", b"", 0, 0)
    return Entry(
        path, "", "", reason, SEQUENTIAL, "", none, 0, 0.0, table, np.empty(0, np.int64), np.empty(0, np.float32)
    )


def _video(file: Path, entry: Entry) -> Entry:
    with av.open(str(file), metadata_errors="ignore") as container:
        if not container.streams.video:
            raise DamagedVideo(file, "no video stream in it")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise DamagedVideo(file, "no decoder for it")
        stream.thread_type = "NONE"
        stream.codec_context.options = {"err_detect": "explode", **NO_DEBLOCKING}
        raw = file.read_bytes()
        demuxed, reason = _demux(container, stream, raw)
        context = stream.codec_context
        tag, extra = _tag(context), context.extradata or b""
        if context.codec.name == "mpeg4" and demuxed:
            extra += _mpeg4_headers(bytes(demuxed[0].packet))
        look = Stream(context.codec.name, tag, extra, stream.width, stream.height)
        flags = _flags(demuxed, look)
        probes = _probes(flags)
        seen = _decode(demuxed, probes, finish=not reason)
        name, rate = container.format.name, float(stream.average_rate or 25)
    reason = seen.reason or reason or _end(file, seen)
    table = _table(demuxed, flags, seen)
    times, duration = _times(demuxed, seen, rate)
    found = replace(entry, reason=reason, container=name, frames=len(seen.packets), times=times, duration=duration)
    if table is None or not seen.packets:
        return replace(found, stream=look)
    *_, rotation, colorspace, color_range = next(iter(seen.looks))
    look = replace(look, rotation=rotation, colorspace=colorspace, color_range=color_range)
    found = replace(found, stream=look, table=table)
    packets = [memoryview(bytes(d.packet)) for d in demuxed]
    if not _agrees(file, look, table, packets, seen):
        return replace(found, access=SEQUENTIAL)
    offsets = np.array([d.offset for d in demuxed], np.int64)
    direct = bool((offsets >= 0).all())
    return replace(found, access=DIRECT if direct else PACKETS, offsets=offsets if direct else entry.offsets)


def _end(file: Path, seen: _Seen) -> str:
    """What is wrong with a video that decodes to its end, if anything is."""
    if is_cut_off(file):
        return "the file is cut off"
    return "" if seen.packets else "no frame in it"


def _mpeg4_headers(first: bytes) -> bytes:
    """What the first packet holds before its first picture: it tells of packed B-frames, and is not sent again."""
    places = [place for code in (b"\0\0\1\xb3", b"\0\0\1\xb6") if (place := first.find(code)) >= 0]
    return first[: min(places)] if places else b""


def _demux(container: InputContainer, stream: VideoStream, raw: bytes) -> tuple[list[_Demuxed], str]:
    """The packets up to the first that cannot be had, and why it cannot."""
    found: list[_Demuxed] = []
    tick = float(stream.time_base or 0)
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                return found, "a packet is cut off"
            if packet.size:
                found.append(_demuxed(packet, raw, tick))
    except (av.error.FFmpegError, OSError) as error:
        return found, str(error)
    return found, ""


def _demuxed(packet: av.Packet[VideoStream], raw: bytes, tick: float) -> _Demuxed:
    offset = -1
    if packet.pos is not None and packet.pos >= 0:
        offset = raw.find(bytes(packet), packet.pos, packet.pos + packet.size + _BLOCK_HEADER)
    begin = None if packet.pts is None else packet.pts * tick
    return _Demuxed(packet, packet.is_keyframe, offset, begin, packet.duration * tick if packet.duration else None)


def _flags(demuxed: Sequence[_Demuxed], stream: Stream) -> list[int]:
    """Of H.264, only IDR pictures count as keys: decoding that begins at other ones need not be exact."""
    if stream.codec != "h264":
        return [KEY if d.key else 0 for d in demuxed]
    size = h264_length_size(stream.extradata)
    looked = [h264_flags(bytes(d.packet), size) for d in demuxed]
    return [KEY * (idr and d.key) | DISPOSABLE * free for (idr, free), d in zip(looked, demuxed, strict=True)]


def _decode(demuxed: Sequence[_Demuxed], probes: frozenset[int], *, finish: bool) -> _Seen:
    """Decode all packets in the container's own context, each with its number as time stamp."""
    seen, resize = _Seen([], set(), {}), Resize(_PROBE_SIDE)
    try:
        for number, each in enumerate(demuxed):
            each.packet.pts = number
            _take(seen, each.packet.decode(), probes, resize)
        if finish and demuxed:
            _take(seen, demuxed[0].packet.stream.decode(None), probes, resize)
    except DamagedVideo as error:
        seen.reason = error.reason
    except (av.error.FFmpegError, OSError) as error:
        seen.reason = str(error)
    return seen


def _take(seen: _Seen, frames: Sequence[VideoFrame], probes: frozenset[int], resize: Resize) -> None:
    for frame in frames:
        if frame.is_corrupt:
            raise DamagedVideo("", "the decoder flags a frame as corrupt")
        if frame.pts in probes:
            seen.pictures[len(seen.packets)] = resize(frame)
        seen.packets.append(frame.pts)
        seen.looks.add(
            (frame.width, frame.height, hash(frame.format.name), frame.rotation, frame.colorspace, frame.color_range)
        )


def _probes(flags: Sequence[int]) -> frozenset[int]:
    """Packets whose frames are compared with random access: the first few, and those at keys spread over the video."""
    keys = [number for number, flag in enumerate(flags) if flag & KEY] or [0]
    chosen = {0, *(keys[place * (len(keys) - 1) // _PROBED_KEYS] for place in range(1, _PROBED_KEYS + 1))}
    return frozenset(key + further for key in chosen for further in range(3))


def _table(demuxed: Sequence[_Demuxed], flags: Sequence[int], seen: _Seen) -> Table | None:
    """None where packets and frames cannot be told apart, or frames do not all look alike."""
    known = [number for number in seen.packets if number is not None and 0 <= number < len(demuxed)]
    if len(set(known)) != len(seen.packets) or len(seen.looks) > 1 or not flags or not flags[0] & KEY:
        return None
    sizes = np.array([d.packet.size for d in demuxed], np.int32)
    owned, bits = set(known), np.array(flags, np.uint8)
    for number in range(len(bits)):  # half a picture, or one that never comes out, is not left out alone
        if number not in owned:
            bits[max(0, number - 1) : number + 1] &= ~np.uint8(DISPOSABLE)
    return Table(sizes, bits, np.array(known, np.int32))


def _times(demuxed: Sequence[_Demuxed], seen: _Seen, rate: float) -> tuple[NDArray[np.float32], float]:
    """Seconds of each frame from the first, and of all; counted by the frame rate where packets have no times."""
    begins = [demuxed[n].begin if n is not None and n < len(demuxed) else None for n in seen.packets]
    known = [begin for begin in begins if begin is not None]
    if not known or len(known) < len(begins) or known != sorted(known):
        return np.arange(len(begins), dtype=np.float32) / np.float32(rate), len(begins) / rate
    last = seen.packets[-1]
    length = (demuxed[last].length if last is not None else None) or 1 / rate
    return np.array([begin - known[0] for begin in known], np.float32), known[-1] - known[0] + length


def _agrees(file: Path, stream: Stream, table: Table, packets: Sequence[memoryview], seen: _Seen) -> bool:
    """Whether random access gives the very pixels that decoding from the start gave, on the frames kept for that."""
    wanted = sorted(seen.pictures)
    try:
        found = read_packets(str(file), stream, table, lambda a, b: packets[a:b], wanted, _PROBE_SIDE, deblock=False)
    except DamagedVideo:
        return False
    return np.array_equal(found, np.stack([seen.pictures[k] for k in wanted]))


def _folder(file: Path, entry: Entry) -> Entry:
    """A folder of images: every image is a packet. Mixed JPEG and PNG are reached one by one all the same."""
    files = frame_files(file)
    kinds = {_image_codec(path) for path in files}
    good, reason = _good_images(file, len(files))
    sizes = np.array([path.stat().st_size for path in files[:good]], np.int32)
    table = Table(sizes, np.full(good, KEY, np.uint8), np.arange(good, dtype=np.int32))
    found = replace(entry, reason=reason, container="images", frames=good, table=table)
    if not good:
        return found
    with av.open(str(files[0]), metadata_errors="ignore") as image:
        width, height = image.streams.video[0].width, image.streams.video[0].height
    return replace(found, stream=Stream(kinds.pop() if len(kinds) == 1 else "", "", b"", width, height))


def _good_images(folder: Path, count: int) -> tuple[int, str]:
    """How many images decode before the first that does not, and what is wrong with that one."""
    try:
        read_frames(folder, range(count), _PROBE_SIDE)
    except DamagedVideo as error:
        reason = error.reason
    else:
        return count, ""
    for k in range(count):
        try:
            read_frames(folder, [*range(min(k, 1)), k], _PROBE_SIDE)
        except DamagedVideo:
            return k, reason
    return count, reason


def _image_codec(path: Path) -> str:
    with path.open("rb") as file:
        return "mjpeg" if file.read(2) == b"\xff\xd8" else "png"


def _tag(context: VideoCodecContext) -> str:
    """The container's four letters for the codec; empty where they are none."""
    try:
        text = str(context.codec_tag)
    except UnicodeDecodeError:
        return ""
    return text if text.isascii() and text.isprintable() else ""
