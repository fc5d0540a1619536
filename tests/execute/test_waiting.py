"""What is said of runs that wait for resources: after a while, what they ask for and what there is."""

from __future__ import annotations

import io
from typing import Any

import pytest
import ray
from rich.console import Console

from retable.execute import waiting
from retable.execute.driver import run_study
from retable.execute.waiting import Group, Patience, groups, sentence, stuck
from retable.workspace import Workspace
from tests.execute.small import study

ONE = Group(1, {"CPU": 1.0}, given=False)
TWO = Group(2, {"CPU": 1.0}, given=False)


def given(group: Group) -> Group:
    return Group(group.workers, group.each, given=True)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ([], []),
        ([given(ONE), ONE, ONE], []),
        ([ONE, ONE], [ONE]),
        ([given(ONE), TWO, ONE], [TWO]),
        ([given(TWO)], []),
    ],
    ids=["nothing", "its turn", "all wait", "workers wait", "all have"],
)
def test_runs_that_wait_for_each_other_say_nothing(seen: list[Group], said: list[Group]) -> None:
    assert stuck(seen) == said


def test_a_wait_is_told_with_what_is_asked_and_what_there_is() -> None:
    assert (
        sentence(TWO, {"CPU": 1.0}, {"CPU": 1.0})
        == "waiting for resources: 2 CPUs (2 workers x 1) are asked for, 1 of 1 are free: a machine was lost or is"
        " still to come (retable cluster status shows more)"
    )
    assert "1 GPUs are asked for, 0 of 0 are free: a machine was lost" in sentence(
        Group(1, {"GPU": 1.0}, False), {}, {}
    )
    assert "are asked for, 1 of 4 are free: others use the cluster" in sentence(TWO, {"CPU": 1.0}, {"CPU": 4.0})
    wide = Group(1, {"CPU": 4.0}, given=False)
    assert "4 of 8 are free: no machine has enough for a worker" in sentence(wide, {"CPU": 4.0}, {"CPU": 8.0})


def test_a_wait_is_told_after_a_while_and_then_seldom() -> None:
    patience, late = Patience(), waiting.PATIENCE_SECONDS
    assert patience.over(["a"], 0.0) == []
    assert patience.over(["a", "b"], late) == ["a"]
    assert patience.over(["a"], late + waiting.AGAIN_SECONDS - 1) == []
    assert patience.over(["a"], late + waiting.AGAIN_SECONDS) == ["a"]
    assert patience.over([], 2000.0) == []
    assert patience.over(["a"], 2001.0) == [], "it has waited anew since then"


class Listening(io.StringIO):
    """A console's file that frees what blocks a run once the wait has been told."""

    def __init__(self, blocker: Any) -> None:
        super().__init__()
        self.blocker = blocker

    def write(self, text: str) -> int:
        if "waiting for resources" in text and self.blocker is not None:
            ray.kill(self.blocker)
            self.blocker = None
        return super().write(text)


def test_a_run_of_two_workers_that_gets_one_cpu_says_so_and_trains_when_there_are_two(
    workspace: Workspace, ray_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.1)

    @ray.remote(num_cpus=1)
    class Other:
        def here(self) -> bool:
            return True

    other = Other.remote()  # type: ignore[attr-defined]
    assert ray.get(other.here.remote())
    heard = Listening(other)
    loaded = study()
    plan = workspace.plan(loaded, rows=("s4",), settings={"recipe.workers": 2})
    summary = run_study(loaded, plan, workspace, Console(file=heard, width=200), record=False)
    assert summary.exit_code == 0, summary.lines()
    assert "2 CPUs (2 workers x 1) are asked for, 1 of 2 are free: others use the cluster" in heard.getvalue()
    assert not [group for group in groups() if group.given], "nothing is held any more"
