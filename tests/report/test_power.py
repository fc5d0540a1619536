"""How many seeds a difference would need, against published power tables and what must hold."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retable.report.power import MOST_SEEDS, least_seeds, needed_words, seeds_needed, t_power


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_of_a_paired_t_test_are_those_of_power_tables(effect: float, n: int) -> None:
    """G*Power 3.1, difference between two dependent means, two-sided, alpha 0.05, power 0.8."""
    assert least_seeds(effect, 0.05, 0.8) == n


def test_the_observed_difference_and_deviation_decide() -> None:
    found = seeds_needed([1.0, 3.0, 2.0])  # mean 2, sd 1
    assert found is not None
    assert found["sd"] == 1.0
    assert found["seeds"] == least_seeds(2.0, 0.05, 0.8)
    assert found["at_most"] > found["seeds"]


@pytest.mark.parametrize("values", [[], [1.0], [1.0, -1.0], [2.0, 2.0]])
def test_without_a_variance_or_a_difference_nothing_is_said(values: list[float]) -> None:
    assert seeds_needed(values) is None


def test_a_hopeless_difference_is_named_as_such() -> None:
    found = seeds_needed([1.0, -0.999])
    assert found is not None
    assert found["seeds"] is None
    assert str(MOST_SEEDS) in needed_words(found)


@given(st.floats(0.15, 5), st.integers(1, 10))
def test_more_tests_need_more_seeds_and_one_fewer_does_not_do(effect: float, tests: int) -> None:
    n = least_seeds(effect, 0.05 / tests, 0.8)
    fewer = least_seeds(effect, 0.05, 0.8)
    assert n is not None
    assert fewer is not None
    assert n >= fewer
    assert t_power(n, effect, 0.05 / tests) >= 0.8
    assert n == 2 or t_power(n - 1, effect, 0.05 / tests) < 0.8


@given(st.floats(0.01, 3), st.integers(2, 40))
def test_power_lies_between_the_level_and_one(effect: float, n: int) -> None:
    assert t_power(n, effect, 0.05) + 1e-9 >= 0.05
    assert t_power(n, effect, 0.05) <= 1
    assert math.isclose(t_power(n, effect, 0.05), t_power(n, -effect, 0.05))
