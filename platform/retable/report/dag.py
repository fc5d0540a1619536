"""A preview (:mod:`retable.report.preview`) for people: runs below those that they start from, sizes and times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console

from retable.report.searching.tuning import plan_lines

CELLS = 3
"""So many cells of a run are named, the others counted; ``--json`` has all."""


def show(seen: Mapping[str, Any], out: Console) -> None:
    """Print a preview."""
    for line in lines(seen):
        out.print(line, highlight=False, soft_wrap=True)


def lines(seen: Mapping[str, Any]) -> Iterator[str]:
    """A preview's lines."""
    totals = seen["totals"]
    yield (
        f"{seen['study']}, profile {seen['profile']}, seeds {', '.join(map(str, seen['seeds']))}: "
        f"{seen['cells']} cells, {seen['evaluations']} evaluations, {seen['trainings']} trainings, "
        f"{totals['runs']} runs"
    )
    yield from _tree(seen)
    for timed in seen["measurements"]:
        yield f"  {timed['run_id']}  measures {timed['metric']}  {timed['state']}  {_places(timed['cells'])}"
    yield from plan_lines(seen)
    for item in seen["unsupported"]:
        yield f"  not run, {item['reason']}: {', '.join(item['cells'])}"
    if seen["provisional"]:
        yield "  ids that begin with ~ are provisional: they become final when the dataset is at hand"
    for key, size in totals["cache_bytes"].items():
        yield f"decoded frames of {key}: {_bytes(size)}"
    sizes = list(totals["feature_bytes"].values())
    if sizes:
        yield f"features of {len(sizes)} runs: {_bytes(None if None in sizes else sum(sizes))}"
    yield f"checkpoints: about {_bytes(totals['checkpoint_bytes'])} while running and after"
    open_ones = sum(timed["state"] == "to measure" for timed in seen["measurements"])
    if seen["measurements"]:
        done = len(seen["measurements"]) - open_ones
        yield f"{done} speeds measured on this machine, {open_ones} to measure; nothing is trained for them"
    yield f"{totals['done']} runs done, {totals['to_run']} to run; {_time(totals)}"


def _tree(seen: Mapping[str, Any]) -> Iterator[str]:
    """Every run once, below the one that it starts from."""
    children: dict[str, list[Mapping[str, Any]]] = {}
    for run in seen["runs"]:
        for parent in run["parents"]:
            children.setdefault(parent, []).append(run)

    def below(run: Mapping[str, Any], depth: int) -> Iterator[str]:
        yield _line(run, depth)
        starting = children.get(run["run_id"], [])
        if starting:
            yield f"{'  ' * (depth + 1)}  {_given(run, starting, seen['totals']['feature_bytes'])}"
        for child in starting:
            yield from below(child, depth + 1)

    for run in seen["runs"]:
        if not run["parents"]:
            yield from below(run, 0)


def _line(run: Mapping[str, Any], depth: int) -> str:
    seconds = "" if run["seconds"] is None else f"  about {duration(run['seconds'])}"
    cells = _places(run["cells"]) or f"first stage of {_places(run['serves'])}"
    mark = f"{'  ' * depth}└ " if depth else ""
    return f"  {mark}{run['run_id']}  seed {run['seed']}  {run['state']}{seconds}  {cells}"


def _given(run: Mapping[str, Any], starting: Sequence[Mapping[str, Any]], sizes: Mapping[str, int | None]) -> str:
    """What a run hands on."""
    to = f"{len(starting)} runs that start from it" if len(starting) > 1 else "the run that starts from it"
    if all(child["use"] != "features" for child in starting):
        return f"its weights go to {to}"
    return f"its features ({_bytes(sizes.get(run['run_id']))}) go to {to}"


def _places(cells: Sequence[str]) -> str:
    more = f" and {len(cells) - CELLS} more" if len(cells) > CELLS else ""
    return ", ".join(cells[:CELLS]) + more


def _time(totals: Mapping[str, Any]) -> str:
    if not totals["to_run"]:
        return "nothing to wait for"
    if totals["seconds"] is not None:
        gpu = f", {totals['gpu_hours']:.1f} GPU-hours" if totals["gpu_hours"] else ""
        return f"about {duration(totals['seconds'])} of run time{gpu}, from recorded runs"
    if totals["runs_with_known_time"]:
        known = totals["runs_with_known_time"]
        return f"{duration(totals['seconds_of_known'])} for {known} of them; time of the others unknown"
    return "time unknown: nothing like them has been recorded yet"


def duration(seconds: float) -> str:
    """``90 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _bytes(size: float | None) -> str:
    if size is None:
        return "unknown, the dataset is not here"
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
