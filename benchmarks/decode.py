"""How fast readers give exact frames: clips per CPU-second of the pack, the index, and what else there is.

Run: python benchmarks/decode.py [--clips 12] [--rounds 5]. Makes its corpora first (real encoders, painted motion),
then times all readers interleaved, round by round, on the same clips and frames, one process, decoder threads as each
reader's documentation teaches. torchcodec, decord, OpenCV and the ffmpeg program are compared where installed. Writes
benchmarks/results/decode.json and decode.md.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch.nn import functional as F

from retable.data.clips import Clips, open_clips
from retable.data.decode import count_frames, decode_all, target_size
from retable.data.examine import examine
from retable.data.indexing import build_index
from retable.data.manifest import Manifest, open_dataset
from retable.data.pack import build_pack

RESULTS = Path(__file__).parent / "results"
SHORT_SIDE = 128
BASE = "pyav-docs"
"""The reader that ratios are to."""
OURS = ("pack", "index")

Read = Callable[[Path, list[int]], Any]


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


# corpora


def make(corpus: Corpus, folder: Path, clips: int) -> Manifest:
    """``clips`` videos as a dataset of one's own: two classes, train and test in turn."""
    for number in range(clips):
        subset, name = ("train", "test")[number % 2], "ab"[number // 2 % 2]
        path = folder / subset / name / f"v{number:03d}{corpus.suffix}"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"partial-{path.name}")
            encode(corpus, temporary, seed=number)
            temporary.replace(path)
    return open_dataset(folder.name, folder)


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


# readers: (path, sorted frame numbers) -> frames at short side 128


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
    """decord's VideoReader at the target size, one thread."""
    module = importlib.import_module("decord")

    def read(path: Path, indices: list[int]) -> Any:
        first = module.VideoReader(str(path), num_threads=1)[0].shape
        width, height = target_size(first[1], first[0], SHORT_SIDE)
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


def peers() -> tuple[dict[str, Read], list[str]]:
    """Readers that are installed, and the names of those that are not."""
    found: dict[str, Read] = {BASE: pyav_docs}
    absent = []
    for name, load in PEERS.items():
        try:
            found[name] = load()
        except (ImportError, OSError, RuntimeError):
            absent.append(name)
    return found, absent


# measuring


def tsn(frames: int, draw: np.random.Generator) -> list[int]:
    """One random frame from each of eight segments."""
    return [int((k + draw.random()) * frames / 8) for k in range(8)]


def dense(frames: int, draw: np.random.Generator) -> list[int]:
    """Eight frames in a row."""
    first = int(draw.integers(0, frames - 7))
    return list(range(first, first + 8))


SAMPLINGS = {"tsn8": tsn, "dense8": dense}


