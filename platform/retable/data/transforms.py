"""Crops, mirror and contrast on uint8 clips ``(T, H, W, 3)``. What is drawn is drawn once and holds for all frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
"""``(T, H, W, 3)`` uint8."""


def crop(frames: Frames, top: int, left: int, size: int) -> Frames:
    """The ``size`` x ``size`` window at (top, left) of every frame; a view.

    Raises:
        ValueError: the window does not lie inside the frames.
    """
    height, width = frames.shape[1:3]
    if not (0 <= top <= height - size and 0 <= left <= width - size):
        raise ValueError(f"crop {size} at ({top}, {left}) leaves a frame of {height} x {width}")
    return frames[:, top : top + size, left : left + size]


def crop_at(frames: Frames, size: int, down: float, right: float) -> Frames:
    """The crop whose corner lies at the shares ``down`` and ``right`` (in [0, 1)) of all corners that fit."""
    height, width = frames.shape[1:3]
    return crop(frames, int(down * (height - size + 1)), int(right * (width - size + 1)), size)


def center_crop(frames: Frames, size: int) -> Frames:
    """The middle crop; rounded towards the top left."""
    height, width = frames.shape[1:3]
    return crop(frames, (height - size) // 2, (width - size) // 2, size)


def three_crops(frames: Frames, size: int) -> list[Frames]:
    """Start, middle and end along the longer side, centred across it."""
    height, width = frames.shape[1:3]
    middle_y, middle_x = (height - size) // 2, (width - size) // 2
    if width >= height:
        return [crop(frames, middle_y, x, size) for x in (0, middle_x, width - size)]
    return [crop(frames, y, middle_x, size) for y in (0, middle_y, height - size)]


def ten_crops(frames: Frames, size: int) -> list[Frames]:
    """Four corners and the middle, then the mirror images of these five."""
    height, width = frames.shape[1:3]
    bottom, right = height - size, width - size
    five = [crop(frames, y, x, size) for y, x in ((0, 0), (0, right), (bottom, 0), (bottom, right))]
    five.append(center_crop(frames, size))
    return five + [mirror(view) for view in five]


def mirror(frames: Frames) -> Frames:
    """Horizontal mirror image; a view."""
    return frames[:, :, ::-1]


def negate_x(flow: Frames) -> Frames:
    """Flow stacks ``(T, H, W, 2 L)`` (x1, y1, x2, y2, ...; 128 is no motion) with the x displacements reversed.

    The byte v becomes 256 - v: no motion stays no motion, and only 0, the largest motion to the left, is changed by a
    step (to 255).
    """
    turned = flow.copy()
    turned[..., ::2] = _NEGATED[flow[..., ::2]]
    return turned


_NEGATED = np.minimum(256 - np.arange(256), 255).astype(np.uint8)


def contrast(frames: Frames, factor: float) -> Frames:
    """Scale the distance of every value to the clip's mean by ``factor``, rounded and clipped to 0..255."""
    mean = float(frames.mean())
    table: NDArray[np.uint8] = np.clip(np.rint(mean + factor * (np.arange(256) - mean)), 0, 255).astype(np.uint8)
    return np.asarray(table[frames])


CROPS: dict[Literal["center", "three", "ten"], Callable[[Frames, int], list[Frames]]] = {
    "center": lambda frames, size: [center_crop(frames, size)],
    "three": three_crops,
    "ten": ten_crops,
}
MIRRORED_VIEWS: dict[Literal["center", "three", "ten"], tuple[bool, ...]] = {
    "center": (False,),
    "three": (False,) * 3,
    "ten": (False,) * 5 + (True,) * 5,
}
"""Which of the views that ``CROPS`` returns are mirror images."""
