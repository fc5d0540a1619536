"""Frame k is frame k: by the index over the container and from packets, over codecs, groups, B-frames, containers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from retable.data import examine as examine_module
from retable.data.container import read_indexed
from retable.data.decode import decode_all, read_frames
from retable.data.decoders import as_packet
from retable.data.examine import DIRECT, PACKETS, SEQUENTIAL, Entry, examine
from retable.data.packets import KEY, read_packets, spans

FRAMES = 50
VOP, GROUP, USER_DATA = b"\0\0\1\xb6", b"\0\0\1\xb3", b"\0\0\1\xb2"  # MPEG-4 part 2 start codes
Numbers = Callable[[NDArray[np.uint8]], list[int]]


@dataclass(frozen=True)
class Kind:
    """One way to write a video, and how its frames must be reached."""

    suffix: str
    codec: str
    gop: int = 12
    options: dict[str, str] = field(default_factory=dict)
    access: str = DIRECT


X264 = {"preset": "veryfast"}
KINDS = {
    "mpeg4-avi": Kind(".avi", "mpeg4"),
    "mpeg4-avi-one-key": Kind(".avi", "mpeg4", 250, {"sc_threshold": "1000000000"}),
    "mpeg4-avi-b": Kind(".avi", "mpeg4", 12, {"bf": "2"}),
    "mpeg4-mp4-b": Kind(".mp4", "mpeg4", 12, {"bf": "2"}),
    "h264-mp4": Kind(".mp4", "libx264", 12, X264 | {"bf": "0"}),
    "h264-mp4-b": Kind(".mp4", "libx264", 12, X264 | {"bf": "3"}),
    "h264-mp4-b-one-key": Kind(".mp4", "libx264", 250, X264 | {"bf": "3", "sc_threshold": "0"}),
    "h264-mp4-all-keys": Kind(".mp4", "libx264", 1, X264),
    "h264-mp4-open-groups": Kind(".mp4", "libx264", 12, X264 | {"bf": "3", "x264-params": "open-gop=1"}),
    "h264-mp4-refresh": Kind(".mp4", "libx264", 12, X264 | {"bf": "0", "x264-params": "intra-refresh=1"}),
    "h264-mkv-b": Kind(".mkv", "libx264", 12, X264 | {"bf": "3"}),
    "h264-mkv-open-groups": Kind(".mkv", "libx264", 12, X264 | {"bf": "3", "x264-params": "open-gop=1"}),
    "h264-avi": Kind(".avi", "libx264", 12, X264 | {"bf": "0"}),
    "h264-mkv-interlaced": Kind(".mkv", "libx264", 12, X264 | {"bf": "2", "x264-params": "tff=1"}),
    "h264-ts-b": Kind(".ts", "libx264", 12, X264 | {"bf": "3"}, PACKETS),
    "h264-bare-b": Kind(".264", "libx264", 12, X264 | {"bf": "3"}),
    "hevc-mkv-open-groups": Kind(".mkv", "libx265", 12, {"x265-params": "open-gop=1:bframes=3:log-level=none"}),
    "mpeg2-mkv-b": Kind(".mkv", "mpeg2video", 12, {"bf": "2"}),
    "mpeg2-mpg-b": Kind(".mpg", "mpeg2video", 12, {"bf": "2"}, PACKETS),
    "vp8-webm": Kind(".webm", "libvpx", 12, {"cpu-used": "8"}),
    "vp9-webm": Kind(".webm", "libvpx-vp9", 12, {"cpu-used": "8"}),
    "vp9-webm-one-key": Kind(".webm", "libvpx-vp9", 250, {"cpu-used": "8", "lag-in-frames": "16", "auto-alt-ref": "1"}),
}


@dataclass(frozen=True)
class Numbered:
    """A video of ``FRAMES`` numbered frames, its index entry, and its frames decoded from the start (short side 24)."""

    file: Path
    kind: Kind
    entry: Entry
    frames: NDArray[np.uint8]


@pytest.fixture(scope="module", params=KINDS)
def numbered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, write_video: Any) -> Numbered:
    kind = KINDS[request.param]
    file = write_video(tmp_path_factory.mktemp("v") / f"v{kind.suffix}", FRAMES, kind.codec, kind.options, kind.gop)
    return Numbered(file, kind, examine(file.parent, file.name), decode_all(file, 24))


def from_packets(file: Path, entry: Entry, indices: list[int]) -> NDArray[np.uint8]:
    """As the pack reads: packets as the demuxer gives them, without the file's own places."""
    with av.open(str(file)) as container:
        packets = [memoryview(bytes(p)) for p in container.demux(container.streams.video[0]) if p.size]
    return read_packets(file.name, entry.stream, entry.table, lambda a, b: packets[a:b], indices, 24)


def test_the_index_counts_frames_and_says_how_they_are_reached(numbered: Numbered) -> None:
    entry = numbered.entry
    assert (entry.frames, entry.reason, entry.access) == (FRAMES, "", numbered.kind.access)
    assert (entry.stream.width, entry.stream.height) == (64, 48)
    assert entry.duration == pytest.approx(FRAMES / 25)
    assert entry.times.tolist() == pytest.approx([k / 25 for k in range(FRAMES)], abs=1e-3)
    assert (entry.table.flags[entry.table.governing] & KEY).all()


def test_the_kinds_are_what_they_say(numbered: Numbered, request: pytest.FixtureRequest) -> None:
    name, table = request.node.callspec.params["numbered"], numbered.entry.table
    assert (list(table.packet) != sorted(table.packet)) == ("-b" in name or "open" in name or "interlaced" in name)
    assert ("one-key" in name) <= (int((table.flags & KEY).sum()) == 1)


