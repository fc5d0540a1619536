"""CPU time, readers taking turns, medians over rounds: what a busy machine disturbs least."""

from __future__ import annotations

import resource
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from decoding.readers import BASE, Read

Jobs = Callable[[int], list[tuple[str, list[int]]]]
"""Videos (relative paths) and frames of a round."""


def cpu_seconds() -> float:
    """CPU time of this process, its threads, and the programs it ran."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in used)


@contextmanager
def stopwatch(into: list[float]) -> Iterator[None]:
    begun = cpu_seconds()
    yield
    into.append(cpu_seconds() - begun)


def compare(readers: dict[str, Read], root: Path, jobs: Jobs, rounds: int) -> dict[str, Any]:
    """Seconds of CPU a clip, by reader and round. Every round has its own frames; readers take turns at it.

    A reader reads the clips of a round one after the other, as a training does: at every clip anew it would pay for the
    caches that the others have emptied, the fastest most.
    """
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    faults: dict[str, str] = {}
    for number in range(rounds):
        names, clips = [name for name in readers if name not in faults], jobs(number)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            spent: list[float] = []
            try:
                for path, indices in clips:
                    with stopwatch(spent):
                        readers[name](root / path, indices)
            except Exception as error:
                faults[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            else:
                seconds[name].append(statistics.mean(spent))
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
        "seconds": [round(one, 6) for one in seconds],
    }
