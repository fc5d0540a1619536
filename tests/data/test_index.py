"""The index: what is really in each video; damage is a row, nothing hangs, nothing is half-written."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import struct
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from numpy.typing import NDArray

from retable.data import files, indexing
from retable.data.clips import open_clips
from retable.data.container import read_indexed
from retable.data.decode import count_frames, decode_all, read_frames
from retable.data.errors import DamagedVideo, DatasetError, DiskFull
from retable.data.examine import DIRECT, Entry, examine
from retable.data.files import alone
from retable.data.index import index_file, load_index
from retable.data.indexing import build_index
from retable.data.manifest import Manifest, open_dataset
from retable.data.workers import Lost

Numbers = Callable[[NDArray[np.uint8]], list[int]]
B_FRAMES = {"bf": "3", "preset": "veryfast"}


@pytest.fixture
def dataset(ucf_tree: Path) -> Manifest:
    return open_dataset("ucf101", ucf_tree)


def frame_by_frame(file: Path, entry: Entry) -> bool:
    """Whether every frame alone is what decoding from the start gives."""
    frames = decode_all(file, 24)
    singles = [read_indexed(file, entry, [k], 24)[0] for k in range(entry.frames)]
    return len(frames) == entry.frames and np.array_equal(np.stack(singles), frames)


# what is in a video


@pytest.mark.parametrize(("codec", "suffix", "options"), [("mpeg4", ".avi", {}), ("libx264", ".mp4", B_FRAMES)])
def test_one_frame_is_a_video(
    tmp_path: Path, write_video: Any, codec: str, suffix: str, options: dict[str, str]
) -> None:
    file = write_video(tmp_path / f"v{suffix}", 1, codec, options)
    entry = examine(tmp_path, file.name)
    assert (entry.frames, entry.access, entry.reason) == (1, DIRECT, "")
    assert entry.duration == pytest.approx(0.04)
    assert frame_by_frame(file, entry)


def numbered(path: Path, times: list[int], codec: str = "libx264", size: tuple[int, int] = (64, 48)) -> Path:
    """Frames shown at ``times`` (units of 1/100 s), of random pixels."""
    draw = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=100)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p" if size[0] % 2 == 0 else "yuv444p"
        stream.codec_context.options = dict(B_FRAMES)
        stream.codec_context.time_base = Fraction(1, 100)
        for pts in times:
            small = draw.integers(0, 255, (size[1] // 8 + 1, size[0] // 8 + 1, 3), np.uint8)
            picture = np.repeat(np.repeat(small, 8, 0), 8, 1)[: size[1], : size[0]]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = pts, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_variable_frame_rate_is_by_number_and_times_are_kept(tmp_path: Path) -> None:
    times = [0, 4, 8, 50, 54, 90, 91, 92, 200, 204]
    file = numbered(tmp_path / "v.mkv", times)
    entry = examine(tmp_path, "v.mkv")
    assert entry.frames == 10
    assert entry.times.tolist() == pytest.approx([t / 100 for t in times], abs=2e-3)
    assert frame_by_frame(file, entry)


def test_odd_sizes(tmp_path: Path) -> None:
    file = numbered(tmp_path / "v.mp4", list(range(12)), size=(65, 49))
    entry = examine(tmp_path, "v.mp4")
    assert (entry.stream.width, entry.stream.height) == (65, 49)
    assert frame_by_frame(file, entry)


def test_a_rotation_tag_is_applied_by_index_too(tmp_path: Path, write_video: Any) -> None:
    file = write_video(tmp_path / "v.mp4", 10, "libx264", B_FRAMES)
    content = bytearray(file.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # ISO 14496-12: version 0 header, 40 bytes before the 3 x 3 matrix
    content[matrix : matrix + 24] = struct.pack(">6i", 0, 1 << 16, 0, -1 << 16, 0, 0)  # a quarter turn clockwise
    file.write_bytes(content)
    entry = examine(tmp_path, "v.mp4")
    assert entry.stream.rotation % 360 == 270
    assert decode_all(file, 24).shape == (10, 32, 24, 3)
    assert frame_by_frame(file, entry)


def test_an_edit_list_that_begins_late_leaves_frames_out(tmp_path: Path, write_video: Any) -> None:
    file = write_video(tmp_path / "v.mp4", 50, "libx264", {"bf": "0"}, 25)
    content = bytearray(file.read_bytes())
    begin = content.index(b"elst") + 4 + 8 + 4  # version and flags, count; then duration, media time, rate
    scale = struct.unpack(">I", content[content.index(b"mdhd") + 16 :][:4])[0]
    content[begin : begin + 4] = struct.pack(">i", scale * 7 // 25)  # the film begins at frame 7
    file.write_bytes(content)
    entry = examine(tmp_path, "v.mp4")
    assert entry.frames == count_frames(file) < 50
    assert len(entry.table.sizes) == 50
    assert frame_by_frame(file, entry)


def test_a_webm_that_announces_no_frames_is_counted(tmp_path: Path, write_video: Any) -> None:
    file = write_video(tmp_path / "v.webm", 30, "libvpx-vp9", {"cpu-used": "8"})
    with av.open(str(file)) as container:
        assert container.streams.video[0].frames == 0
    assert examine(tmp_path, "v.webm").frames == 30


def test_colours_that_only_the_container_knows_are_kept(tmp_path: Path, write_video: Any) -> None:
    file = write_video(tmp_path / "v.mp4", 12, "libx264", {"bf": "0"})
    content = file.read_bytes()
    colour = struct.pack(">I4s4sHHHB", 19, b"colr", b"nclx", 1, 1, 1, 0)  # BT.709, limited range
    place = content.index(b"avcC") - 4
    place += struct.unpack(">I", content[place : place + 4])[0]
    grown = bytearray(content[:place] + colour + content[place:])
    for box in (b"avc1", b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        at = grown.index(box) - 4
        grown[at : at + 4] = struct.pack(">I", struct.unpack(">I", grown[at : at + 4])[0] + 19)
    file.write_bytes(grown)
    entry = examine(tmp_path, "v.mp4")
    assert entry.stream.colorspace == 1
    assert frame_by_frame(file, entry)


# damage


@pytest.mark.parametrize("content", [b"", b"no video at all" * 1000, random.Random(0).randbytes(5000)])
def test_what_is_no_video_is_a_row_with_a_reason(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.avi").write_bytes(content)
    entry = examine(tmp_path, "v.avi")
    assert (entry.frames, entry.content != "") == (0, True)
    assert entry.reason


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    assert examine(tmp_path, "v.mp4").reason == "no video stream in it"


def test_a_video_that_is_not_there_is_a_row_with_a_reason(tmp_path: Path) -> None:
    assert "No such file" in examine(tmp_path, "v.avi").reason


CUT = {
    "avi": (".avi", "mpeg4", {}),
    "mp4": (".mp4", "libx264", {"bf": "0"}),
    "mkv": (".mkv", "libx264", {"bf": "0"}),
    "webm": (".webm", "libvpx-vp9", {"cpu-used": "8"}),
}


@pytest.mark.parametrize("kind", CUT)
@pytest.mark.parametrize("inside", [0, 5])
def test_a_cut_off_video_is_damaged_and_keeps_its_first_frames(
    tmp_path: Path, write_video: Any, read_numbers: Numbers, kind: str, inside: int
) -> None:
    suffix, codec, options = CUT[kind]
    file = write_video(tmp_path / f"v{suffix}", 50, codec, options, container_options={"movflags": "faststart"})
    whole = examine(tmp_path, file.name)
    assert (whole.frames, whole.reason) == (50, "")
    file.write_bytes(file.read_bytes()[: int(whole.offsets[30]) + inside])
    entry = examine(tmp_path, file.name)
    assert entry.reason in ("the file is cut off", "a packet is cut off")
    assert entry.frames in (29, 30)
    last = entry.frames - 1
    assert read_numbers(read_indexed(file, entry, [last, 0], 24)) == [last, 0]
    with pytest.raises(DamagedVideo, match=f"frame {last + 1} was wanted but {last + 1} frames can be decoded"):
        read_indexed(file, entry, [last + 1], 24)
    with pytest.raises(DamagedVideo, match="is cut off"):
        count_frames(file)


def test_a_corrupt_middle_gives_exact_frames_or_an_error(
    tmp_path: Path, write_video: Any, read_numbers: Numbers
) -> None:
    file = write_video(tmp_path / "v.avi", 50)
    content = bytearray(file.read_bytes())
    third = examine(tmp_path, "v.avi")
    place = int(third.offsets[30])
    content[place : place + int(third.table.sizes[30])] = bytes(int(third.table.sizes[30]))
    file.write_bytes(content)
    entry = examine(tmp_path, "v.avi")
    assert entry.reason
    assert 20 < entry.frames <= 30
    assert read_numbers(read_indexed(file, entry, list(range(entry.frames)), 24)) == list(range(entry.frames))


# the dataset's index


def test_the_index_of_a_dataset(dataset: Manifest) -> None:
    told: list[tuple[int, int]] = []
    built = build_index(dataset, processes=1, progress=lambda done, total: told.append((done, total)))
    assert set(built) == {item.path for item in dataset.items(1)}
    assert set(built.column("status").values()) == {"ok"}
    assert set(built.column("frames").values()) == {12}
    assert built.damaged == {}
    assert told == [(n, 6) for n in range(1, 7)]
    again = load_index(index_file(dataset))
    assert again.table.equals(built.table)
    assert again.table.column("governing")[0].as_py() == again[next(iter(again))].table.governing.tolist()


def test_a_second_indexing_decodes_new_and_changed_videos_only(
    dataset: Manifest, monkeypatch: pytest.MonkeyPatch, write_video: Any
) -> None:
    first = build_index(dataset, processes=0)
    paths = list(first)
    os.utime(dataset.root / paths[0])
    write_video(dataset.root / paths[1], 7)
    seen: list[str] = []

    def spy(root: Path, path: str) -> Entry:
        seen.append(path)
        return examine(root, path)

    monkeypatch.setattr(indexing, "examine", spy)
    second = build_index(dataset, processes=0)
    assert seen == [paths[1]]
    assert second[paths[1]].frames == 7
    assert second[paths[0]].state != first[paths[0]].state
    assert second[paths[0]].frames == 12


def test_a_broken_off_indexing_is_taken_up_again(dataset: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def interrupted(root: Path, path: str) -> Entry:
        seen.append(path)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return examine(root, path)

    monkeypatch.setattr(indexing, "PART", 2)
    monkeypatch.setattr(indexing, "examine", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_index(dataset, processes=0)
    assert not index_file(dataset).exists()
    assert len(build_index(dataset, processes=0)) == 6
    assert len(seen) == 5 + 2
    assert sorted(p.name for p in index_file(dataset).parent.iterdir()) == ["index.parquet"]


def test_a_full_disk_keeps_what_is_done_and_leaves_nothing_half_written(
    dataset: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, calls = files.put, []

    def full(target: Path, content: Any) -> None:
        calls.append(target)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "no room")
        put(target, content)

    monkeypatch.setattr(indexing, "PART", 2)
    with monkeypatch.context() as patch:
        patch.setattr(indexing, "put", full)
        with pytest.raises(DiskFull, match="the index of ucf101 needs about"):
            build_index(dataset, processes=0)
    folder = index_file(dataset).parent
    assert not index_file(dataset).exists()
    assert len(list(folder.glob("*.parts/*.parquet"))) == 2
    assert list(folder.rglob("*.tmp")) == []
    assert len(build_index(dataset, processes=0)) == 6


def test_a_write_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no room"):
        files.put(tmp_path / "f", b"abc")
    assert list(tmp_path.iterdir()) == []


def test_two_indexers_at_once_are_told(dataset: Manifest) -> None:
    index_file(dataset).parent.mkdir(exist_ok=True)
    with (
        alone(index_file(dataset), "retable data index"),
        pytest.raises(DatasetError, match=rf"another retable data index is at it \(process {os.getpid()} on"),
    ):
        build_index(dataset, processes=0)
    assert len(build_index(dataset, processes=0)) == 6


def test_a_lock_that_its_holder_removes_does_not_let_two_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder goes between another's opening the lock file and locking it: that one must not keep the dead file."""
    flock, target, holder = fcntl.flock, tmp_path / "made", alone(tmp_path / "made", "first")
    holder.__enter__()

    def leaves_first(file: Any, how: int) -> None:
        monkeypatch.undo()
        holder.__exit__(None, None, None)
        flock(file, how)

    monkeypatch.setattr("fcntl.flock", leaves_first)
    with alone(target, "second"), pytest.raises(DatasetError, match="another third is at it"), alone(target, "third"):
        pass


