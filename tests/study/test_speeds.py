"""Cells that measure a network's speed: planned apart from trainings, by what is timed and by the machine."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from retable.study.check import check
from retable.study.load import parse
from retable.study.plan import Measurement, Plan
from retable.study.planner import World, make_plan

TEXT = """\
study: fast
default_profile: paper
base:
  model: {name: msfnet, groups: 4}
  data: {dataset: ucf101, clip: {frames: 8, size: 112}}
  recipe: {epochs: 4, batch_size: 16}
profiles: {paper: {}}
tables:
  - id: t
    caption: Speeds
    columns:
      params: {metric: params}
      speed: {metric: videos_per_second}
      time: {metric: ms_per_video}
    rows:
      - {id: plain, label: plain}
      - {id: longer, label: trained for longer, set: {recipe.epochs: 9, recipe.lr: 1.0e-3}}
      - {id: other, label: other, set: {model.groups: 3}, published: {time: null}}
"""
HERE: Mapping[str, str] = {"device": "a CPU", "torch": "2.15"}


def plan(text: str = TEXT, machine: Mapping[str, str] | None = HERE) -> Plan:
    loaded = parse(text)
    assert check(loaded) == []
    return make_plan(loaded, World(lambda data: "f" * 64, 1, 1, 1, machine=lambda gpu: machine))


def of(found: Plan, row: str, column: str) -> Measurement:
    (cell,) = [c for c in found.cells if (c.row, c.column) == (row, column)]
    return found.measurements[str(cell.measurement)]


def test_nothing_is_trained_for_a_speed() -> None:
    found = plan()
    assert (found.trainings, found.evaluations, found.runs) == ({}, {}, ())
    assert len(found.measurements) == 3
    assert found.cells[-1].hole == "not in the paper"


def test_rows_that_differ_in_training_alone_are_measured_once() -> None:
    found = plan()
    assert of(found, "plain", "speed") == of(found, "longer", "speed")
    assert of(found, "plain", "speed") != of(found, "other", "speed")
    assert of(found, "plain", "speed").config_id != of(found, "plain", "time").config_id
    assert [(c.row, c.column) for c in found.timed[of(found, "plain", "time").config_id]] == [
        ("plain", "time"),
        ("longer", "time"),
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("batch_size: 16", "batch_size: 8"),
        ("epochs: 4,", "epochs: 4, workers: 2,"),
        ("size: 112", "size: 96"),
        ("profiles: {paper: {}}", "profiles: {paper: {protocol: {crops: three}}}"),
        ("profiles: {paper: {}}", "profiles: {paper: {resources: {loader_workers: 2}}}"),
    ],
)
def test_what_changes_the_time_makes_another_measurement(old: str, new: str) -> None:
    changed = plan(TEXT.replace(old, new))
    assert of(changed, "plain", "speed").config_id != of(plan(), "plain", "speed").config_id


def test_another_machine_makes_another_measurement_of_the_same_thing() -> None:
    here, there = (of(plan(machine=m), "plain", "speed") for m in (HERE, {**HERE, "torch": "2.16"}))
    assert here.config_id == there.config_id
    assert here.run_id != there.run_id
    unknown = of(plan(machine=None), "plain", "speed")
    assert unknown.config_id == here.config_id
    assert unknown.run_id.startswith("~")


def test_a_latency_is_of_one_process() -> None:
    found = plan(TEXT.replace("epochs: 4,", "epochs: 4, workers: 2,"))
    assert of(found, "plain", "time").config.recipe.workers == 1
    assert of(found, "plain", "speed").config.recipe.workers == 2


def test_a_row_of_several_runs_has_no_speed() -> None:
    over = "label: other, mean_over: {path: data.split, values: [1, 2]},"
    (problem,) = check(parse(TEXT.replace("label: other,", over)))
    assert "videos_per_second is of one network, but this row is made of several" in problem.message
