"""Where training clips are cut: a window of the frame for one draw, as :class:`retable.data.config.Augment` says."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from retable.data.config import Augment

_ASPECTS = (math.log(3 / 4), math.log(4 / 3))


class Window(NamedTuple):
    """A rectangle of the frame, pixels."""

    top: int
    left: int
    height: int
    width: int


class Draw(NamedTuple):
    """One clip's numbers in [0, 1). All are drawn whether used or not, so that rows of a table see the same clips."""

    down: float
    right: float
    turn: float
    contrast: float
    scale: float
    aspect: float

    @classmethod
    def of(cls, rng: np.random.Generator) -> Draw:
        """The next six numbers of a generator."""
        return cls(*(float(x) for x in rng.random(6)))


def train_window(
    height: int, width: int, size: int, augment: Augment, draw: Draw, scales: tuple[float, ...] = (1.0,)
) -> Window:
    """The part of a ``height`` x ``width`` frame that becomes a training clip of ``size`` x ``size``.

    ``scales`` are those of ``augment.scales`` that go with the run's stream.
    """
    match augment.crop:
        case "center":
            return Window((height - size) // 2, (width - size) // 2, size, size)
        case "multi_scale":
            return _multi_scale(height, width, scales, draw)
        case "jitter":
            low, high = augment.jitter
            side = round(size / (low + draw.scale * (high - low)))
            tall = wide = min(max(1, side), height, width)
        case "area":
            tall, wide = _share(height, width, augment.area, draw)
        case "random":
            tall = wide = size
    return Window(int(draw.down * (height - tall + 1)), int(draw.right * (width - wide + 1)), tall, wide)


def _multi_scale(height: int, width: int, scales: tuple[float, ...], draw: Draw) -> Window:
    """One of the four corners or the centre; height and width at most one scale apart."""
    short = min(height, width)
    sides = [round(short * scale) for scale in scales]
    pairs = [(a, b) for (i, a), (j, b) in itertools.product(enumerate(sides), repeat=2) if abs(i - j) <= 1]
    tall, wide = pairs[int(draw.scale * len(pairs))]
    bottom, end = height - tall, width - wide
    places = [(0, 0), (0, end), (bottom, 0), (bottom, end), (bottom // 2, end // 2)]
    top, left = places[int(draw.down * len(places))]
    return Window(top, left, tall, wide)


def _share(height: int, width: int, area: tuple[float, float], draw: Draw) -> tuple[int, int]:
    """Height and width of a share of the frame; cut where the frame ends."""
    pixels = height * width * (area[0] + draw.scale * (area[1] - area[0]))
    aspect = math.exp(_ASPECTS[0] + draw.aspect * (_ASPECTS[1] - _ASPECTS[0]))
    tall, wide = round(math.sqrt(pixels / aspect)), round(math.sqrt(pixels * aspect))
    return min(max(1, tall), height), min(max(1, wide), width)
