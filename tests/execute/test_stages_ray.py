"""Stages through Ray Tune: order, one failing family beside a whole one, and the same command again."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from retable.execute.driver import Summary, run_study
from retable.workspace import Workspace
from tests.execute.small import study
from tests.execute.staged import FEATURES, WEIGHTS

pytestmark = pytest.mark.usefixtures("ray_local")

TWO = WEIGHTS + "      - {id: lost, label: lost, init_from: {set: {recipe.lr: 1.0e+30, recipe.epochs: 1}}}\n"


def run(workspace: Workspace, text: str) -> tuple[Summary, str]:
    said = io.StringIO()
    loaded = study(text)
    console = Console(file=said, width=200)
    return run_study(loaded, workspace.plan(loaded), workspace, console, record=False), said.getvalue()


def test_parents_run_first_and_a_failed_one_marks_its_child_only(workspace: Workspace) -> None:
    summary, said = run(workspace, TWO)
    assert summary.exit_code == 1
    assert (len(summary.endings.of("done")), len(summary.endings.of("failed"))) == (2, 1)
    (failed,) = summary.endings.of("failed")
    assert list(summary.endings.of("blocked").values()) == [f"not run: parent failed ({failed})"]
    assert f"not run: parent failed ({failed}): 1 runs" in summary.lines()
    assert said.index("t · once · seed 0: done") < said.index("t · twice · seed 0: started")
    again, _ = run(workspace, TWO)
    assert (again.missing.orders, again.missing.done, len(again.missing.blocked)) == ((), 2, 1)
    assert again.exit_code == 1


def test_heads_run_at_once_over_the_features_of_their_parent(workspace: Workspace) -> None:
    summary, said = run(workspace, FEATURES)
    assert summary.exit_code == 0, summary.lines()
    assert "t · with the attention loss · first stage · seed 0: done" in said
    assert len(summary.endings.of("done")) == 3
