"""How fast readers give exact frames: clips per CPU-second of the pack, the index, the proxy, and what else there is.

Run: python benchmarks/decode.py [--corpora ucf-gop12 ...] [--clips 12] [--rounds 5]. Makes its corpora first (real
encoders, painted motion), then times all readers interleaved, round by round, on the same clips and frames, one
process, decoder threads as each reader's documentation teaches. torchcodec, decord, OpenCV and the ffmpeg program are
compared where they work (pip install '.[bench]'; torchcodec needs FFmpeg's shared libraries). Writes
benchmarks/results/decode.json and decode.md; corpora that are not measured this time keep their numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from decoding import feeding
from decoding.clock import compare, stopwatch
from decoding.corpora import CORPORA, Corpus, make
from decoding.page import page
from decoding.readers import SHORT_SIDE, Read, peers, versions

from retable.data.clips import Clips, open_clips, pack_folder
from retable.data.container import VideoFiles
from retable.data.decode import count_frames, decode_all
from retable.data.examine import examine
from retable.data.indexing import build_index
from retable.data.manifest import Manifest, open_dataset
from retable.data.pack import build_pack
from retable.data.proxy import build_proxy
from retable.data.tier import Tier, proxy_name

RESULTS = Path(__file__).parent / "results"
EXACT = ("pack", "index")
GOPS = (1, 12)
FED = "k400-gop12"
"""The corpus that the training steps read."""
FED_CLIPS = 96
"""Of these half are for training: an epoch long enough that several data processes have batches to make."""


def tsn(frames: int, draw: np.random.Generator) -> list[int]:
    """One random frame from each of eight segments."""
    return [int((k + draw.random()) * frames / 8) for k in range(8)]


def dense(frames: int, draw: np.random.Generator) -> list[int]:
    """Eight frames in a row."""
    first = int(draw.integers(0, frames - 7))
    return list(range(first, first + 8))


SAMPLINGS: dict[str, Callable[[int, np.random.Generator], list[int]]] = {"tsn8": tsn, "dense8": dense}


def measure(name: str, corpus: Corpus, folder: Path, clips: int, rounds: int) -> dict[str, Any]:
    """Everything about one corpus."""
    manifest = make(corpus, folder / f"folder-{name}", clips)
    proxies = derive(manifest)
    paths, root = sorted(build_index(manifest, processes=0))[:clips], manifest.root
    found, absent = peers()
    pack = open_clips(manifest)
    readers = {**found, "index": ours(index_of(manifest), root), "pack": ours(pack, root)}
    readers |= {f"proxy-gop{gop}": ours(open_clips(proxy), root) for gop, proxy in proxies.items()}
    result: dict[str, Any] = {
        "load_before": os.getloadavg()[0],
        "clips": clips,
        "rounds": rounds,
        "wrong": sum(wrong(readers[reader], root / path) for reader in EXACT for path in paths[:3]),
        "absent": absent,
        "megabytes": sizes(manifest, proxies),
        "samplings": {},
    }
    for sampling, draw_frames in SAMPLINGS.items():

        def jobs(number: int, draw_frames: Any = draw_frames) -> list[tuple[str, list[int]]]:
            draw = np.random.default_rng(number)
            return [(path, draw_frames(corpus.frames, draw)) for path in paths]

        compare(readers, root, lambda number, all_jobs=jobs: all_jobs(number)[:2], 1)  # warm caches and libraries
        result["samplings"][sampling] = compare(readers, root, jobs, rounds)
        for reader, row in result["samplings"][sampling]["readers"].items():
            print(f"{name} {sampling} {reader}: {row['clips_per_cpu_second']:.1f}, {row['ratio']:.2f}x", flush=True)
    return result | indexing(root, paths)


def derive(manifest: Manifest) -> dict[int, Manifest]:
    """The dataset's index, pack and proxies, made where they are not there; the proxies by length of their groups."""
    index = build_index(manifest, processes=0)
    build_pack(manifest, index, pack_folder(manifest))
    found = {}
    for gop in GOPS:
        name = proxy_name(manifest.name, Tier(SHORT_SIDE, gop))
        build_proxy(manifest, index, manifest.root.with_name(name), Tier(SHORT_SIDE, gop), processes=0)
        found[gop] = open_dataset(name, manifest.root.with_name(name))
    return found


