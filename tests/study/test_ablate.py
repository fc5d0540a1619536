"""Ablating a configuration: the new study, its rows, and what they train."""

from __future__ import annotations

from typing import Any

import pytest

from retable.study.ablate import Ablation, ablate
from retable.study.load import LoadedStudy, parse
from retable.study.planner import make_plan, training_of
from retable.study.problems import StudyError
from retable.study.searches import Hunt, row_config
from tests.study.sample import EQUIPPED, TEXT

SEARCH = """\
search:
  space:
    model.groups: {choice: [3, 4]}
    model.attention: {choice: [none, se]}
    recipe.lr: {log_uniform: [1e-5, 1e-2]}
  objective: {maximize: top1}
"""
POINT = {"model.groups": 3, "model.attention": "se", "recipe.lr": 3.17e-3}


def around(point: dict[str, Any], profile: str = "laptop", **more: Any) -> tuple[LoadedStudy, Ablation]:
    loaded = parse(TEXT + SEARCH, "s.yaml")
    config = Hunt(loaded.study, profile, {}).resolve(point).config.model_dump(mode="json")
    made = ablate(loaded, profile, config, origin="trial 7", **more)
    return parse(made.text, "new.yaml"), made


def test_every_setting_that_differs_is_a_knob_and_the_hold_out_is_not() -> None:
    _, made = around(POINT)
    assert made.knobs == {
        "model.groups": (4, 3), "model.attention": ("none", "se"), "recipe.lr": (1e-4, 3.17e-3),
    }  # fmt: skip


@pytest.mark.parametrize("profile", ["paper", "laptop"])
def test_rows_train_the_configuration_the_base_and_what_lies_between(profile: str) -> None:
    study, _ = around(POINT, profile)
    plan = make_plan(study, EQUIPPED)
    trained = {(c.table, c.row): plan.evaluations[c.evaluation].config_id for c in plan.cells if c.evaluation}
    hunt = Hunt(parse(TEXT + SEARCH, "s.yaml").study, profile, {})

    def config_id(**changes: Any) -> str:
        point = {"model.groups": 4, "model.attention": "none", "recipe.lr": 1e-4, **changes}
        return training_of(hunt.resolve(point, full=True), EQUIPPED).config_id

    groups, attention, lr = ({path: POINT[path]} for path in POINT)
    assert trained == {
        ("leave-one-out", "full"): config_id(**POINT),
        ("leave-one-out", "without-model-groups"): config_id(**attention, **lr),
        ("leave-one-out", "without-model-attention"): config_id(**groups, **lr),
        ("leave-one-out", "without-recipe-lr"): config_id(**groups, **attention),
        ("one-at-a-time", "base"): config_id(),
        ("one-at-a-time", "only-model-groups"): config_id(**groups),
        ("one-at-a-time", "only-model-attention"): config_id(**attention),
        ("one-at-a-time", "only-recipe-lr"): config_id(**lr),
        ("one-at-a-time", "full"): config_id(**POINT),
    }


def test_chosen_knobs_leave_the_others_as_the_base_has_them() -> None:
    study, made = around(POINT, knobs=["model.groups"])
    assert list(made.knobs) == ["model.groups"]
    assert [t.id for t in study.study.tables] == ["leave-one-out"]
    assert study.study.base["recipe"]["lr"] == 3.17e-3, "full is the configuration that was asked for"


def test_a_row_that_is_no_valid_config_is_left_out_with_the_reason() -> None:
    loaded = parse(TEXT.replace("width: 24", "width: 16"), "s.yaml")
    config = resolve_row(loaded)
    made = ablate(loaded, "laptop", config, origin="run x")
    assert list(made.impossible) == ["without model.width = 24", "only model.groups = 12"]
    assert "Left out: without model.width = 24" in made.text
    rows = parse(made.text, "new.yaml").study.tables[0].rows
    assert [row.id for row in rows] == ["full", "without-model-groups"]


def resolve_row(loaded: LoadedStudy) -> dict[str, Any]:
    """A configuration of more groups than the base's width can be split into."""
    config = row_config(loaded.study, "laptop", "t1.s4").config.model_dump(mode="json")
    config["model"] |= {"width": 24, "groups": 12}
    return config


def test_a_configuration_that_is_the_base_and_unknown_knobs_are_refused() -> None:
    with pytest.raises(StudyError, match="nothing to leave out"):
        around({"model.groups": 4, "model.attention": "none", "recipe.lr": 1e-4})
    with pytest.raises(StudyError, match=r"did you mean 'model.groups'"):
        around(POINT, knobs=["model.group"])
    with pytest.raises(StudyError, match="the study's own value"):
        around(POINT, knobs=["model.msl_position"])
