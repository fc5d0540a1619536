"""A confusion matrix of recorded scores as CSV and as a small picture, without a plotting library."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from html import escape

import numpy as np
from numpy.typing import NDArray

from retable.track.scores import Scores, confusion

CELL = 22  # pixels
MARGIN = 150  # pixels for the class names


def files(given: Mapping[str, bytes]) -> dict[str, bytes]:
    """A table and a picture for every ``scores/<view>.parquet`` among ``given``."""
    found: dict[str, bytes] = {}
    for name, data in given.items():
        if name.startswith("scores/") and name.endswith(".parquet"):
            stem = "confusion/" + name.removeprefix("scores/").removesuffix(".parquet")
            matrix = from_parquet(data)
            found |= {f"{stem}.csv": to_csv(*matrix), f"{stem}.svg": to_svg(*matrix)}
    return found


def from_parquet(data: bytes) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Counts ``(K, K)``, row = true class, column = predicted class, and the class names of a scores file."""
    scores = Scores.from_parquet(io.BytesIO(data))
    return confusion(scores), scores.classes


def to_csv(counts: NDArray[np.int64], classes: tuple[str, ...]) -> bytes:
    """One line per true class, one column per predicted class."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["true \\ predicted", *classes])
    writer.writerows([name, *row] for name, row in zip(classes, counts.tolist(), strict=True))
    return out.getvalue().encode()


def to_svg(counts: NDArray[np.int64], classes: tuple[str, ...]) -> bytes:
    """A picture: shade = share of the true class's videos, number = count; with more than 40 classes shades only."""
    k = len(classes)
    many = k > 40
    cell, margin = (6, 10) if many else (CELL, MARGIN)
    side = margin + k * cell + (10 if many else 50)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side} {side}" width="{side}" height="{side}"'
        ' font-family="sans-serif" font-size="10"><rect width="100%" height="100%" fill="white"/>'
    ]
    for i in range(k):
        for j in range(k):
            parts.append(_square(margin + j * cell, margin + i * cell, cell, shares[i, j], 0 if many else counts[i, j]))
        if not many:
            at, name = margin + (i + 0.7) * cell, escape(_short(classes[i]))
            parts.append(f'<text x="{margin - 5}" y="{at}" text-anchor="end">{name}</text>')
            parts.append(f'<text transform="translate({at},{margin - 5}) rotate(-60)">{name}</text>')
    if not many:
        parts.append(f'<text x="5" y="{side - 15}" fill="#666">rows: true class, columns: predicted class</text>')
    return "\n".join([*parts, "</svg>\n"]).encode()


def _square(x: float, y: float, cell: int, share: float, count: int) -> str:
    light = round(255 - 200 * float(share))
    square = f'<rect x="{x}" y="{y}" width="{cell}" height="{cell}" fill="rgb({light},{light},255)" stroke="#ddd"/>'
    if not count:
        return square
    ink = "white" if share > 0.6 else "black"
    return f'{square}<text x="{x + cell / 2}" y="{y + cell * 0.68}" text-anchor="middle" fill="{ink}">{count}</text>'


def _short(name: str) -> str:
    return name if len(name) <= 22 else name[:21] + "…"
