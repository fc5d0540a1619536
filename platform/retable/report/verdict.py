"""What may be said of values over seeds. Pure statistics: seeds are the unit of replication, 95 % is the level.

Nothing is called reproduced because a difference is not significant: that takes a test of equivalence within a margin
that the study declares. One seed gives no interval; fewer than three give no verdict.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
ALPHA = 1 - LEVEL
FEWEST = 3
"""Seeds below which nothing is decided: scores of few videos move in steps, so two may agree by chance, and then no
variance is left to judge by."""
EXACT_SEEDS = 4
"""Up to so many seeds every bootstrap resample is enumerated; above, ``DRAWS`` are drawn with a fixed seed."""
DRAWS = 2000

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True)
class Summary:
    """Values over seeds. ``half_width`` is of the t-interval of the mean (ddof = 1); None for one value."""

    values: tuple[float, ...]
    mean: float
    half_width: float | None

    @property
    def n(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Closeness:
    """Two one-sided tests against a target: p values of *within the margin of it* and of *beyond the margin*."""

    p_within: float
    p_beyond: float


@dataclass(frozen=True)
class Order:
    """Kendall's tau between our order of the rows and the published one (see :func:`kendall`).

    ``tau`` is of the mean values; ``by_seed`` of each seed that every row has; ``low`` and ``high`` bound 95 % of the
    bootstrap over these seeds (None for fewer than two).
    """

    rows: int
    tau: float
    by_seed: tuple[tuple[int, float], ...]
    low: float | None
    high: float | None


def summary(values: Sequence[float]) -> Summary | None:
    """Mean and interval; None without values."""
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Summary(tuple(values), mean, None)
    return Summary(tuple(values), mean, float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * _error(values))


def paired(ours: Mapping[int, float], baseline: Mapping[int, float]) -> Summary | None:
    """Differences to the baseline over the seeds that both have."""
    return summary([ours[seed] - baseline[seed] for seed in sorted(ours.keys() & baseline.keys())])


def closeness(values: Sequence[float], target: float, margin: float) -> Closeness | None:
    """TOST: is the mean within ``margin`` of ``target``, or beyond it? None for fewer than two values."""
    if len(values) < 2:
        return None
    mean, error, df = math.fsum(values) / len(values), _error(values), len(values) - 1
    below = _p_greater(mean - (target - margin), error, df)  # small: the mean is above the lower margin
    above = _p_greater((target + margin) - mean, error, df)
    return Closeness(max(below, above), min(1.0, 2 * min(1 - below, 1 - above)))


def p_not_zero(differences: Sequence[float]) -> float | None:
    """Two-sided p value of a mean other than zero; None for fewer than two values."""
    if len(differences) < 2:
        return None
    mean, error = math.fsum(differences) / len(differences), _error(differences)
    return min(1.0, 2 * _p_greater(abs(mean), error, len(differences) - 1)) if mean or error else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the given order."""
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = worst
    return adjusted


def order(ours: Mapping[str, Mapping[int, float]], published: Mapping[str, float]) -> Order | None:
    """Agreement of the order of rows. ``ours``: row -> seed -> value; rows lacking either are left out.

    None where fewer than two rows are left, or where the paper prints the same value for all.
    """
    rows = [row for row in ours if ours[row] and row in published]
    if len(rows) < 2:
        return None
    target = np.array([published[row] for row in rows])
    tau = kendall(np.array([np.mean(list(ours[row].values())) for row in rows]), target)
    if tau is None:
        return None
    seeds = sorted(set.intersection(*(set(ours[row]) for row in rows)))
    table = np.array([[ours[row][seed] for row in rows] for seed in seeds])
    taus = ((seed, kendall(values, target)) for seed, values in zip(seeds, table, strict=True))
    by_seed = tuple((seed, value) for seed, value in taus if value is not None)
    low, high = _bootstrap(table, target) if len(seeds) > 1 else (None, None)
    return Order(len(rows), tau, by_seed, low, high)


def kendall(ours: Floats, published: Floats) -> float | None:
    """Kendall's tau over the pairs that ``published`` orders; None where it orders none.

    Pairs that the paper prints as equal say nothing of an order and are left out; pairs that ours ties count as half
    right (Somers' d of ours given published; without ties it is tau).
    """
    i, j = np.triu_indices(len(ours), k=1)
    wanted = np.sign(published[i] - published[j])
    ordered = int(np.count_nonzero(wanted))
    return float((np.sign(ours[i] - ours[j]) * wanted).sum()) / ordered if ordered else None


def decided(n: int, p: float) -> bool:
    """Whether an adjusted p value of so many seeds settles its question."""
    return n >= FEWEST and p < ALPHA


def closeness_words(n: int, margin: float, p_within: float, p_beyond: float) -> str:
    """The verdict against a published value, from adjusted p values."""
    if decided(n, p_within):
        return f"reproduced within ±{margin:g}"
    return "differs" if decided(n, p_beyond) else f"undecided (n={n})"


def difference_words(difference: Summary, p: float) -> str:
    """The verdict on a paired difference, from its adjusted p value."""
    if decided(difference.n, p):
        return "higher" if difference.mean > 0 else "lower"
    return f"undecided (n={difference.n})"


def order_words(found: Order) -> str | None:
    """The verdict on an order; None for one seed."""
    n = len(found.by_seed)
    if found.low is None or found.high is None:
        return None
    if n < FEWEST:
        return f"undecided (n={n})"
    if found.low == 1:
        return "same order"
    if found.low > 0:
        return "similar order"
    return "other order" if found.high < 0 else f"undecided (n={n})"


def _error(values: Sequence[float]) -> float:
    """Standard error of the mean."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))


def _p_greater(distance: float, error: float, df: int) -> float:
    """p value of *distance is above zero*."""
    if error == 0:
        return 0.0 if distance > 0 else 1.0
    return float(stats.t.sf(distance / error, df))


def _bootstrap(table: Floats, target: Floats) -> tuple[float | None, float | None]:
    """2.5 % and 97.5 % of tau over resampled seeds (``table``: seeds x rows), outwards to values that occur."""
    n = len(table)
    if n <= EXACT_SEEDS:
        picks = [list(p) for p in itertools.product(range(n), repeat=n)]
    else:
        rng = random.Random(0)
        picks = [rng.choices(range(n), k=n) for _ in range(DRAWS)]
    taus = sorted(tau for pick in picks if (tau := kendall(table[pick].mean(axis=0), target)) is not None)
    if not taus:
        return None, None
    low, high = math.floor(ALPHA / 2 * len(taus)), math.ceil((1 - ALPHA / 2) * len(taus)) - 1
    return taus[low], taus[high]
