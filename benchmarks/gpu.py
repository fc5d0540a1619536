"""What a GPU does for retable's own training: each precision's accuracy and time, and whether reading videos keeps up.

Run: python benchmarks/gpu.py [--parts precision feeding] [--data FOLDER], on a machine with a GPU. Writes each result
to benchmarks/results/gpu.json as it comes; what is not measured again stays in it as it was.
``precision``: a laptop row of MSF-Net, the same seeds in float32, bfloat16 and float16, and float32 without
deterministic algorithms. ``feeding``: clips per second that data processes read, that the GPU trains on when a batch
lies ready, and both at once. Needs neither ray, optuna nor mlflow.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import torch
from decode import repeated
from decoding.corpora import CORPORA, make
from decoding.feeding import opened
from full_size import loss_of, machine
from torch import Tensor

from retable import registry
from retable.data.clips import pack_folder
from retable.data.config import Clip
from retable.data.generate import generate
from retable.data.indexing import build_index
from retable.data.loader import Batch, RunData, open_run_data
from retable.data.manifest import Manifest, dataset_folder, open_dataset
from retable.data.pack import build_pack
from retable.data.proxy import build_proxy
from retable.data.tier import Tier, proxy_name
from retable.study.config import Config
from retable.train.job import Job
from retable.train.loop import train
from retable.train.model import channels_last, to_device, to_inputs
from retable.workspace import Workspace, open_study

RESULTS = Path(__file__).parent / "results" / "gpu.json"
PRECISIONS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "fp32, not deterministic": {"recipe.deterministic": False},
    "bf16": {"recipe.precision": "bf16"},
    "fp16": {"recipe.precision": "fp16"},
}
CORPUS = "k400-gop12"
PROXY = Tier(128, 12)
NETWORKS: dict[str, tuple[str, dict[str, Any], int]] = {
    "MSF-Net's R3D-18, 112 x 112": ("msfnet", {"msf": False}, 112),
    "MAST, 224 x 224": ("mast", {"weights": "none"}, 224),
}
"""Model file, settings, size; both read eight frames, one from each segment."""

Found = tuple[str, dict[str, Any]]
"""What was measured, and the numbers."""


class Kept:
    """A sink that keeps the metrics of every epoch."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def epoch(self, epoch: int, metrics: dict[str, float], state: bytes, *, best: bool) -> None:
        self.epochs.append(metrics)

    def checkpoint(self, state: bytes) -> None:
        """Asked for by nobody."""

    def wants_stop(self) -> bool:
        return False


def precisions(asked: argparse.Namespace, root: str, processes: int) -> Iterator[Found]:
    """Top-1 of the last epoch by seed, milliseconds of an update, seconds of a run, largest memory, by precision."""
    workspace, loaded = Workspace.open(tempfile.mkdtemp(), root), open_study("msfnet")
    generate("motions-ucf101", dataset_folder("motions-ucf101", root))
    for name, settings in PRECISIONS.items():
        plan = workspace.plan(loaded, tables=("table2",), rows=("s4",), profile="laptop", settings=settings)
        (training,) = plan.trainings.values()
        one = partial(one_run, training.config, workspace, asked.device, min(4, processes))
        runs = [one(seed) for seed in range(asked.seeds)]
        yield name, {key: [run[key] for run in runs] for key in runs[0]}


def one_run(config: Config, workspace: Workspace, device: str, processes: int, seed: int) -> dict[str, float]:
    """A whole training, as ``retable run`` does it."""
    sink, begun = Kept(), time.perf_counter()
    data = open_run_data(
        workspace.dataset(config.data.dataset), config.data, augment=config.recipe, cache_dir=workspace.cache,
        loader_workers=processes,
    )  # fmt: skip
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    train(Job(config, seed), data, sink, device=device)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return {
        "top1": sink.epochs[-1]["test/top1"],
        "loss": sink.epochs[-1]["train/loss"],
        "update_ms": 1000 * median(epoch["step_seconds"] for epoch in sink.epochs[1:]),
        "seconds": time.perf_counter() - begun,
        "peak_bytes": peak,
    }


