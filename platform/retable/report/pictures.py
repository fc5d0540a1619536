"""A model's maps of one view of a video as a picture: frames, attention over them, and weights of frames as bars."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""``(H, W, 3)`` uint8, RGB."""

CELL, LABEL, BAR, GAP = 112, 190, 70, 4  # pixels: a frame's side, the names' width, the bars' height, between them
INK, PAPER, BLUE = (30, 30, 30), (255, 255, 255), (70, 110, 190)


def picture(view: Mapping[str, NDArray[Any]]) -> Picture:
    """A row of frames, then a row for every map that speaks of frames: heat over them, or a bar for each.

    Args:
        view: of one view of a clip: ``input.<name>`` uint8 ``(T, H, W, C)``; ``maps.<name>`` of any shape. Heat is
            drawn from blue (the map's least value in the clip) to yellow (its greatest); bars start at zero.
    """
    inputs = {name.removeprefix("input."): shown(value) for name, value in view.items() if name.startswith("input.")}
    frames = inputs.get("rgb", next(iter(inputs.values())))
    rows = [_row(name, list(pixels)) for name, pixels in inputs.items()]
    for name, value in view.items():
        found = of_frames(value, len(frames)) if name.startswith("maps.") else None
        if found is not None:
            kind, numbers = found
            cells = _heat(frames, numbers) if kind == "heat" else _bars(numbers)
            rows.append(_row(name.removeprefix("maps."), cells))
    return np.concatenate(rows)


def save(drawn: Picture, file: Path) -> None:
    """Write a picture as PNG."""
    cv2.imwrite(str(file), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))


def of_frames(value: NDArray[Any], frames: int) -> tuple[Literal["heat", "bars"], NDArray[np.float64]] | None:
    """What a map says of each frame: heat ``(T, h, w)``, or a number ``(T,)``; None if it does not speak of frames.

    Channels are averaged, by magnitude; a map of fewer time steps holds for several frames each.
    """
    value = np.asarray(value, np.float64)
    if value.ndim == 2 and value.size == frames:  # segments x frames of a segment
        return "bars", value.reshape(-1)
    if value.ndim == 4 and value.shape[0] != frames:  # channels first
        value = value.swapaxes(0, 1)
    if value.ndim == 2 and value.shape[0] == 1:
        value = value.swapaxes(0, 1)
    elif value.ndim == 2 and value.shape[0] != frames:
        return None
    if value.ndim < 2 or value.ndim > 4 or frames % len(value):
        return None
    if value.ndim in (2, 4):
        value = np.abs(value).mean(axis=1)
    if value.ndim == 3 and min(value.shape[1:]) < 2:
        return None
    value = np.repeat(value, frames // len(value), axis=0)
    return ("heat" if value.ndim == 3 else "bars"), value


def shown(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An input ``(T, H, W, C)`` as ``(T, CELL, CELL, 3)``; of optical flow its magnitude, no motion white."""
    if pixels.shape[-1] != 3:
        fields = pixels.astype(np.float64) - 128.0
        size = np.hypot(fields[..., ::2], fields[..., 1::2]).mean(axis=-1)
        grey = 255 - 255 * size / max(size.max(), 1e-9)
        pixels = np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)
    return np.stack([cv2.resize(frame, (CELL, CELL), interpolation=cv2.INTER_NEAREST) for frame in pixels])


def _heat(frames: NDArray[np.uint8], heat: NDArray[np.float64]) -> list[Picture]:
    low, high = float(heat.min()), float(heat.max())
    shades = np.rint(255 * (heat - low) / max(high - low, 1e-12)).astype(np.uint8)
    cells = []
    for frame, shade in zip(frames, shades, strict=True):
        smooth = cv2.resize(shade, (CELL, CELL), interpolation=cv2.INTER_LINEAR)
        colours = cv2.cvtColor(cv2.applyColorMap(smooth, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
        cells.append(np.asarray(cv2.addWeighted(frame, 0.45, colours, 0.55, 0.0), np.uint8))
    return cells


def _bars(numbers: NDArray[np.float64]) -> list[Picture]:
    top = max(float(np.abs(numbers).max()), 1e-12)
    cells = []
    for number in numbers:
        cell = np.full((BAR, CELL, 3), PAPER, np.uint8)
        height = round((BAR - 18) * abs(float(number)) / top)
        cv2.rectangle(cell, (CELL // 4, BAR - height), (3 * CELL // 4, BAR - 1), BLUE, -1)
        _write(cell, f"{number:.3g}", (CELL // 4, BAR - height - 4))
        cells.append(cell)
    return cells


def _row(name: str, cells: list[Picture]) -> Picture:
    height = len(cells[0])
    label = np.full((height, LABEL, 3), PAPER, np.uint8)
    _write(label, name, (6, height // 2))
    gap = np.full((height, GAP, 3), PAPER, np.uint8)
    line = np.concatenate([label, *(part for cell in cells for part in (cell, gap))], axis=1)
    return np.concatenate([line, np.full((GAP, line.shape[1], 3), PAPER, np.uint8)])


def _write(where: Picture, text: str, at: tuple[int, int]) -> None:
    cv2.putText(where, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1, cv2.LINE_AA)
