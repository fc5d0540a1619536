"""What an epoch adds up on one rank: losses, hits, time. Sums stay on the device until they are asked for."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class NonFiniteLoss(FloatingPointError):
    """The loss became NaN or infinite; ``epoch`` and ``step`` (the update within it) count from 0."""

    def __init__(self, epoch: int, step: int, value: float) -> None:
        super().__init__(epoch, step, value)
        self.epoch, self.step, self.value = epoch, step, value

    def __str__(self) -> str:
        return (
            f"the loss is {self.value} in update {self.step} of epoch {self.epoch} (both from 0):"
            " lower recipe.lr, set recipe.clip_grad, or train with recipe.precision fp32 or bf16"
        )


class Meter:
    """Sums of one epoch on one rank. ``saved`` are the sums of its part before an interruption."""

    def __init__(self, saved: Mapping[str, float] | None = None) -> None:
        self._saved = dict(saved or {})
        self._sums: dict[str, Tensor] = {}
        self._clips = 0
        self._update: list[Tensor] = []
        self.start()

    def start(self) -> None:
        """The epoch's time counts from here."""
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        self._lap, self._laps = self._wall, list[float]()

    def add(self, losses: Mapping[str, Tensor], logits: Tensor, labels: Tensor) -> None:
        """One micro-batch: mean losses by name (``loss`` is their total), ``(B, K)`` logits, ``(B,)`` labels."""
        clips = len(labels)
        self._clips += clips
        for name, value in losses.items():
            self._add(name, value.detach().double() * clips)
        self._add("correct", (logits.detach().argmax(dim=1) == labels).sum())
        self._update.append(losses["loss"].detach())

    def watch(self, watched: Mapping[str, Tensor], clips: int) -> None:
        """Numbers by name, each a mean over one micro-batch of ``clips``."""
        for name, value in watched.items():
            self._add(f"watched.{name}", value.detach().double() * clips)

    def check(self, epoch: int, step: int) -> None:
        """Refuse a non-finite loss in the micro-batches since the last check. Waits for the device.

        Raises:
            NonFiniteLoss: naming ``epoch`` and ``step``.
        """
        for value in [float(loss) for loss in self._update]:
            if not math.isfinite(value):
                raise NonFiniteLoss(epoch, step, value)
        self._update.clear()

    def lap(self) -> None:
        """An update is over: the time since the last one, waiting for data included, is its time."""
        now = time.perf_counter()
        self._laps.append(now - self._lap)
        self._lap = now

    def sums(self) -> dict[str, float]:
        """All sums so far, exact in float64, with those saved before an interruption."""
        return {
            **self._saved,
            **{name: float(value) for name, value in self._sums.items()},
            "clips": self._saved.get("clips", 0.0) + self._clips,
            "seconds": self._saved.get("seconds", 0.0) + time.perf_counter() - self._wall,
            "cpu_seconds": self._saved.get("cpu_seconds", 0.0) + time.process_time() - self._cpu,
        }

    def step_seconds(self) -> float:
        """Median time of an update since the start or the interruption, seconds."""
        return statistics.median(self._laps)

    def _add(self, name: str, value: Tensor) -> None:
        if name not in self._sums:  # goes on from the saved sum, so that additions happen in the uninterrupted order
            self._sums[name] = torch.tensor(self._saved.get(name, 0.0), dtype=torch.float64, device=value.device)
        self._sums[name] += value


def means(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The training metrics of an epoch from every rank's sums, added in rank order.

    ``train/loss`` and ``train/loss.<name>`` are means per clip, as are the numbers that were watched
    (``train/judged_false``, a share; ``train/lambda.2``), ``train/top1`` is percent, ``seconds`` is the slowest rank's
    wall time, ``cpu_seconds`` the processor time of all training processes.
    """
    total = {name: sum(part[name] for part in parts) for name in parts[0]}
    clips = total["clips"]
    losses = {f"train/{name}": value / clips for name, value in total.items() if name.split(".")[0] == "loss"}
    watched = {f"train/{n.removeprefix('watched.')}": v / clips for n, v in total.items() if n.startswith("watched.")}
    return {
        **losses,
        **watched,
        "train/top1": 100.0 * total["correct"] / clips,
        "seconds": max(part["seconds"] for part in parts),
        "cpu_seconds": total["cpu_seconds"],
    }
