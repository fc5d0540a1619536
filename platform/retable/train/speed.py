"""How fast a network is on this machine. Nothing is trained: weights are random, which changes no time.

Both measurements make the same pass over the test videos :data:`PASSES` + 1 times; the first, which fills caches and
lets libraries choose their kernels, does not count. Arithmetic is what evaluation uses: float32, no TF32, one thread on
a CPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import groupby, islice

import torch
import torch.distributed as dist
from torch import nn

from retable.data.config import Protocol
from retable.data.loader import Batch
from retable.study.config import Config
from retable.train.evaluate import CROPS, evaluating, for_protocol, probabilities
from retable.train.job import Job, RunData
from retable.train.model import build_model, channels_last
from retable.train.process import gather, isolated

SEMANTICS = 1
"""Part of a measurement's id: raise it when something else is timed."""
PASSES = 5
VIDEOS = 100
"""Most videos of a pass."""


def measure(
    metric: str,
    config: Config,
    data: RunData,
    protocol: Protocol,
    *,
    device: str | torch.device = "cpu",
    rank: int = 0,
    world: int = 1,
) -> dict[str, float]:
    """The metric's median over the passes, with the lowest and highest, and what a pass was; the same on all ranks.

    ``videos_per_second``: the test loop from end to end, as scoring a run does it: batches from the loader (frames as
    the run reads them, usually from the cache of decoded ones), to the device, forward, softmax scores to the host, for
    every view of a video; over all ranks. ``ms_per_video``: one video at a time, from its decoded views in the host's
    memory to its scores there; reading, decoding and optical flow are not in it.

    Keys: the metric, ``<metric>.low``, ``<metric>.high``, ``passes``, ``videos`` (of a pass), ``views`` (of a video)
    and ``batch`` (views at once and rank).
    """
    place, views = torch.device(device), protocol.clips * CROPS[protocol.crops]
    batch = config.recipe.batch_size if metric == "videos_per_second" else CROPS[protocol.crops]
    with isolated(Job(config, 0), place), torch.inference_mode():
        model = for_protocol(build_model(config), config, protocol)
        model = (channels_last(model) if config.recipe.channels_last else model).to(place)
        with evaluating(model):
            if metric == "videos_per_second":
                found = _passes(lambda: _throughput(model, data, protocol, batch, place, rank, world))
            else:
                found = _passes(lambda: _latency(model, data, protocol, place))
    return {
        metric: statistics.median(found),
        f"{metric}.low": min(found),
        f"{metric}.high": max(found),
        "passes": float(PASSES),
        "videos": float(min(VIDEOS, len(data.videos("test")))),
        "views": float(views),
        "batch": float(batch),
    }


def _passes(once: Callable[[], float]) -> list[float]:
    once()
    return [once() for _ in range(PASSES)]


def _throughput(
    model: nn.Module, data: RunData, protocol: Protocol, batch: int, place: torch.device, rank: int, world: int
) -> float:
    """Videos per second of one pass over all ranks. A pass ends with the batch that completes its videos."""
    views = protocol.clips * CROPS[protocol.crops]
    most, done = -(-VIDEOS // world) * views, 0
    start = _together(world)
    for part in data.eval_batches("test", protocol, batch, rank=rank, world=world):
        probabilities(model, part, data, place).cpu()
        done += len(part.videos)
        if done >= most:
            break
    seconds = _together(world) - start
    return sum(gather(done, world)) / views / seconds


def _latency(model: nn.Module, data: RunData, protocol: Protocol, place: torch.device) -> float:
    """Mean milliseconds of the videos of one pass."""
    times = []
    for clips in islice(_by_video(data, protocol), VIDEOS):
        start = time.perf_counter()
        for part in clips:
            probabilities(model, part, data, place).cpu()
        times.append(time.perf_counter() - start)
    return 1000.0 * statistics.mean(times)


def _by_video(data: RunData, protocol: Protocol) -> Iterator[list[Batch]]:
    """What there is of one video after the other: its clips, each with its crops, or all of its features at once."""
    for _, parts in groupby(data.eval_batches("test", protocol, 1), key=lambda part: int(part.videos[0])):
        yield list(parts)


def _together(world: int) -> float:
    """The time when every rank has come here, seconds."""
    if world > 1:
        dist.barrier()
    return time.perf_counter()
