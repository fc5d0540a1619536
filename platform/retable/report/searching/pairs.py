"""The objective of a search over pairs of its settings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation

from retable.report import style
from retable.report.searching.axes import WHOLE, color_bar, color_of, colors_of, label_of, scale_axis
from retable.report.searching.searched import Json, choices_of, place

MOST_PAIRS = 6


def contours(data: Json, i: int) -> Figure | None:
    """The objective over pairs of settings, the most important ones first."""
    trials = [t for t in data["trials"] if t["state"] in WHOLE]
    pairs = list(itertools.combinations(_ranked(data, i), 2))[:MOST_PAIRS]
    if not pairs or len(trials) < 2:
        return None
    across = min(3, len(pairs))
    down = math.ceil(len(pairs) / across)
    figure = style.new(2.9 * across + 0.9, 2.7 * down + 0.2)
    panels = figure.subplots(down, across, squeeze=False)
    values = [t["values"][i] for t in trials]
    scale = colors_of(values)
    for panel, pair in itertools.zip_longest(panels.flat, pairs):
        if pair is None:
            panel.set_axis_off()
        else:
            _pair(panel, trials, pair[0], pair[1], i, scale)
    color_bar(figure, scale, list(panels.flat), label_of(data, i))
    return figure


def _pair(panel: Axes, trials: Sequence[Json], one: Json, other: Json, i: int, scale: Normalize) -> None:
    """Two choices: the mean of each field. Otherwise the trials as dots, on a surface where both are numbers."""
    both = [t for t in trials if one["path"] in t["point"] and other["path"] in t["point"]]
    here, there = choices_of(one, both), choices_of(other, both)
    x = np.array([place(one, t["point"][one["path"]], here) for t in both])
    y = np.array([place(other, t["point"][other["path"]], there) for t in both])
    z = np.array([t["values"][i] for t in both])
    if one["scale"] == other["scale"] == "choice":
        _fields(panel, x, y, z, (len(here), len(there)), scale)
    else:
        if "choice" not in (one["scale"], other["scale"]):
            _surface(panel, one, other, (x, y, z), scale)
        panel.scatter(x, y, c=z, cmap=style.MAP, norm=scale, s=26, edgecolors="white", linewidths=0.7, zorder=3)
    scale_axis(panel, one, here, "x")
    scale_axis(panel, other, there, "y")
    panel.set_xlabel(one["path"])
    panel.set_ylabel(other["path"])


def _fields(panel: Axes, x: Any, y: Any, z: Any, size: tuple[int, int], scale: Normalize) -> None:
    for a, b in itertools.product(range(size[0]), range(size[1])):
        inside = z[(x == a) & (y == b)]
        if len(inside):
            color = color_of(float(inside.mean()), scale)
            panel.fill([a - 0.5, a + 0.5, a + 0.5, a - 0.5], [b - 0.5, b - 0.5, b + 0.5, b + 0.5], color=color, lw=0)
            ink = "white" if sum(color[:3]) < 1.5 else "black"
            panel.text(a, b, f"{inside.mean():.1f}", ha="center", va="center", fontsize=7, color=ink)
    panel.grid(visible=False)


def _surface(panel: Axes, one: Json, other: Json, points: tuple[Any, Any, Any], scale: Normalize) -> None:
    x, y, z = points
    u, v = _unit(x, one), _unit(y, other)
    if len(u) >= 4 and np.linalg.matrix_rank(np.stack([u - u.mean(), v - v.mean()])) == 2:
        triangles = Triangulation(u, v).triangles  # neighbours are near as the eye sees it, not in raw numbers
        levels = np.linspace(scale.vmin or 0.0, scale.vmax or 1.0, 9)
        panel.tricontourf(Triangulation(x, y, triangles), z, levels=levels, cmap=style.MAP, norm=scale, alpha=0.55)
    panel.margins(0.06)


def _unit(x: Any, axis: Json) -> Any:
    shown = np.log10(x) if axis["scale"] == "log" else x
    return (shown - shown.min()) / ((shown.max() - shown.min()) or 1.0)


def _ranked(data: Json, i: int) -> list[Json]:
    """The axes, the most important first where that is known."""
    if data["importance"] is None:
        return list(data["axes"])
    shares: dict[str, float] = {}
    for entry in data["importance"]["objectives"][i]["methods"]["ped-anova"]["parameters"]:
        path = entry["parameter"].partition("[")[0]
        shares[path] = shares.get(path, 0.0) + entry["importance"]
    return sorted(data["axes"], key=lambda axis: -shares.get(axis["path"], 0.0))
