"""How many seeds a difference would need to be decided, from the variance that was observed. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from retable.report.verdict import ALPHA, FEWEST

POWER = 0.8
NOTHING = 1e-9
"""A standard deviation below this is rounding."""
MOST_SEEDS = 1000
SURE = 0.8
"""One-sided confidence that the true standard deviation is not above the one behind ``at_most``."""


def seeds_needed(differences: Sequence[float], *, tests: int = 1, power: float = POWER) -> dict[str, Any] | None:
    """Seeds at which a paired, two-sided t-test finds a difference such as this one with probability ``power``.

    The level is 0.05 / ``tests``, the strictest that Holm's adjustment over so many tests asks for. The difference and
    its standard deviation (ddof = 1) are taken as observed; ``at_most`` takes the standard deviation at its upper
    80 % confidence limit instead, since that of few seeds is known badly.

    Returns:
        ``{"seeds", "at_most", "sd", "alpha", "power"}``; ``seeds`` and ``at_most`` are None above ``MOST_SEEDS``. None
        for fewer than two values (no variance was observed), a mean of zero, or values that do not vary.
    """
    if len(differences) < 2:
        return None
    n, mean, sd = len(differences), abs(math.fsum(differences)) / len(differences), float(np.std(differences, ddof=1))
    if mean == 0 or sd < NOTHING:
        return None
    alpha = ALPHA / tests
    worst = sd * math.sqrt((n - 1) / float(stats.chi2.ppf(1 - SURE, n - 1)))
    return {
        "seeds": least_seeds(mean / sd, alpha, power),
        "at_most": least_seeds(mean / worst, alpha, power),
        "sd": sd,
        "alpha": alpha,
        "power": power,
    }


def least_seeds(effect: float, alpha: float, power: float) -> int | None:
    """The smallest n from ``FEWEST`` on at which the test of ``effect`` standard deviations has this power."""
    low, high = FEWEST, FEWEST + 1
    while t_power(high, effect, alpha) < power:
        low, high = high, 2 * high
        if low > MOST_SEEDS:
            return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if t_power(middle, effect, alpha) >= power else (middle + 1, high)
    return low if low <= MOST_SEEDS else None


def t_power(n: int, effect: float, alpha: float) -> float:
    """Power of the two-sided t-test of n paired differences: the noncentral t beyond the critical values."""
    df, shift = n - 1, abs(effect) * math.sqrt(n)
    critical = float(stats.t.ppf(1 - alpha / 2, df))
    found = float(stats.nct.sf(critical, df, shift) + stats.nct.cdf(-critical, df, shift))
    return found if math.isfinite(found) else float(stats.norm.sf(critical - shift))


def needed_words(needed: dict[str, Any]) -> str:
    """``about n=12 would decide`` for a person."""
    if needed["seeds"] is None:
        return f"more than n={MOST_SEEDS} needed"
    return f"about n={needed['seeds']} needed"


def needed_legend(table: dict[str, Any]) -> list[str]:
    """What the seeds needed rest on, for a table of the document that names some; or what they would need."""
    found = [to for row in table["rows"] for cell in row["cells"].values() if (to := cell["to_baseline"]) is not None]
    needed = [to["seeds_needed"] for to in found if to["seeds_needed"] is not None]
    if needed:
        levels = " or ".join(f"{alpha:.2g}" for alpha in sorted({each["alpha"] for each in needed}))
        return [
            f"Needed: seeds for a two-sided paired t-test at level {levels} (0.05 over the tests of the table) with"
            f" power {POWER:g}, if the difference and its variance over these seeds were the true ones."
        ]
    if found and all(to["n"] < 2 for to in found):
        return ["Needed: not known. One seed shows no variance; two or more do."]
    return []