def cpu_seconds() -> float:
    """CPU time of this process, its threads, and the programs it ran."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in used)


@contextmanager
def stopwatch(into: list[float]) -> Iterator[None]:
    begun = cpu_seconds()
    yield
    into.append(cpu_seconds() - begun)


def compare(readers: dict[str, Read], jobs: Callable[[int], list[tuple[Path, list[int]]]], rounds: int) -> Any:
    """Seconds of CPU a clip, by reader and round. Every round has its own frames; readers take turns at each clip."""
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    faults: dict[str, str] = {}
    for number in range(rounds):
        spent: dict[str, list[float]] = {name: [] for name in readers}
        for turn, (path, indices) in enumerate(jobs(number)):
            names = [name for name in readers if name not in faults]
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                try:
                    with stopwatch(spent[name]):
                        readers[name](path, indices)
                except Exception as error:
                    faults[name] = f"{type(error).__name__}: {error}".splitlines()[0]
        for name in readers:
            if name not in faults:
                seconds[name].append(statistics.mean(spent[name]))
    rows = {name: summary(values, seconds[BASE]) for name, values in seconds.items() if name not in faults}
    return {"readers": rows, "faults": faults}


def summary(seconds: list[float], base: list[float]) -> dict[str, Any]:
    """Clips per CPU-second, and times faster than ``BASE``: medians over rounds, with lowest and highest ratio."""
    ratios = [b / s for s, b in zip(seconds, base, strict=True)]
    return {
        "clips_per_cpu_second": 1 / statistics.median(seconds),
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
    }


def measure(name: str, corpus: Corpus, folder: Path, clips: int, rounds: int) -> dict[str, Any]:
    """Everything about one corpus."""
    manifest = make(corpus, folder / f"folder-{name}", clips)
    index = build_index(manifest, processes=0)
    packed = folder / f"pack-{name}"
    shutil.rmtree(packed, ignore_errors=True)
    build_pack(manifest, index, packed)
    paths, root = [manifest.root / path for path in index], manifest.root
    found, absent = peers()
    readers = {**found, "index": ours(open_clips(manifest), root), "pack": ours(open_clips(packed), root)}
    wrong = sum(
        not np.array_equal(readers[reader](path, [0, 7, corpus.frames - 1]), every[[0, 7, corpus.frames - 1]])
        for path in paths[:3]
        for every in [decode_all(path, SHORT_SIDE)]
        for reader in OURS
    )
    result: dict[str, Any] = {"wrong": wrong, "absent": absent, "samplings": {}}
    for sampling, draw_frames in SAMPLINGS.items():

        def jobs(number: int, draw_frames: Any = draw_frames) -> list[tuple[Path, list[int]]]:
            draw = np.random.default_rng(number)
            return [(path, draw_frames(corpus.frames, draw)) for path in paths]

        compare({BASE: found[BASE], **{r: readers[r] for r in OURS}}, jobs, 1)  # warm caches
        result["samplings"][sampling] = compare(readers, jobs, rounds)
        for reader, row in result["samplings"][sampling]["readers"].items():
            print(f"{name} {sampling} {reader}: {row['clips_per_cpu_second']:.1f}, {row['ratio']:.2f}x", flush=True)
    indexing: list[float] = []
    counting: list[float] = []
    for path in paths:
        with stopwatch(indexing):
            examine(root, path.relative_to(root).as_posix())
        with stopwatch(counting):
            count_frames(path)
    result["index_ms"] = 1000 * statistics.median(indexing)
    result["decode_ms"] = 1000 * statistics.median(counting)
    return result


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "av": version("av"),
        "ffmpeg_libraries": av.ffmpeg_version_info,
    }


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    system = result["machine"]
    lines = [
        "# Reading frames",
        "",
        f"Clips per CPU-second at short side {SHORT_SIDE}, in brackets times {BASE}; medians of {result['rounds']}",
        f"rounds over {result['clips']} clips a corpus; {system['cpu']}, load {system['load_before']:.1f} before.",
        "Index: milliseconds of CPU a clip, beside a plain decode to the end.",
        "",
    ]
    columns = [BASE, *PEERS, *OURS]
    lines += [f"| corpus | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, corpus in result["corpora"].items():
        for sampling, found in corpus["samplings"].items():
            cells = [cell(found["readers"].get(column)) for column in columns]
            lines.append(f"| {name} {sampling} | {' | '.join(cells)} |")
    lines += ["", "| corpus | index, ms | decode, ms |", "|---|---|---|"]
    lines += [f"| {n} | {c['index_ms']:.1f} | {c['decode_ms']:.1f} |" for n, c in result["corpora"].items()]
    absent = sorted({name for corpus in result["corpora"].values() for name in corpus["absent"]})
    return "\n".join([*lines, "", f"Not installed, not measured: {', '.join(absent) or 'none'}.", ""])


def cell(row: dict[str, Any] | None) -> str:
    return "–" if row is None else f"{row['clips_per_cpu_second']:.1f} ({row['ratio']:.2f}x)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--corpora", nargs="*", default=list(CORPORA), choices=list(CORPORA))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "retable-bench-decode")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.perf_counter()
    result: dict[str, Any] = {"schema": 1, "machine": machine(), "clips": args.clips, "rounds": args.rounds}
    result["corpora"] = {
        name: measure(name, CORPORA[name], args.folder, args.clips, args.rounds) for name in args.corpora
    }
    result["seconds"] = time.perf_counter() - begun
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "decode.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.out / "decode.md").write_text(page(result))


if __name__ == "__main__":
    main()
