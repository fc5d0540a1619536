"""The trials of a search as lines across its settings."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retable.report import style
from retable.report.searching.axes import WHOLE, color_bar, color_of, colors_of, label_of, metric_of
from retable.report.searching.searched import Json, choices_of, place


def parallel(data: Json, i: int) -> Figure | None:
    """Each trial as a line across its settings and its value."""
    trials = [t for t in data["trials"] if len(t["values"]) > i]
    if not trials:
        return None
    axes_ = [*data["axes"], {"path": metric_of(data, i), "scale": "linear", "choices": None}]
    figure = style.new(1.5 * len(axes_) + 1.4, 3.6)
    ax = figure.subplots()
    ax.grid(visible=False)
    whole = [t["values"][i] for t in trials if t["state"] in WHOLE] or [t["values"][i] for t in trials]
    scale = colors_of(whole)
    spans = [_span(axis, trials, i) for axis in axes_]
    up = data["objectives"][i]["direction"] == "maximize"
    ordered = sorted(trials, key=lambda t: (t["state"] in WHOLE, t["values"][i] if up else -t["values"][i]))
    for t in ordered:
        ys = [_height(axis, span, t, i) for axis, span in zip(axes_, spans, strict=True)]
        known = [(x, y) for x, y in enumerate(ys) if y is not None]
        color = color_of(t["values"][i], scale) if t["state"] in WHOLE else style.LIGHT
        best = t["number"] in data["best"]
        ax.plot(*zip(*known, strict=True), color=color, linewidth=2.6 if best else 1.1, zorder=4 if best else 2)
    _parallel_axes(ax, axes_, spans)
    if len(set(whole)) > 1:
        color_bar(figure, scale, ax, label_of(data, i))
    grey = " Grey: stopped early." if len(whole) < len(trials) else ""
    ax.set_title(f"One line per trial; the best is thick.{grey}", loc="left", color=style.GREY)
    return figure


def _parallel_axes(ax: Axes, axes_: Sequence[Json], spans: Sequence[tuple[float, float, list[str]]]) -> None:
    for x, (axis, (low, high, choices)) in enumerate(zip(axes_, spans, strict=True)):
        ax.plot([x, x], [0, 1], color=style.BLACK, linewidth=0.8, zorder=3)
        texts = choices or [_tick(_back(axis, low + share * (high - low))) for share in (0, 0.5, 1)]
        for k, text in enumerate(texts):
            y = k / (len(texts) - 1) if len(texts) > 1 else 0.5
            ax.text(
                x - 0.04, y, text, ha="right", va="center", fontsize=7, zorder=5,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
            )  # fmt: skip
    ax.set_xticks(range(len(axes_)), [axis["path"].replace(".", ".\n", 1) for axis in axes_])
    ax.set_yticks([])
    ax.set_xlim(-0.55, len(axes_) - 0.85)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.tick_params(length=0)


def _span(axis: Json, trials: Sequence[Json], i: int) -> tuple[float, float, list[str]]:
    choices = choices_of(axis, trials)
    if choices:
        return 0.0, max(1.0, len(choices) - 1.0), choices
    found = [x for t in trials if (x := _number(axis, t, i)) is not None]
    low, high = min(found, default=0.0), max(found, default=1.0)
    return low, high if high > low else low + 1, choices


def _number(axis: Json, trial: Json, i: int) -> float | None:
    if axis["path"] not in trial["point"]:
        return float(trial["values"][i]) if "." not in axis["path"] else None
    value = float(trial["point"][axis["path"]])
    return math.log10(value) if axis["scale"] == "log" else value


def _height(axis: Json, span: tuple[float, float, list[str]], trial: Json, i: int) -> float | None:
    low, high, choices = span
    if choices:
        value = trial["point"].get(axis["path"])
        if axis["path"] not in trial["point"]:
            return None
        return place(axis, value, choices) / (high - low) if len(choices) > 1 else 0.5
    number = _number(axis, trial, i)
    return None if number is None else (number - low) / (high - low)


def _back(axis: Json, value: float) -> float:
    return float(10**value) if axis["scale"] == "log" else value


def _tick(value: float) -> str:
    return f"{value:.3g}"
