"""Every task gets an answer, also from processes that crash or hang."""

from __future__ import annotations

import math
import os
import time

import pytest

from retable.data.workers import Lost, each


@pytest.mark.parametrize("processes", [0, 2])
def test_every_task_is_answered(processes: int) -> None:
    assert sorted(each(math.sqrt, [1.0, 4.0, 9.0], processes=processes)) == [(1.0, 1.0), (4.0, 2.0), (9.0, 3.0)]


def test_no_tasks_need_no_process() -> None:
    assert list(each(math.sqrt, [], processes=2)) == []


def test_a_task_that_hangs_is_given_up_and_the_others_go_on() -> None:
    found = dict(each(time.sleep, [1e6, 0.0, 0.0], processes=1, limit=0.5))
    assert found[1e6] == Lost("no end after 0.5 s: given up")
    assert found[0.0] is None


def test_a_process_that_dies_costs_its_own_task_only() -> None:
    found = list(each(os._exit, [3, 4], processes=1))
    assert [task for task, _ in found] == [3, 4]
    assert all(isinstance(answer, Lost) and f"exit code {task}" in answer.reason for task, answer in found)


def test_a_fault_of_the_work_itself_is_raised() -> None:
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        list(each(math.sqrt, [-1.0], processes=1))
