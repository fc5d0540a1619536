"""Early stopping decisions: pure, logged, and the same after any interruption."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retable.execute.searching.asha import Decisions, rungs
from retable.study.search_schema import Scheduler

ASHA = Scheduler(kind="asha", eta=3)
MEDIAN = Scheduler(kind="median", min_epochs=2)

curves = st.lists(st.lists(st.integers(0, 5).map(float), min_size=9, max_size=9), min_size=1, max_size=8)


def heard(decisions: Decisions, values: list[list[float]], seed: int) -> None:
    """All trials' epochs in an arbitrary interleaving; a stopped trial is heard no more."""
    rng = random.Random(seed)
    at = [0] * len(values)
    while True:
        open_ = [t for t, curve in enumerate(values) if at[t] < len(curve) and decisions.stopped(t) is None]
        if not open_:
            return
        trial = rng.choice(open_)
        at[trial] += 1
        decisions.hear(trial, at[trial], values[trial][at[trial] - 1])


def test_rungs_grow_by_eta_and_leave_the_end_alone() -> None:
    assert rungs(ASHA, 10) == (1, 3, 9)
    assert rungs(replace_min(2), 18) == (2, 6)
    assert rungs(ASHA, 1) == ()


def replace_min(epochs: int) -> Scheduler:
    return Scheduler(kind="asha", eta=3, min_epochs=epochs)


def test_asha_lets_one_in_eta_go_on() -> None:
    decisions = Decisions(ASHA, 9)
    values = [50.0, 40.0, 60.0, 55.0, 70.0, 65.0, 10.0]
    went = [decisions.hear(t, 1, v) for t, v in enumerate(values)]
    # The best so far goes on; from six heard on also the second best.
    assert [d.go for d in went if d is not None] == [True, False, True, False, True, True, False]


def test_equal_values_go_on_together_and_nan_does_not() -> None:
    decisions = Decisions(ASHA, 9)
    found = [decisions.hear(t, 1, v) for t, v in enumerate([1.0, 1.0, float("nan"), 1.0])]
    assert [d.go for d in found if d is not None] == [True, True, False, True]


def test_the_median_rule_waits_for_peers_and_compares_best_with_means() -> None:
    decisions = Decisions(MEDIAN, 9)
    for trial, value in enumerate([10.0, 20.0, 30.0]):
        decision = decisions.hear(trial, 2, value)
        assert decision is not None
        assert decision.go
    low, middle = decisions.hear(3, 2, 19.0), decisions.hear(4, 2, 19.5)
    assert low is not None
    assert middle is not None
    assert (low.go, middle.go) == (False, True)  # medians of (10, 20, 30) and of (10, 19, 20, 30)


def test_nothing_is_decided_between_rungs_at_the_end_or_without_a_scheduler() -> None:
    assert Decisions(ASHA, 9).hear(0, 2, 1.0) is None
    assert Decisions(ASHA, 9).hear(0, 9, 1.0) is None
    assert Decisions(Scheduler(), 9).hear(0, 1, 1.0) is None


@pytest.mark.parametrize("rule", [ASHA, MEDIAN])
@given(values=curves, seed=st.integers(0, 99), cut=st.integers(0, 80))
def test_decisions_after_a_kill_are_those_of_a_driver_that_was_not_killed(
    rule: Scheduler, values: list[list[float]], seed: int, cut: int
) -> None:
    whole = Decisions(rule, 9)
    heard(whole, values, seed)
    log = whole.log
    again = Decisions.rebuilt(rule, 9, reversed(log[:cut]))
    for d in log:  # storage gives every recorded epoch again, those decided on before too
        assert again.hear(d.trial, d.epochs, d.value) == d
    assert again.log == log


@given(values=curves, seed=st.integers(0, 99))
def test_a_better_value_never_turns_go_into_stop(values: list[list[float]], seed: int) -> None:
    decisions = Decisions(ASHA, 9)
    heard(decisions, values, seed)
    for d in decisions.log:
        before = Decisions(ASHA, 9, decisions.log[: d.order])
        better = before.hear(d.trial, d.epochs, d.value + 1)
        assert better is not None
        assert better.go >= d.go
        assert replace(better, value=d.value, go=d.go) == d
