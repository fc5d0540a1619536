"""Crops, mirror and contrast on uint8 clips ``(T, H, W, C)``. What is drawn is drawn once and holds for all frames."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from retable.data.windows import Window

Frames = NDArray[np.uint8]
"""``(T, H, W, 3)`` uint8."""


def crop(frames: Frames, top: int, left: int, size: int) -> Frames:
    """The ``size`` x ``size`` window at (top, left) of every frame; a view.

    Raises:
        ValueError: the window does not lie inside the frames.
    """
    return cut(frames, Window(top, left, size, size), size)


def cut(frames: Frames, window: Window, size: int) -> Frames:
    """The window of every frame, resized to ``size`` x ``size`` (bilinear) where it has another size.

    Flow keeps its values: a displacement stays in pixels of the frame that was cut (as TSN resizes flow images).

    Raises:
        ValueError: the window does not lie inside the frames.
    """
    top, left, tall, wide = window
    height, width = frames.shape[1:3]
    if not (0 <= top <= height - tall and 0 <= left <= width - wide):
        raise ValueError(f"crop {tall} x {wide} at ({top}, {left}) leaves a frame of {height} x {width}")
    frames = frames[:, top : top + tall, left : left + wide]
    if (tall, wide) == (size, size):
        return frames
    cv2 = _cv2()
    resized = [cv2.resize(frame, (size, size), interpolation=cv2.INTER_LINEAR_EXACT) for frame in frames]
    return np.stack(resized).reshape(len(frames), size, size, frames.shape[3])


@functools.cache
def _cv2() -> Any:
    cv2 = importlib.import_module("cv2")
    cv2.setNumThreads(1)  # a data process is one of many
    return cv2


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
