"""Search spaces: what is drawn, what is refused at load and where, and which point a row is."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retable.study.check import check
from retable.study.load import parse
from retable.study.planner import make_plan, training_of
from retable.study.problems import Problem, StudyError
from retable.study.search_schema import Space
from retable.study.searches import Hunt
from retable.study.space import OutsideError, SearchSpace, even
from tests.study.sample import EQUIPPED, TEXT, place

SEARCH = """\
search:
  space:
    model.groups: {choice: [3, 4]}
    model.attention: {choice: [none, se]}
    model.reduction: {int: [2, 8], when: {model.attention: [se]}}
    recipe.lr: {log_uniform: [1e-5, 1e-2]}
  objective: {maximize: top1, on: test}
  first: [t1.s3]
"""
SPACES: dict[str, dict[str, Any]] = {
    "model.a": {"choice": (1, True, "x", None, [1, 2])},
    "model.b": {"int": (1, 5), "when": {"model.a": (1, "x")}},
    "model.c": {"subsets": ("p", "q", "r"), "at_least": 1},
    "recipe.d": {"log_uniform": (1e-4, 1.0)},
    "recipe.e": {"uniform": (-1.0, 1.0)},
}


def space(*paths: str) -> SearchSpace:
    return SearchSpace({path: Space(**SPACES[path]) for path in paths or SPACES})


def faults(*changes: tuple[str, str]) -> tuple[str, tuple[Problem, ...]]:
    text = TEXT + SEARCH
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    try:
        return text, tuple(check(parse(text, "s.yaml")))
    except StudyError as error:
        return text, error.problems


@given(st.integers(0, 10**6))
def test_whatever_is_drawn_is_in_the_space_and_comes_back_from_its_parameters(seed: int) -> None:
    rng, picked = random.Random(seed), {}

    def pick(parameter: Any) -> Any:
        picked[parameter.name] = even(parameter, rng)
        return picked[parameter.name]

    point = space().draw(pick)
    assert space().encode(point) == picked
    assert ("model.b" in point) == (point["model.a"] in (1, "x") and point["model.a"] is not True)


def test_every_point_of_a_finite_space_is_listed_once_and_conditions_hold() -> None:
    points = list(space("model.a", "model.b", "model.c").points())
    assert len(points) == (2 * 5 + 3) * 7  # two of five choices have model.b; seven subsets are not empty
    assert len({repr(p) for p in points}) == len(points)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model.a": 2}, "not within"),
        ({"model.b": 9}, "not within"),
        ({"model.b": 2.5}, "not within"),
        ({"model.c": ["q", "p"]}, "not a subset"),
        ({"recipe.d": 2.0}, "not within"),
        ({"recipe.z": 1}, "not in the space"),
        ({"model.a": None}, "not searched here"),
    ],
)
def test_points_outside_are_refused_by_path(change: dict[str, Any], says: str) -> None:
    inside = {"model.a": 1, "model.b": 2, "model.c": ["p"], "recipe.d": 0.1, "recipe.e": 0.0}
    space().encode(inside)
    with pytest.raises(OutsideError, match=says):
        space().encode({**inside, **change})


def test_a_sound_search_has_no_faults() -> None:
    assert faults()[1] == ()


@pytest.mark.parametrize(
    ("old", "new", "at", "says"),
    [
        ("model.groups: {choice: [3, 4]}", "model.grops: {choice: [3, 4]}", "3, 4]", "there is no 'model.grops'"),
        ("choice: [3, 4]", "choice: [3, many]", "many", "integer"),
        ("int: [2, 8]", "int: [8, 2]", "model.reduction", "bounds must increase"),
        ("[1e-5, 1e-2]", "[0.0, 1e-2]", "recipe.lr: {log", "bounds above 0"),
        ("[1e-5, 1e-2]", "[1e-5, .inf]", "recipe.lr: {log", "finite"),
        ("choice: [3, 4]", "choice: [3, 3]", "model.groups: {choice", "twice"),
        ("choice: [3, 4]", "choice: []", "choice: []", "at least 1"),
        ("maximize: top1", "maximize: top2", "objective:", "unknown metric 'top2'"),
        ("maximize: top1", "minimize: params", "search:", "must be measured"),
        ("[se]}}", "[cbam]}}", "model.attention: [cbam]", "never 'cbam'"),
        ("when: {model.attention", "when: {model.atention", "model.atention", "did you mean 'model.attention'"),
        ("recipe.lr: {", "protocol.clips: {", "protocol.clips: {", "not 'protocol.clips'"),
        ("recipe.lr: {log", "data.holdout: {log", "data.holdout: {log", "which videos"),
        ("  first:", "  sampler: grid\n  first:", "sampler: grid", "recipe.lr has not"),
        ("  first:", "  sampler: cmaes\n  first:", "sampler: cmaes", "model.groups is a choice"),
        ("  first:", "  scheduler: {kind: asha, eta: 1}\n  first:", "eta: 1", "greater than or equal to 2"),
        ("[t1.s3]", "[t1.s9]", "t1.s9", "no row 't1.s9'"),
        ("[t1.s3]", "[{model.groups: 4}]", "{model.groups: 4}]", "model.attention: has no value"),
        ("log_uniform: [1e-5, 1e-2]", "log_uniform: [1e-3, 1e-2]", "t1.s3]", "0.0001 is not within"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_its_place(old: str, new: str, at: str, says: str) -> None:
    text, found = faults((old, new))
    assert found, "nothing was found"
    assert says in str(found[0])
    assert (found[0].line, found[0].column) == place(text, at)


def test_a_space_without_a_valid_point_is_refused_with_the_models_own_reason() -> None:
    _, found = faults(("choice: [3, 4]", "choice: [30, 40]"), ("[t1.s3]", "[]"))
    assert "no point of the space makes a valid config" in found[0].message
    assert "width" in found[0].message


def test_a_metric_that_nobody_reports_of_so_few_classes_is_refused() -> None:
    few = ("    dataset: ucf101\n", "    dataset: ucf101\n    num_classes: 5\n")
    text, found = faults(("maximize: top1", "maximize: top5"), few, ("[t1.s3]", "[]"))
    assert "top5 is not reported of 5 classes" in found[0].message
    assert (found[0].line, found[0].column) == place(text, "objective: {")
    assert faults(("maximize: top1", "maximize: top5"))[1] == ()


def test_a_row_whose_settings_the_space_does_not_reach_cannot_come_first() -> None:
    _, found = faults(("set: {model.groups: 3}", "set: {model.groups: 3, model.msl_position: c}"))
    assert "model.msl_position: row t1.s3 has 'c' here" in found[0].message


def test_several_objectives_need_no_scheduler_and_the_same_videos() -> None:
    one = "objective: {maximize: top1, on: test}"
    assert faults((one, "objectives: [{maximize: top1, on: test}, {minimize: params}]"))[1] == ()
    _, found = faults((one, "objectives: [{maximize: top1, on: test}, {maximize: top5}]"))
    assert "val or test, not both" in found[0].message
    _, found = faults((one, "objectives: [{maximize: top1}, {minimize: gmacs}]\n  scheduler: {kind: asha}"))
    assert "ranks trials by one objective" in found[0].message


def test_a_trial_is_the_rows_run_where_both_are_trained_and_scored_alike() -> None:
    loaded = parse(TEXT + SEARCH, "s.yaml")
    row = next(iter(make_plan(loaded, EQUIPPED, tables=("t1",), rows=("s3",)).trainings.values()))
    hunt = Hunt(loaded.study, "paper", {})
    ((_, label, point),) = hunt.first()
    trial = training_of(hunt.resolve(point), EQUIPPED, hunt.search.on)
    assert (label, trial.config_id, trial.views) == ("t1.s3", row.config_id, row.views)
    held = Hunt(parse(TEXT + SEARCH.replace("on: test", "on: val"), "s.yaml").study, "paper", {})
    other = training_of(held.resolve(point), EQUIPPED, held.search.on)
    assert other.config.data.holdout == 0.2
    assert other.config_id != row.config_id
    assert training_of(held.resolve(point, full=True), EQUIPPED).config_id == row.config_id
    assert {v.subset for v in other.views} == {"val"}
