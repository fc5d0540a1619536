"""How hard the generated videos are: laptop MSF-Net under a few recipes, and what a single frame tells.

Run: python benchmarks/motions.py [--variant motions-ucf101] [--seeds 3]. Writes benchmarks/results/motions.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from retable import registry
from retable.data.config import Clip, Data, Protocol
from retable.data.generate import generate
from retable.data.loader import Augment, RunData, open_run_data
from retable.data.manifest import Manifest, fingerprint, open_dataset
from retable.data.variants import PAIRS
from retable.nn import IMAGENET

RESULTS = Path(__file__).parent / "results" / "motions.json"


@dataclass(frozen=True)
class Recipe:
    """One way to train: Adam at ``lr``, a tenth of it from epoch ``milestone`` on (0: never)."""

    sampling: str = "segments"
    lr: float = 1e-3
    epochs: int = 10
    milestone: int = 8
    flip: bool = True
    contrast: float = 0.2
    batch_size: int = 16


BASE = Recipe()
COMPARED = (BASE, replace(BASE, sampling="random_step"))
ONCE = (replace(BASE, milestone=0), replace(BASE, flip=False))
"""Measured with one seed only."""


class FrameNet(nn.Module):
    """A small 2-D network on the first frame of a clip."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = (3, 24, 48, 96)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in widths[1:])
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, rgb: Tensor) -> dict[str, Tensor]:
        x = rgb[:, 0]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        return {"logits": self.head(x.mean((2, 3)))}


def normalise(clips: dict[str, Tensor]) -> Tensor:
    """uint8 (B, T, H, W, 3) to float (B, T, 3, H, W)."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET.mean, IMAGENET.std))
    return (clips["rgb"].permute(0, 1, 4, 2, 3) / 255 - mean) / std


def open_data(manifest: Manifest, recipe: Recipe, cache: Path, *, frames: int = 8, split: int = 1) -> RunData:
    clip = Clip.model_validate({"frames": frames, "size": 32, "resize": 36, "sampling": recipe.sampling})
    data = Data(dataset=manifest.name, split=split, clip=clip)
    augment = Augment(flip="swap_labels" if recipe.flip else "off", contrast=recipe.contrast)
    return open_run_data(manifest, data, augment=augment, cache_dir=cache)


def fit(model: nn.Module, data: RunData, recipe: Recipe, seed: int) -> float:
    """Train in place; training accuracy of the last epoch, percent."""
    optimiser, hits = torch.optim.Adam(model.parameters(), lr=recipe.lr), 0
    model.train()
    for epoch in range(recipe.epochs):
        if recipe.milestone and epoch == recipe.milestone:
            optimiser.param_groups[0]["lr"] *= 0.1
        hits = 0
        for batch in data.train_batches(epoch, recipe.batch_size, seed=seed):
            logits = model(rgb=normalise(batch.clips))["logits"]
            optimiser.zero_grad()
            torch.autograd.backward(F.cross_entropy(logits, batch.labels))
            optimiser.step()
            hits += int((logits.argmax(1) == batch.labels).sum())
    return 100 * hits / (data.steps(recipe.batch_size) * recipe.batch_size)


@torch.inference_mode()
def score(model: nn.Module, data: RunData, clips: int = 1) -> tuple[Tensor, Tensor]:
    """Logits (N, clips, K) and labels (N,) of the test videos."""
    model.eval()
    batches = list(data.eval_batches("test", Protocol(clips=clips), 32))
    logits = torch.cat([model(rgb=normalise(b.clips))["logits"] for b in batches])
    return logits.reshape(-1, clips, logits.shape[1]), torch.cat([b.labels for b in batches])[::clips]


def msfnet_run(manifest: Manifest, recipe: Recipe, seed: int, cache: Path) -> dict[str, Any]:
    """One laptop run of MSF-Net with S = 4."""
    torch.manual_seed(seed)
    data = open_data(manifest, recipe, cache)
    file = registry.load("msfnet")
    config = file.config_class(width=24, size=32, frames=8, num_classes=len(data.classes), groups=4)
    model, started = file.build(config), time.process_time()
    train = fit(model, data, recipe, seed)
    logits, labels = score(model, data)
    right = (logits[:, 0].argmax(1) == labels).float()
    per_class = {name: round(100 * float(right[labels == k].mean()), 1) for k, name in enumerate(data.classes)}
    top1 = 100 * float(right.mean())
    result = {"seed": seed, "top1": top1, "train_top1": train, "cpu_seconds": time.process_time() - started}
    print(recipe, {k: round(v, 1) for k, v in result.items()}, flush=True)
    return {**result, "per_class": per_class}


def single_frame(manifest: Manifest, cache: Path, seeds: int) -> dict[str, Any]:
    """A frame network trained and tested on all splits: accuracy of choosing within each pair from one frame."""
    recipe, spots = replace(BASE, flip=False, epochs=20, milestone=16), 5
    hits: dict[str, list[float]] = {" / ".join(pair): [] for pair in PAIRS if set(pair) <= set(manifest.classes)}
    top1: list[float] = []
    for split in manifest.layout.splits:
        data = open_data(manifest, recipe, cache, frames=1, split=split)
        frames: list[Tensor] = []
        labels = torch.empty(0)
        for seed in range(seeds):
            torch.manual_seed(seed)
            model = FrameNet(len(data.classes))
            fit(model, data, recipe, seed)
            logits, labels = score(model, data, clips=spots)
            frames.append(logits)
        logits = torch.stack(frames)  # (seeds, N, spots, K)
        top1.append(100 * float((logits.argmax(-1) == labels[None, :, None]).float().mean()))
        for key in hits:
            a, b = (data.classes.index(name) for name in key.split(" / "))
            chosen = torch.where(logits[..., a] > logits[..., b], a, b)
            ours = (labels == a) | (labels == b)
            # one value per video: the share of its frames and seeds that were right; videos are the sample
            hits[key] += (chosen == labels[None, :, None])[:, ours].float().mean((0, 2)).tolist()
    pairs = {key: interval(values) for key, values in hits.items()}
    for key, value in pairs.items():
        print("single frame", key, value, flush=True)
    return {"top1": float(np.mean(top1)), "chance": 100 / len(manifest.classes), "pairs": pairs}


def interval(values: list[float]) -> dict[str, float]:
    """Mean and 95 % t-interval of percentages over videos."""
    percent = 100 * np.asarray(values)
    half = float(stats.t.ppf(0.975, len(percent) - 1) * percent.std(ddof=1) / math.sqrt(len(percent)))
    mean = float(percent.mean())
    return {"mean": mean, "low": mean - half, "high": mean + half, "videos": len(percent)}


def machine() -> dict[str, Any]:
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cpus": os.cpu_count(),
        "threads": 1,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "av": av.__version__,
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default="motions-ucf101")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "retable-bench")
    args = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    folder = generate(args.variant, args.folder / args.variant)
    generated = time.perf_counter() - started
    manifest, cache = open_dataset(args.variant, folder), args.folder / "cache"
    plans = [(recipe, args.seeds) for recipe in COMPARED] + [(recipe, 1) for recipe in ONCE]
    result = {
        "schema": 1,
        "variant": args.variant,
        "fingerprint": fingerprint(manifest, 1),
        "machine": machine(),
        "generate_seconds": generated,
        "single_frame": single_frame(manifest, cache, args.seeds),
        "msfnet": [
            {"recipe": asdict(recipe), "runs": [msfnet_run(manifest, recipe, seed, cache) for seed in range(seeds)]}
            for recipe, seeds in plans
        ],
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
