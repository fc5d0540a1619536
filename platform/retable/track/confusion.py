"""Recorded scores class by class: a table of each, and the confusion matrix as CSV and as a small picture, without a
plotting library."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from html import escape

import numpy as np
from numpy.typing import NDArray

from retable.track.scores import Scores, confusion, per_class

CELL = 22  # pixels
MARGIN = 150  # pixels for the class names


def files(given: Mapping[str, bytes]) -> dict[str, bytes]:
    """For every ``scores/<view>.parquet`` among ``given`` the classes as ``per_class/<view>.csv``, and the confusion
    matrix as ``confusion/<view>.csv`` and ``.svg``."""
    found: dict[str, bytes] = {}
    for name, data in given.items():
        if name.startswith("scores/") and name.endswith(".parquet"):
            view = name.removeprefix("scores/").removesuffix(".parquet")
            scores = Scores.from_parquet(io.BytesIO(data))
            matrix = confusion(scores), scores.classes
            found |= {f"confusion/{view}.csv": to_csv(*matrix), f"confusion/{view}.svg": to_svg(*matrix)}
            found[f"per_class/{view}.csv"] = classes_csv(scores)
    return found


def classes_csv(scores: Scores) -> bytes:
    """One line per class: its videos, how many were right, accuracy and average precision in percent."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["class", "videos", "right", "accuracy", "average_precision", "taken_for"])
    writer.writerows(
        [c.name, c.videos, c.right, *("" if v is None else v for v in (c.accuracy, c.average_precision, c.taken_for))]
        for c in per_class(scores)
    )
    return out.getvalue().encode()


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
