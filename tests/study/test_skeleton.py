"""The study that ``retable init`` writes is one that works."""

from __future__ import annotations

from pathlib import Path

import pytest

from retable.study.lint import lint
from retable.study.problems import StudyError
from retable.study.skeleton import skeleton
from retable.workspace import Workspace, open_study


def test_it_loads_in_every_profile_lints_and_plans(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(skeleton("mine"), encoding="utf-8")
    loaded = open_study(str(path))
    assert loaded.study.study == "mine"
    assert list(lint(path)) == []
    plan = Workspace.open(str(tmp_path / "storage"), str(tmp_path / "data")).plan(loaded, seeds=(0, 1))
    assert len(plan.trainings) == 3
    assert all(training.unsupported is None for training in plan.trainings.values())


@pytest.mark.parametrize("name", ["", "two words", "../up", "-x", "ä"])
def test_names_that_cannot_be_a_studys_are_refused(name: str) -> None:
    with pytest.raises(StudyError, match="letters, digits"):
        skeleton(name)