def feeding(asked: argparse.Namespace, root: str, processes: int) -> Iterator[Found]:
    """Clips per second of reading, training and both, by network and source of its videos."""
    corpus = make(CORPORA[CORPUS], Path(root) / f"folder-{CORPUS}", asked.videos, processes)
    manifest = repeated(corpus, 16 * asked.batch)
    index = build_index(manifest, processes=0)
    build_pack(manifest, index, pack_folder(manifest))
    small = manifest.root.with_name(proxy_name(manifest.name, PROXY))
    build_proxy(manifest, index, small, PROXY, processes=0)
    yield "conditions", {"corpus": CORPUS, "processes": processes, "batch": asked.batch}
    for name, (file, knobs, size) in NETWORKS.items():
        step = Step(file, knobs, size, asked.device)
        for source, one in {"pack": manifest, "proxy": open_dataset(small.name, small)}.items():
            if source == "pack" or size <= PROXY.short_side:
                rates = fed(one, step, size, Path(root) / "cache", asked.batch, processes, asked.seconds)
                yield f"{name}, {source}", rates


class Step:
    """One update of a full-size network in bfloat16, channels last."""

    def __init__(self, name: str, knobs: dict[str, Any], size: int, device: str) -> None:
        file, self._device = registry.load(name), torch.device(device)
        config = file.config_class(**knobs, num_classes=2, frames=8, size=size)
        self._inputs = file.inputs(config)
        self._model = channels_last(file.build(config)).to(self._device).train()
        self._optimiser = torch.optim.SGD(self._model.parameters(), lr=1e-4, momentum=0.9)

    def __call__(self, clips: dict[str, Tensor], labels: Tensor) -> None:
        inputs = to_inputs(clips, self._inputs, self._device, last=True)
        with torch.autocast(self._device.type, dtype=torch.bfloat16):
            loss = loss_of(self._model, inputs, to_device(labels, self._device))
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        self._optimiser.step()

    def wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def fed(
    manifest: Manifest, step: Step, size: int, cache: Path, size_of_batch: int, processes: int, seconds: float
) -> dict[str, float]:
    """Clips per second; ``of_the_slower``: both at once, as a share of the slower one alone."""
    clip = Clip(frames=8, size=size, sampling="segments")
    stream = endless(opened(manifest, clip, cache, processes), size_of_batch)
    batch = [next(stream) for _ in range(4)][-1]  # starts the processes

    def reads() -> None:
        next(stream)

    def trains() -> None:
        step(batch.clips, batch.labels)
        step.wait()

    def both() -> None:
        got = next(stream)
        step(got.clips, got.labels)

    works = {"reads": reads, "trains": trains, "both": both}
    rates = {name: size_of_batch * rate(work, seconds) for name, work in works.items()}
    return {**rates, "of_the_slower": rates["both"] / min(rates["reads"], rates["trains"])}


def endless(run: RunData, batch: int) -> Iterator[Batch]:
    for epoch in count():
        yield from run.train_batches(epoch, batch, seed=0)


def rate(work: Callable[[], None], seconds: float) -> float:
    """Calls per second over so many seconds, after three that do not count."""
    for _ in range(3):
        work()
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        work()
        done += 1
    return done / (time.perf_counter() - begun)


PARTS: dict[str, Callable[[argparse.Namespace, str, int], Iterator[Found]]] = {
    "precision": precisions,
    "feeding": feeding,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="cpu: only to try the script")
    parser.add_argument("--data", default=None, help="where videos are made; default: a temporary folder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--videos", type=int, default=64, help="of the corpus; each is in the dataset many times")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0, help="time of each rate")
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        print(f"no GPU here: nothing is measured, and {asked.results} stays as it is")
        return
    root, processes = asked.data or tempfile.mkdtemp(), max(1, (os.cpu_count() or 2) - 1)
    found = json.loads(asked.results.read_text(encoding="utf-8")) if asked.results.is_file() else {}
    found |= {"schema": 1, "machine": machine(asked.device)}
    for part in asked.parts:
        for name, measured in PARTS[part](asked, root, processes):
            print(part, name, measured, flush=True)
            found.setdefault(part, {})[name] = measured
            asked.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
