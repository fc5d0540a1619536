"""Verdicts: intervals, pairing, equivalence, order and multiplicity, against known values and against scipy."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from retable.report import verdict

ACCURACIES = st.lists(st.floats(0, 100), min_size=2, max_size=8)


def test_one_value_has_no_interval() -> None:
    found = verdict.summary([45.5])
    assert found is not None
    assert (found.n, found.mean, found.half_width) == (1, 45.5, None)
    assert verdict.summary([]) is None


def test_interval_of_two_values() -> None:
    found = verdict.summary([45.0, 46.0])
    assert found is not None
    assert found.mean == 45.5
    assert found.half_width == pytest.approx(12.706205 * 0.5, rel=1e-6)  # t(0.975, 1) x sd / sqrt(2)


@given(ACCURACIES)
def test_interval_is_scipys(values: list[float]) -> None:
    found = verdict.summary(values)
    assert found is not None
    assert found.half_width is not None
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    low, high = stats.t.interval(0.95, len(values) - 1, loc=found.mean, scale=error) if error else (found.mean,) * 2
    assert found.mean - found.half_width == pytest.approx(low, abs=1e-9)
    assert found.mean + found.half_width == pytest.approx(high, abs=1e-9)


def test_pairing_uses_common_seeds_only() -> None:
    found = verdict.paired({0: 50.0, 1: 52.0, 2: 99.0}, {0: 49.0, 1: 50.0, 7: 1.0})
    assert found is not None
    assert found.values == (1.0, 2.0)
    assert verdict.paired({0: 1.0}, {1: 1.0}) is None


def test_pairing_removes_what_seeds_share() -> None:
    ours, baseline = {s: 50.0 + s + 1 + s % 2 / 10 for s in range(4)}, {s: 50.0 + s for s in range(4)}
    found = verdict.paired(ours, baseline)
    assert found is not None
    p = verdict.p_not_zero(found.values)
    assert p is not None
    assert verdict.difference_words(found, p) == "higher"


def test_equivalence_needs_a_narrow_interval_not_just_a_near_mean() -> None:
    narrow = verdict.closeness([49.4, 49.5, 49.6], 49.5, 1.0)
    wide = verdict.closeness([46.0, 49.5, 53.0], 49.5, 1.0)
    assert narrow is not None
    assert wide is not None
    assert verdict.closeness_words(3, 1.0, narrow.p_within, narrow.p_beyond) == "reproduced within ±1"
    assert verdict.closeness_words(3, 1.0, wide.p_within, wide.p_beyond) == "undecided (n=3)"


def test_far_values_differ() -> None:
    far = verdict.closeness([40.0, 40.1, 40.2], 49.5, 1.0)
    assert far is not None
    assert verdict.closeness_words(3, 1.0, far.p_within, far.p_beyond) == "differs"


@given(ACCURACIES, st.floats(0, 100), st.floats(0.1, 10))
def test_equivalence_agrees_with_the_90_percent_interval(values: list[float], target: float, margin: float) -> None:
    found = verdict.closeness(values, target, margin)
    assert found is not None
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(stats.t.ppf(0.95, len(values) - 1)) * error
    slack = margin - (abs(mean - target) + half)
    if abs(slack) > 1e-6:
        assert (found.p_within < 0.05) == (slack > 0)


def test_a_difference_inside_the_margin_never_differs() -> None:
    found = verdict.closeness([50.0, 50.0, 50.0], 49.5, 1.0)
    assert found == verdict.Closeness(0.0, 1.0)


def test_one_value_is_not_tested() -> None:
    assert verdict.closeness([49.5], 49.5, 1.0) is None
    assert verdict.p_not_zero([1.0]) is None


@given(ACCURACIES)
def test_p_of_a_difference_is_scipys(values: list[float]) -> None:
    if float(np.std(values)) < 1e-6:
        return
    expected = float(stats.ttest_1samp(values, 0.0).pvalue)
    assert verdict.p_not_zero(values) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_equal_values_without_spread_are_no_difference() -> None:
    assert verdict.p_not_zero([0.0, 0.0]) == 1.0
    assert verdict.p_not_zero([1.0, 1.0]) == 0.0


@pytest.mark.parametrize("value", [1.6666666666666572, 1.0])
def test_two_seeds_that_agree_decide_nothing(value: float) -> None:
    """Scores of few videos move in steps, so that two seeds are equal by chance one time in twenty or so."""
    found = verdict.summary([value, value])
    assert found is not None
    assert verdict.difference_words(found, 0.0) == "undecided (n=2)"
    assert verdict.closeness_words(2, 1.0, 0.0, 1.0) == "undecided (n=2)"
    assert verdict.closeness_words(2, 1.0, 1.0, 0.0) == "undecided (n=2)"


def test_holm_steps_down() -> None:
    assert verdict.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert verdict.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(ps: list[float]) -> None:
    adjusted = verdict.holm(ps)
    assert all(a >= p for a, p in zip(adjusted, ps, strict=True))
    assert [a for _, a in sorted(zip(ps, adjusted, strict=True))] == sorted(adjusted)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=9, unique=True), st.randoms())
def test_tau_without_ties_is_scipys(values: list[int], rng: random.Random) -> None:
    other = rng.sample(range(100), len(values))
    a, b = np.array(values, dtype=float), np.array(other, dtype=float)
    assert verdict.kendall(a, b) == pytest.approx(float(stats.kendalltau(a, b).statistic))


def test_pairs_that_the_paper_ties_are_left_out() -> None:
    published = np.array([21.88, 21.88, 21.85])
    assert verdict.kendall(np.array([21.879, 21.881, 21.847]), published) == 1.0
    assert verdict.kendall(np.array([2.0, 1.0, 1.0]), published) == 0.5
    assert verdict.kendall(np.array([1.0, 2.0]), np.array([3.0, 3.0])) is None


PUBLISHED = {"s3": 46.0, "s4": 49.5, "s5": 48.0, "s6": 47.6}


def test_same_order_in_every_seed() -> None:
    ours = {row: {seed: value + seed for seed in range(3)} for row, value in PUBLISHED.items()}
    found = verdict.order(ours, PUBLISHED)
    assert found == verdict.Order(4, 1.0, ((0, 1.0), (1, 1.0), (2, 1.0)), 1.0, 1.0)
    assert verdict.order_words(found) == "same order"


def test_two_seeds_leave_an_order_undecided_and_one_says_nothing() -> None:
    two = verdict.order({row: {0: v, 1: v} for row, v in PUBLISHED.items()}, PUBLISHED)
    one = verdict.order({row: {0: v} for row, v in PUBLISHED.items()}, PUBLISHED)
    assert two is not None
    assert one is not None
    assert verdict.order_words(two) == "undecided (n=2)"
    assert (one.low, one.high, verdict.order_words(one)) == (None, None, None)


def test_order_bounds_span_the_seeds() -> None:
    ours = {"a": {0: 1.0, 1: 5.0}, "b": {0: 2.0, 1: 2.0}, "c": {0: 3.0, 1: 1.0}}
    found = verdict.order(ours, {"a": 1.0, "b": 2.0, "c": 3.0})
    assert found is not None
    assert dict(found.by_seed) == {0: 1.0, 1: -1.0}
    assert (found.low, found.high) == (-1.0, 1.0)


def test_order_of_many_seeds_is_the_same_each_time() -> None:
    rng = np.random.default_rng(0)
    ours = {row: {seed: float(v + rng.normal()) for seed in range(6)} for row, v in PUBLISHED.items()}
    found = verdict.order(ours, PUBLISHED)
    assert found is not None
    assert found == verdict.order(ours, PUBLISHED)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.tau <= found.high


def test_no_order_of_one_row_or_of_equal_published_values() -> None:
    assert verdict.order({"a": {0: 1.0}, "b": {}}, {"a": 1.0, "b": 2.0}) is None
    assert verdict.order({"a": {0: 1.0}, "b": {0: 2.0}}, {"a": 1.0, "b": 1.0}) is None
