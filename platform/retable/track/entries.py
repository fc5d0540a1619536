"""One MLflow run as it should stand, as plain data, and the names and tags that views look for. No mlflow here."""

from __future__ import annotations

import colorsys
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from retable.study import identity
from retable.study.plan import Plan

FORMAT = 1
"""Part of every content hash: raised when entries are written differently, so that old ones are written again."""
NAME_LENGTH = 25  # the UI cuts longer run names
VALUE_LENGTH = 5000  # MLflow cuts tag values at 8000 and params at 6000 characters

KEY, KIND, CONTENT, CURVES = "retable.key", "retable.kind", "retable.content", "retable.curves"
CHECKED = "retable.checked"  # when a driver last found that it could write
REASON, NOTE, COLOR = "retable.reason", "mlflow.note.content", "mlflow.runColor"

Status = Literal["FINISHED", "FAILED", "RUNNING", "SCHEDULED", "KILLED"]
Files = dict[str, bytes]


@dataclass(frozen=True)
class Point:
    """One value of a metric at a step; ``after``: seconds since the run's start."""

    metric: str
    value: float
    step: int
    after: float


@dataclass(frozen=True)
class Dataset:
    """What a run was trained on; ``digest`` is the fingerprint's beginning (MLflow keeps 36 characters)."""

    name: str
    digest: str
    source: str


@dataclass(frozen=True)
class Entry:
    """One MLflow run as it should stand. ``first`` are tags that the first cell gives, kept by partial plans."""

    key: str
    name: str
    status: Status
    tags: dict[str, str]
    first: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    finals: dict[str, float] = field(default_factory=dict)
    curves: tuple[Point, ...] = ()
    seconds: float = 0.0
    files: Files = field(default_factory=dict)
    more_files: Callable[[], Files] | None = None
    dataset: Dataset | None = None

    @property
    def content(self) -> str:
        """Hash of the files."""
        return digest([FORMAT, *(f"{name} {len(data)} {digest(data)}" for name, data in sorted(self.files.items()))])


def digest(value: Any) -> str:
    """128 bits of a hash of bytes or of plain data, NaN included."""
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()[:32]


def variant(plan: Plan) -> str:
    """The profile's name, with a hash of the user's own settings where there are any: their rows stand side by side."""
    return plan.profile if not plan.settings else f"{plan.profile}-{identity.digest(dict(plan.settings), 6)}"


def run_name(label: str, seed: int) -> str:
    """``S = 4 · seed 0``; a long label is cut so that the seed stays in sight."""
    end = f" · seed {seed}"
    room = NAME_LENGTH - len(end)
    return (label if len(label) <= room else label[: room - 1].rstrip() + "…") + end


def color(row: int, seed: int) -> str:
    """A hex colour: one hue per row (golden angle, so that neighbours differ), lighter with the seed."""
    red, green, blue = colorsys.hls_to_rgb((0.6 + row * 0.381966) % 1, min(0.38 + 0.13 * (seed % 4), 0.8), 0.65)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def in_table(profile: str, table: str) -> str:
    """The tag that a seed run carries for a table that shows it."""
    return f"retable.in.{profile}.{table}"


def significant(value: float, digits: int = 4) -> float:
    """Rounded for people: MLflow's cells print every digit they get."""
    if value == 0 or not math.isfinite(value):
        return value
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))
