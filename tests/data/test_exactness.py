"""Frame k is frame k: by the index over the container and from packets, over codecs, groups, B-frames, containers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from retable.data.container import read_indexed
from retable.data.decode import decode_all, read_frames
from retable.data.examine import DIRECT, PACKETS, SEQUENTIAL, Entry, examine
from retable.data.packets import KEY, read_packets, spans

FRAMES = 50
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
    "mpeg4-avi-one-key": Kind(".avi", "mpeg4", 250),
    "mpeg4-avi-b": Kind(".avi", "mpeg4", 12, {"bf": "2"}),
    "mpeg4-mp4-b": Kind(".mp4", "mpeg4", 12, {"bf": "2"}),
    "h264-mp4": Kind(".mp4", "libx264", 12, X264 | {"bf": "0"}),
    "h264-mp4-b": Kind(".mp4", "libx264", 12, X264 | {"bf": "3"}),
    "h264-mp4-b-one-key": Kind(".mp4", "libx264", 250, X264 | {"bf": "3"}),
    "h264-mp4-all-keys": Kind(".mp4", "libx264", 1, X264),
    "h264-mp4-open-groups": Kind(".mp4", "libx264", 12, X264 | {"bf": "3", "x264-params": "open-gop=1"}),
    "h264-mp4-refresh": Kind(".mp4", "libx264", 12, X264 | {"bf": "0", "x264-params": "intra-refresh=1"}),
    "h264-mkv-b": Kind(".mkv", "libx264", 12, X264 | {"bf": "3"}),
    "h264-mkv-open-groups": Kind(".mkv", "libx264", 12, X264 | {"bf": "3", "x264-params": "open-gop=1"}),
    "h264-avi": Kind(".avi", "libx264", 12, X264 | {"bf": "0"}),
    "h264-mkv-fields": Kind(".mkv", "libx264", 12, X264 | {"bf": "2", "x264-params": "tff=1"}),
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
    """A video of ``FRAMES`` numbered frames, its index entry, and its frames decoded from the start at short side 24."""

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
