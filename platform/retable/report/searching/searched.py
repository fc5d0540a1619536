"""What the figures of a search show, as plain data: axes, trials, and the best so far beside a random order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import gammaln

from retable.report.searching.trials import best, curve
from retable.study.search_schema import Space
from retable.study.searches import Hunt
from retable.track.trials import TrialRecord

Json = dict[str, Any]
LEVEL = 0.95
REFERENCE = (
    "Random reference: the best of k of these same trials, drawn without replacement, each trained whole: mean and 95 %"
    " of the draws. The trials were chosen by the sampler, so random points of the space would do worse or as well."
)
STOPPED = "A trial that was stopped early counts in it with the value that it had when it was stopped."
ORDER = "Budget: epochs trained for the search, trials taken in the order of their numbers."


def figure_data(name: str, hunt: Hunt, trials: Sequence[TrialRecord], importance: Json | None) -> Json:
    """The data behind every figure of a search. ``importance``: its document, if there is one."""
    search = hunt.search
    valued = [t for t in trials if t.values]
    return {
        "schema": 1,
        "search": name,
        "study": hunt.study.study,
        "profile": hunt.profile,
        "objectives": [
            {"metric": g.metric, "direction": "maximize" if g.maximize else "minimize", "on": g.on}
            for g in search.goals
        ],
        "axes": [axis(path, space) for path, space in search.space.items()],
        "trials": [
            {"number": t.number, "state": t.state, "point": t.point, "values": list(t.values), "epochs": t.epochs}
            for t in valued
        ],
        "best": [t.number for t in best(search, trials)],
        "best_so_far": [{"spent": s, "trial": n, "value": v} for s, n, v in curve(search, trials)],
        "spent": sum(t.spent for t in trials),
        "random": random_reference(hunt, valued),
        "importance": importance,
        "footnotes": [ORDER, REFERENCE, *([STOPPED] if any(t.state == "pruned" for t in valued) else [])],
    }


def axis(path: str, space: Space) -> Json:
    """One searched path as an axis: ``linear``, ``log``, or ``choice`` with its values in order."""
    if space.choice is not None:
        return {"path": path, "scale": "choice", "choices": [word(v) for v in space.choice]}
    if space.subsets is not None:
        return {"path": path, "scale": "choice", "choices": None, "members": [word(v) for v in space.subsets]}
    return {"path": path, "scale": "log" if space.log_uniform is not None else "linear", "choices": None}


def word(value: Any) -> str:
    """A value of a choice as text."""
    return value if isinstance(value, str) else json.dumps(value)


def random_reference(hunt: Hunt, valued: Sequence[TrialRecord]) -> list[Json]:
    """Best of k random trials against their cost, for one objective; empty before some trial is whole."""
    whole = [t.epochs for t in valued if t.state in ("complete", "recorded")]
    if len(hunt.search.goals) > 1 or not whole:
        return []
    maximize = hunt.search.goals[0].maximize is not None
    each = max(whole)
    found = expected_best([t.values[0] for t in valued], maximize=maximize)
    return [{"spent": k * each, "mean": m, "low": lo, "high": hi} for k, (m, lo, hi) in enumerate(found, start=1)]


def expected_best(values: Sequence[float], *, maximize: bool) -> list[tuple[float, float, float]]:
    """Mean and middle 95 % of the best of k values drawn without replacement, for k = 1 .. n. Exact.

    The best of k is the i-th worst of n (1-based) with probability C(i - 1, k - 1) / C(n, k).
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    ordered = ordered if maximize else ordered[::-1]
    n, rank = len(ordered), np.arange(1, len(ordered) + 1)
    found = []
    for k in range(1, n + 1):
        possible = rank >= k
        logs = _log_choose(rank[possible] - 1, k - 1) - _log_choose(np.array(n), k)
        chance = np.zeros(n)
        chance[possible] = np.exp(logs)
        below = np.cumsum(chance)
        low = ordered[min(n - 1, int(np.searchsorted(below, (1 - LEVEL) / 2)))]
        high = ordered[min(n - 1, int(np.searchsorted(below, (1 + LEVEL) / 2)))]
        found.append((float(chance @ ordered), float(min(low, high)), float(max(low, high))))
    return found


def _log_choose(n: np.ndarray[Any, Any], k: int) -> np.ndarray[Any, Any]:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


def place(axis: Mapping[str, Any], value: Any, choices: Sequence[str]) -> float:
    """Where a value stands on its axis: a number, or the place of a choice."""
    return float(choices.index(word(value))) if axis["scale"] == "choice" else float(value)


def choices_of(axis: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """The values of a choice axis in order; of subsets, those that occur, by size."""
    if axis["choices"] is not None:
        return list(axis["choices"])
    seen = {word(t["point"][axis["path"]]): t["point"][axis["path"]] for t in trials if axis["path"] in t["point"]}
    if axis["scale"] != "choice":
        return []
    return sorted(seen, key=lambda text: (len(seen[text]), text))
