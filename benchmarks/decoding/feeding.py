"""What reading costs a training: batches by one and two data processes, and the share of data in a training step."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from decoding.clock import cpu_seconds
from torch.nn import functional as F

from retable import registry
from retable.data.config import Clip, Data
from retable.data.loader import Augment, RunData, open_run_data
from retable.data.manifest import Manifest
from retable.train.model import to_inputs

BATCH = 4
STEPS = {
    "tiny": ({"name": "msfnet", "msf": False, "width": 16}, Clip(frames=8, size=32, sampling="segments")),
    "full size": ({"name": "msfnet", "msf": False}, Clip(frames=8, size=112, sampling="segments")),
}
"""R3D-18 a quarter as wide on 32 x 32 pixels, and as published on 112 x 112; 8 frames, one from each segment."""


def opened(manifest: Manifest, clip: Clip, folder: Path, workers: int = 0) -> RunData:
    data = Data(dataset=manifest.name, num_classes=2, clip=clip)
    return open_run_data(
        manifest, data, augment=Augment(contrast=0.2), cache_dir=folder, cache_limit=0, loader_workers=workers
    )


def batches(run: RunData) -> Iterator[Any]:
    """Training batches without end."""
    for epoch in itertools.count():
        yield from run.train_batches(epoch, BATCH, seed=0)


def scaling(manifest: Manifest, folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Clips per second (of the clock on the wall) that one and two data processes deliver, taking turns."""
    streams = {n: batches(opened(manifest, STEPS["full size"][1], folder, n)) for n in (1, 2)}
    for stream in streams.values():
        for _ in range(8):  # starts the processes
            next(stream)
    rates: dict[int, list[float]] = {n: [] for n in streams}
    for _ in range(rounds):
        for n, stream in streams.items():
            for _ in range(2 * n):  # made while the other had its turn
                next(stream)
            begun, count = time.perf_counter(), 0
            while time.perf_counter() - begun < seconds:
                next(stream)
                count += BATCH
            rates[n].append(count / (time.perf_counter() - begun))
    medians = {n: statistics.median(found) for n, found in rates.items()}
    ratio = statistics.median(two / one for one, two in zip(rates[1], rates[2], strict=True))
    return {"clips_per_second": medians, "ratio": ratio}


def shares(sources: dict[str, Manifest], folder: Path, rounds: int) -> dict[str, Any]:
    """CPU milliseconds a clip of a training step, and of reading from each source, with its share of both."""
    found: dict[str, Any] = {}
    for name, (settings, clip) in STEPS.items():
        streams = {source: batches(opened(manifest, clip, folder)) for source, manifest in sources.items()}
        step = Step(settings, clip)
        spent: dict[str, list[float]] = {source: [] for source in [*sources, "step"]}
        for _ in range(rounds):
            for source, stream in streams.items():
                begun = cpu_seconds()
                batch = next(stream)
                spent[source].append(cpu_seconds() - begun)
            begun = cpu_seconds()
            step(batch.clips, batch.labels)
            spent["step"].append(cpu_seconds() - begun)
        ms = {source: 1000 * statistics.median(seconds) / BATCH for source, seconds in spent.items()}
        training = ms.pop("step")
        data = {source: {"ms": one, "share": one / (one + training)} for source, one in ms.items()}
        found[name] = {"step_ms": training, "data": data}
    return found


class Step:
    """One update of a network on one thread of a CPU."""

    def __init__(self, settings: dict[str, Any], clip: Clip) -> None:
        file = registry.load(str(settings["name"]))
        knobs = {key: value for key, value in settings.items() if key != "name"}
        config = file.config_class(**knobs, num_classes=2, frames=clip.frames, size=clip.size)
        self._inputs, self._model = file.inputs(config), file.build(config)
        self._optimiser = torch.optim.SGD(self._model.parameters(), lr=1e-3, momentum=0.9)

    def __call__(self, clips: dict[str, torch.Tensor], labels: torch.Tensor) -> None:
        inputs = to_inputs(clips, self._inputs, torch.device("cpu"))
        loss = F.cross_entropy(self._model(**inputs)["logits"], labels)
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        self._optimiser.step()