def test_a_place_that_cannot_be_written_is_one_clear_line(dataset: Manifest, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"cannot write the index .*file/i\.parquet: .*--out"):
        build_index(dataset, file=tmp_path / "file" / "i.parquet", processes=0)


def test_a_folder_that_cannot_be_read_is_one_clear_line(dataset: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(root: Path, split: int) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(root))

    monkeypatch.setattr(dataset.layout.module, "read", denied)
    with pytest.raises(DatasetError, match=r"dataset ucf101: .*Permission denied"):
        build_index(dataset, processes=0)


def test_a_video_whose_process_is_lost_is_a_damaged_row(dataset: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    def each(work: Any, tasks: Any, **settings: Any) -> Any:
        assert settings["limit"] == 5.0
        return ((task, Lost("no end after 5 s: given up") if k == 2 else work(task)) for k, task in enumerate(tasks))

    monkeypatch.setattr(indexing, "each", each)
    built = build_index(dataset, limit=5.0)
    assert list(built.damaged.values()) == ["no end after 5 s: given up"]
    assert len(built) == 6


def test_a_video_that_changed_after_indexing_is_an_error_and_not_other_frames(
    dataset: Manifest, write_video: Any
) -> None:
    path = next(iter(build_index(dataset, processes=0)))
    clips = open_clips(dataset)
    assert clips.read(path, [0, 11], 24).shape == (2, 24, 32, 3)
    write_video(dataset.root / path, 20, first=100)
    os.utime(dataset.root / path, (time.time() + 5, time.time() + 5))
    with pytest.raises(DamagedVideo, match="written since it was indexed: run retable data index again"):
        clips.read(path, [0], 24)
    build_index(dataset, processes=0)
    assert open_clips(dataset).counts[path] == 20


def test_without_index_or_pack_there_is_a_way_out(dataset: Manifest) -> None:
    with pytest.raises(DatasetError, match="make one with retable data index ucf101"):
        open_clips(dataset)
    index_file(dataset).parent.mkdir(exist_ok=True)
    index_file(dataset).write_bytes(b"PAR1 and nothing more")
    with pytest.raises(DatasetError, match="is no index"):
        open_clips(dataset)
    assert len(build_index(dataset, processes=0)) == 6


def test_an_entry_survives_the_file(dataset: Manifest) -> None:
    built = build_index(dataset, processes=0)
    path = next(iter(built))
    fresh, kept = examine(dataset.root, path), built[path]
    for name in ("state", "content", "access", "stream", "frames", "duration", "container"):
        assert getattr(fresh, name) == getattr(kept, name)
    for name in ("sizes", "flags", "packet"):
        assert np.array_equal(getattr(fresh.table, name), getattr(kept.table, name))
    assert np.array_equal(fresh.offsets, kept.offsets)
    assert np.array_equal(fresh.times, kept.times)


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [(".avi", "mpeg4", {"bf": "2"}), (".mp4", "libx264", B_FRAMES), (".webm", "libvpx-vp9", {"cpu-used": "8"})],
)
def test_flipped_bytes_anywhere_give_exact_frames_or_an_error(
    tmp_path: Path, write_video: Any, suffix: str, codec: str, options: dict[str, str]
) -> None:
    file = write_video(tmp_path / f"v{suffix}", 30, codec, options)
    content, draw = file.read_bytes(), random.Random(0)
    for _ in range(12):
        broken = bytearray(content)
        for _ in range(draw.choice((1, 3, 20))):
            broken[draw.randrange(len(broken))] ^= draw.randrange(1, 256)
        file.write_bytes(broken)
        entry = examine(tmp_path, file.name)
        if entry.reason:
            with pytest.raises(DamagedVideo):
                count_frames(file)
        else:
            assert count_frames(file) == entry.frames
        if entry.frames:
            frames = read_frames(file, range(entry.frames), 24)
            singles = [read_indexed(file, entry, [k], 24)[0] for k in range(entry.frames)]
            assert np.array_equal(np.stack(singles), frames)
