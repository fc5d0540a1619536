"""The figures of a search, drawn from :func:`retable.report.searching.searched.figure_data` and from nothing else."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retable.report import style
from retable.report.searching.axes import WHOLE, label_of, legend_above, metric_of, scale_axis
from retable.report.searching.pairs import contours
from retable.report.searching.parallel import parallel
from retable.report.searching.searched import Json, choices_of, place

METHODS = {"fanova": ("fANOVA", style.BLUE, "o"), "ped-anova": ("PED-ANOVA", style.RED, "s")}


def figures(data: Json) -> dict[str, Figure]:
    """Every figure that the data allows, by name. A search of several objectives has one set per objective."""
    found: dict[str, Figure] = {}
    goals = data["objectives"]
    with style.styled():
        for i, goal in enumerate(goals):
            end = f"-{goal['metric']}" if len(goals) > 1 else ""
            makers: dict[str, Callable[[Json, int], Figure | None]] = {
                "slice": slices, "contour": contours, "parallel": parallel, "importance": importance_figure
            }  # fmt: skip
            for name, make in makers.items():
                made = make(data, i)
                if made is not None:
                    found[f"{name}{end}"] = made
        made = budget(data)
        if made is not None:
            found["budget"] = made
    return found


def importance_figure(data: Json, i: int) -> Figure | None:
    """Each parameter's share by both methods, with its interval."""
    if data["importance"] is None:
        return None
    methods = data["importance"]["objectives"][i]["methods"]
    names = [e["parameter"] for e in methods["ped-anova"]["parameters"]]
    names = [e["parameter"] for e in methods["fanova"]["parameters"]] + [
        n for n in names if n in methods["fanova"]["left_out"]
    ]
    figure = style.new(6.5, 1.3 + 0.42 * len(names))
    ax = figure.subplots()
    for m, (method, (label, color, marker)) in enumerate(METHODS.items()):
        for entry in methods[method]["parameters"]:
            y = names.index(entry["parameter"]) + (m - 0.5) * 0.26
            x, low, high = entry["importance"], entry["low"], entry["high"]
            first = entry is methods[method]["parameters"][0]
            if low is not None:
                ax.plot([low, high], [y, y], color=color, linewidth=1.5, solid_capstyle="butt")
            ax.plot([x], [y], marker, color=color, markersize=5.5, label=label if first else None, linestyle="none")
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel(f"Share of importance for {metric_of(data, i)}, with 95 % of bootstrap resamples of trials")
    ax.grid(axis="y", visible=False)
    legend_above(figure)
    return figure


def slices(data: Json, i: int) -> Figure:
    """The objective against each searched setting."""
    axes_ = data["axes"]
    across = min(3, len(axes_))
    down = math.ceil(len(axes_) / across)
    figure = style.new(2.6 * across + 0.4, 2.4 * down + 0.4)
    panels = figure.subplots(down, across, sharey=True, squeeze=False)
    for panel, axis in itertools.zip_longest(panels.flat, axes_):
        if axis is None:
            panel.set_axis_off()
        else:
            _slice(panel, data, axis, i, labelled=axis is axes_[0])
    for row in panels:
        row[0].set_ylabel(label_of(data, i))
    legend_above(figure)
    return figure


def _slice(panel: Axes, data: Json, axis: Json, i: int, *, labelled: bool) -> None:
    trials = [t for t in data["trials"] if axis["path"] in t["point"] and len(t["values"]) > i]
    choices = choices_of(axis, trials)
    groups = (
        ("stopped early, last value", [t for t in trials if t["state"] not in WHOLE], "none", style.GREY, 4.5, "o"),
        ("whole", [t for t in trials if t["state"] in WHOLE], style.BLUE, style.BLUE, 4.5, "o"),
        ("best", [t for t in trials if t["number"] in data["best"]], style.ORANGE, style.BLACK, 10.0, "*"),
    )
    for label, group, face, edge, size, marker in groups:
        if group:
            xs = [place(axis, t["point"][axis["path"]], choices) + _jitter(axis, t) for t in group]
            ys = [t["values"][i] for t in group]
            panel.plot(
                xs, ys, marker, markerfacecolor=face, markeredgecolor=edge, markersize=size, markeredgewidth=0.8,
                label=label if labelled else None, linestyle="none", alpha=0.9, clip_on=False,
            )  # fmt: skip
    scale_axis(panel, axis, choices, "x")
    panel.set_xlabel(axis["path"])


def _jitter(axis: Json, trial: Json) -> float:
    """A fixed shift within a choice, so that trials do not hide each other."""
    return ((trial["number"] * 0.618034) % 1 - 0.5) * 0.4 if axis["scale"] == "choice" else 0.0


def budget(data: Json) -> Figure | None:
    """The best so far against the epochs spent, beside the same trials in random order."""
    if not data["best_so_far"]:
        return None
    figure = style.new(6.0, 3.4)
    ax = figure.subplots()
    reference = [p for p in data["random"] if p["spent"] <= max(data["spent"], data["random"][0]["spent"])]
    if reference:
        x = [p["spent"] for p in reference]
        low, high = [p["low"] for p in reference], [p["high"] for p in reference]
        ax.fill_between(x, low, high, step="post", color=style.LIGHT, linewidth=0, label="random order, 95 %")
        ax.step(x, [p["mean"] for p in reference], where="post", color=style.GREY, ls="--", label="random order, mean")
    xs = [p["spent"] for p in data["best_so_far"]]
    ys = [p["value"] for p in data["best_so_far"]]
    ax.step(
        [*xs, max(data["spent"], xs[-1])], [*ys, ys[-1]], where="post", color=style.BLUE, linewidth=2, label="search"
    )
    ax.plot(xs, ys, "o", color=style.BLUE, markersize=4)
    ax.set_xlabel("Budget spent (epochs)")
    ax.set_ylabel(f"Best {label_of(data, 0)}")
    ax.set_xlim(left=0)
    ax.legend(loc="lower right" if data["objectives"][0]["direction"] == "maximize" else "upper right")
    return figure
