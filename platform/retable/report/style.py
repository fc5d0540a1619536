"""How figures look: one palette that colour-blind readers tell apart, one set of sizes, files that do not change."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000",
)  # fmt: skip
"""Okabe and Ito, Color Universal Design (2008)."""
CYCLE = (BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK)
GREY = "#6b6b6b"
LIGHT = "#d9d9d9"
MAP = "cividis"
"""Even in lightness and the same to colour-blind readers."""
FORMATS = ("png", "svg")
RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "legend.fontsize": 8,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": GREY, "axes.linewidth": 0.8, "axes.grid": True, "grid.color": LIGHT, "grid.linewidth": 0.6,
    "axes.axisbelow": True, "legend.frameon": False, "lines.linewidth": 1.5, "figure.dpi": 100, "savefig.dpi": 200,
    "svg.hashsalt": "retable", "svg.fonttype": "path",
}  # fmt: skip


@contextmanager
def styled() -> Iterator[None]:
    """Everything drawn and saved inside looks alike; nothing outside is touched."""
    with mpl.rc_context(RC):
        yield


def new(width: float, height: float) -> Figure:
    """An empty figure, inches, laid out so that nothing overlaps; no window, no global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def encoded(figure: Figure, format_: str) -> bytes:
    """The figure as a file's bytes; the same figure gives the same bytes."""
    out = io.BytesIO()
    metadata = {"Date": None} if format_ == "svg" else {"Software": None}
    with styled():
        figure.savefig(out, format=format_, metadata=metadata)
    return out.getvalue()
