"""What the figures of a search share: axes of settings, colours of values, labels with units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from retable.report import style
from retable.report.searching.searched import Json

WHOLE = ("complete", "recorded")


def scale_axis(panel: Axes, axis: Json, choices: Sequence[str], which: str) -> None:
    """Logarithmic, or the names of the choices, on the x or y axis."""
    if axis["scale"] == "log":
        (panel.set_xscale if which == "x" else panel.set_yscale)("log")
    if axis["scale"] == "choice":
        long = which == "x" and sum(map(len, choices)) > 24
        (panel.set_xticks if which == "x" else panel.set_yticks)(
            range(len(choices)), choices, rotation=40 if long else 0, ha="right" if long or which == "y" else "center"
        )
        (panel.set_xlim if which == "x" else panel.set_ylim)(-0.5, len(choices) - 0.5)


def color_of(value: float, scale: Normalize) -> tuple[float, float, float, float]:
    """A value's colour as RGBA in [0, 1]."""
    r, g, b, a = ScalarMappable(scale, style.MAP).to_rgba(np.array(value))
    return float(r), float(g), float(b), float(a)


def metric_of(data: Json, i: int) -> str:
    """The i-th objective's name."""
    return str(data["objectives"][i]["metric"])


def label_of(data: Json, i: int) -> str:
    """The i-th objective with its unit and the videos it is taken on."""
    goal = data["objectives"][i]
    unit = {"params": "", "gmacs": " (1e9)"}.get(goal["metric"], " (%)")
    where = {"val": ", held-out videos", "test": ", test videos"}[goal["on"]] if unit == " (%)" else ""
    return f"{goal['metric']}{unit}{where}"


def legend_above(figure: Figure) -> None:
    """One legend for all panels, above them."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3)


def colors_of(values: Sequence[float]) -> Normalize:
    """The colour scale of some values; never empty."""
    return Normalize(min(values), max(values) if max(values) > min(values) else min(values) + 1)


def color_bar(figure: Figure, scale: Normalize, axes: Axes | Sequence[Axes], label: str) -> None:
    """The legend of the colours, beside the axes."""
    bar = figure.colorbar(ScalarMappable(scale, style.MAP), ax=axes, aspect=30, pad=0.03)
    bar.set_label(label)
    bar.outline.set_visible(False)