def index_of(manifest: Manifest) -> Clips:
    """The videos by their index, though there is a pack."""
    return VideoFiles(manifest.root, build_index(manifest, processes=0))


def ours(clips: Clips, root: Path) -> Read:
    return lambda path, indices: clips.read(path.relative_to(root).as_posix(), indices, SHORT_SIDE)


def wrong(read: Read, path: Path) -> bool:
    """Whether a frame is not, pixel for pixel, what decoding from the start gives."""
    every = decode_all(path, SHORT_SIDE)
    chosen = [0, 7, len(every) - 1]
    return not np.array_equal(read(path, chosen), every[chosen])


def sizes(manifest: Manifest, proxies: dict[int, Manifest]) -> dict[str, float]:
    """Megabytes a clip of the pack and of the proxies."""
    packs = {"pack": open_clips(manifest)} | {f"proxy-gop{gop}": open_clips(proxy) for gop, proxy in proxies.items()}
    return {name: pack.card["bytes"] / pack.card["videos"] / 1e6 for name, pack in packs.items()}  # type: ignore[attr-defined]


def indexing(root: Path, paths: list[str]) -> dict[str, float]:
    """Milliseconds of CPU a clip to index it, and only to decode it to its end, taking turns."""
    spent: dict[str, list[float]] = {"index_ms": [], "decode_ms": []}
    for path in paths:
        with stopwatch(spent["index_ms"]):
            examine(root, path)
        with stopwatch(spent["decode_ms"]):
            count_frames(root / path)
    return {name: 1000 * statistics.median(seconds) for name, seconds in spent.items()}


def feed(folder: Path, clips: int, rounds: int, seconds: float) -> dict[str, Any]:
    """What reading costs a training, on one corpus."""
    manifest = repeated(make(CORPORA[FED], folder / f"folder-{FED}", clips), FED_CLIPS)
    sources = {"pack": manifest} | {f"proxy-gop{gop}": proxy for gop, proxy in derive(manifest).items()}
    load = os.getloadavg()[0]
    scaling = {name: feeding.scaling(one, folder / "cache", rounds, seconds) for name, one in sources.items()}
    steps = feeding.shares(sources, folder / "cache", rounds)
    return {"corpus": FED, "load_before": load, "loader": scaling, "steps": steps}


def repeated(manifest: Manifest, count: int) -> Manifest:
    """A dataset of ``count`` videos at least: these, under several names."""
    videos = [Path(path) for path in sorted(build_index(manifest, processes=0))]
    folder = manifest.root.with_name(f"{manifest.root.name}-repeated")
    for number in range(-(-count // len(videos))):
        for path in videos:
            link = folder / path.with_name(f"r{number:03d}-{path.name}")
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                os.link(manifest.root / path, link)
    return open_dataset(folder.name, folder)


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--corpora", nargs="*", default=[*CORPORA, "feeding"], choices=[*CORPORA, "feeding"])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn of a loader")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "retable-bench-decode")
    parser.add_argument("--make-only", action="store_true", help="make corpora, packs and proxies; measure nothing")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.make_only:
        for name in [name for name in args.corpora if name in CORPORA]:
            derive(make(CORPORA[name], args.folder / f"folder-{name}", args.clips))
        return
    target = args.out / "decode.json"
    result: dict[str, Any] = {"schema": 1, "machine": machine(), "corpora": {}}
    if target.is_file():  # of the same machine and libraries, or to be measured anew
        before = json.loads(target.read_text())
        result = before if before["machine"] == result["machine"] else result
    for name in args.corpora:
        if name == "feeding":
            result["feeding"] = feed(args.folder, args.clips, args.rounds, args.seconds)
        else:
            result["corpora"][name] = measure(name, CORPORA[name], args.folder, args.clips, args.rounds)
        args.out.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(result, indent=1) + "\n")
        (args.out / "decode.md").write_text(page(result))


if __name__ == "__main__":
    main()