def test_every_frame_alone_is_the_right_one_with_the_right_pixels(numbered: Numbered, read_numbers: Numbers) -> None:
    wrong = []
    for k in range(FRAMES):
        frame = read_indexed(numbered.file, numbered.entry, [k], 24)
        if read_numbers(frame) != [k] or not np.array_equal(frame[0], numbered.frames[k]):
            wrong.append(k)
    assert wrong == []


def test_every_frame_alone_comes_out_of_the_packets(numbered: Numbered) -> None:
    singles = [from_packets(numbered.file, numbered.entry, [k])[0] for k in range(0, FRAMES, 3)]
    assert np.array_equal(np.stack(singles), numbered.frames[::3])


def test_sparse_dense_repeated_and_unordered_frames_are_right(numbered: Numbered) -> None:
    draw = np.random.default_rng(0)
    sets = [[49, 0, 13, 13, 12, 37, 36, 48], list(range(20, 28)), list(range(FRAMES))]
    for wanted in [*sets, *(draw.integers(0, FRAMES, 8).tolist() for _ in range(12))]:
        assert np.array_equal(read_indexed(numbered.file, numbered.entry, wanted, 24), numbered.frames[wanted])
        assert np.array_equal(from_packets(numbered.file, numbered.entry, wanted), numbered.frames[wanted])


def test_a_frame_needs_no_packets_of_other_groups(write_video: Any, tmp_path: Path) -> None:
    file = write_video(tmp_path / "v.avi", FRAMES, "mpeg4", {"sc_threshold": "1000000000"}, 10)
    (span,) = spans(examine(tmp_path, "v.avi").table, [25])
    assert (span.first, span.stop) == (20, 26)
    assert [(s.first, s.stop) for s in spans(examine(tmp_path, file.name).table, [3, 25, 31])] == [
        (0, 4), (20, 26), (30, 32)
    ]  # fmt: skip


def pack_b_frames(source: Path, target: Path) -> None:
    """DivX's packed bitstream: a B-frame rides in the packet of the P-frame before it, and an empty one follows."""
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        packets = [bytes(p) for p in container.demux(container.streams.video[0]) if p.size]
        kinds = [p[p.index(VOP) + 4] >> 6 for p in packets]  # 0: I, 1: P, 2: B
        bits = "01" + "0" + "1" + "00000" + "1" + "0" + "01111"  # P, no whole second, 5 bits of time, "not coded"
        empty = VOP + int(bits, 2).to_bytes(2)
        riders = [*(p if kind == 2 else b"" for p, kind in zip(packets[1:], kinds[1:], strict=True)), b""]
        chunks = [empty if kind == 2 else p + r for p, r, kind in zip(packets, riders, kinds, strict=True)]
        place = min(chunks[0].index(VOP), chunks[0].index(GROUP))
        chunks[0] = chunks[0][:place] + USER_DATA + b"DivX503b1393p" + chunks[0][place:]
        for number, chunk in enumerate(chunks):
            packet = as_packet(chunk, number)
            packet.stream, packet.dts, packet.time_base = stream, number, Fraction(1, 25)
            packet.is_keyframe = kinds[number] == 0
            out.mux(packet)


def test_packed_b_frames_are_exact(tmp_path: Path, write_video: Any, read_numbers: Numbers) -> None:
    options = {"bf": "1", "b_strategy": "0", "sc_threshold": "1000000000"}
    pack_b_frames(write_video(tmp_path / "plain.avi", FRAMES, "mpeg4", options), tmp_path / "v.avi")
    entry, frames = examine(tmp_path, "v.avi"), decode_all(tmp_path / "v.avi", 24)
    assert read_numbers(frames) == list(range(FRAMES))
    assert (entry.access, entry.frames, int((entry.table.flags & KEY).sum())) == (DIRECT, FRAMES, 5)
    for k in range(FRAMES):
        assert np.array_equal(read_indexed(tmp_path / "v.avi", entry, [k], 24)[0], frames[k])


def test_random_access_that_would_differ_is_not_used(
    tmp_path: Path, write_video: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_video(tmp_path / "v.mp4", FRAMES, "libx264", X264 | {"bf": "0", "x264-params": "intra-refresh=1"})
    monkeypatch.setattr(examine_module, "h264_flags", lambda data, size: (True, False))  # any packet may be a key
    monkeypatch.setattr(examine_module, "_demuxed", _all_keys(examine_module._demuxed))
    entry = examine(tmp_path, "v.mp4")
    assert (entry.access, entry.frames, entry.reason) == (SEQUENTIAL, FRAMES, "")
    assert np.array_equal(read_indexed(file, entry, [7, 30], 24), read_frames(file, [7, 30], 24))


def _all_keys(demuxed: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: replace(demuxed(*args), key=True)


@pytest.mark.parametrize("name", ["ucf101_like.avi", "kinetics_like.mp4", "kinetics_demo.mp4"])
def test_real_clips_are_the_same_by_index_and_from_packets(name: str, tmp_path: Path) -> None:
    folder = os.environ.get("RETABLE_REAL_CLIPS")
    if not folder:
        pytest.skip("RETABLE_REAL_CLIPS is not set: no real clips to decode")
    file = tmp_path / name
    shutil.copyfile(Path(folder) / name, file)
    entry, frames = examine(tmp_path, name), decode_all(file, 24)
    assert (entry.frames, entry.access) == (len(frames), DIRECT)
    for wanted in ([len(frames) - 1, 0, 17, 100], list(range(40, 56)), list(range(3, len(frames), 20))):
        assert np.array_equal(read_indexed(file, entry, wanted, 24), frames[wanted])
        assert np.array_equal(from_packets(file, entry, wanted), frames[wanted])
