"""Fused cells are made of the runs' recorded scores, seed by seed; what cannot be fused says why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from retable.report.results import document
from retable.study.load import parse
from retable.study.plan import Plan, RunSpec
from retable.study.planner import World, make_plan
from retable.track.records import RunRecord
from retable.track.scores import Scores, metrics

STUDY = """
study: streams
default_profile: paper
base:
  model: {name: msfnet}
  data: {dataset: ucf101, clip: {frames: 8, size: 112}}
  recipe: {epochs: 4}
profiles: {paper: {}}
tables:
  - id: t
    caption: Streams
    columns:
      one: {metric: top1}
      other: {metric: top1, set: {recipe.lr: 0.5}}
      two: {fuse: [one, other], weights: [1, 1.5]}
      precision: {fuse: [one, other], metric: map}
    rows:
      - {id: a, label: a}
"""
VIDEOS = tuple(f"{i}.avi" for i in range(20))
CLASSES = tuple("abcdefg")


@pytest.fixture
def plan() -> Plan:
    return make_plan(parse(STUDY), World(lambda data: "f" * 16, 1, 1, 1), seeds=(0, 1))


def some_scores(number: int) -> Scores:
    """Random scores of the same videos and labels, told in an order that depends on the number."""
    rng = np.random.default_rng(number)
    probs = rng.dirichlet(np.ones(len(CLASSES)), len(VIDEOS)).astype(np.float32)
    labels = np.arange(len(VIDEOS)) % len(CLASSES)
    order = rng.permutation(len(VIDEOS))
    return Scores(tuple(VIDEOS[i] for i in order), labels[order], probs[order], CLASSES)


def recorded(run: RunSpec, scores: Scores | None) -> RunRecord:
    (view,) = run.training.views
    evaluations = {view.key: metrics(scores)} if scores is not None else {view.key: {"top1": 1.0}}
    return RunRecord(run.to_json(), "done", evaluations=evaluations, scores={view.key: scores}.get)


def cells(plan: Plan, records: dict[str, RunRecord]) -> dict[str, Any]:
    (table,) = document(plan, records)["tables"]
    notes = {note["n"]: note["text"] for note in table["footnotes"]}
    return {k: {**c, "said": [notes[n] for n in c["notes"]]} for k, c in table["rows"][0]["cells"].items()}


def test_a_fused_cell_is_the_weighted_sum_by_hand(plan: Plan) -> None:
    given = {run.run_id: some_scores(number) for number, run in enumerate(plan.runs)}
    found = cells(plan, {run.run_id: recorded(run, given[run.run_id]) for run in plan.runs})
    for seed in (0, 1):
        one, other = (given[run.run_id] for run in plan.runs if run.seed == seed)
        right = 0
        for video, label, probs in zip(one.videos, one.labels, one.probs, strict=True):
            beside = other.probs[other.videos.index(video)]
            right += int(np.argmax((1 * probs + 1.5 * beside) / 2.5) == label)
        assert found["two"]["values"][seed] == {"seed": seed, "value": 100 * right / len(VIDEOS), "run_id": None}
    assert found["two"]["status"] == found["precision"]["status"] == "done"
    assert 0 < found["precision"]["mean"] < 100


def test_runs_of_different_videos_leave_a_hole_that_names_one(plan: Plan) -> None:
    records = {run.run_id: recorded(run, some_scores(n)) for n, run in enumerate(plan.runs)}
    last = plan.runs[-1]
    whole = some_scores(3)
    kept = whole.videos.index("7.avi")
    rows = np.arange(len(VIDEOS)) != kept
    videos = tuple(v for v in whole.videos if v != "7.avi")
    records[last.run_id] = recorded(last, Scores(videos, whole.labels[rows], whole.probs[rows], CLASSES))
    found = cells(plan, records)["two"]
    assert found["status"] == "partial"
    assert found["said"] == ["Seed 1: cannot be fused: 1 of 20 videos are not in the other, such as 7.avi."]


def test_a_run_whose_scores_are_lost_leaves_a_hole(plan: Plan) -> None:
    records = {run.run_id: recorded(run, None) for run in plan.runs}
    found = cells(plan, records)
    assert found["one"]["status"] == "done"
    assert found["two"]["status"] == "missing"
    assert found["two"]["said"] == ["Trained, but its per-video scores are not recorded under this protocol."]


def test_a_missing_stream_is_the_fusions_hole_and_seeds_are_paired(plan: Plan) -> None:
    first, *_, last = plan.runs
    found = cells(plan, {run.run_id: recorded(run, some_scores(0)) for run in (first, last)})
    assert (first.training, first.seed) != (last.training, last.seed)
    assert found["two"]["status"] == "missing"
    assert found["two"]["values"] == []


def test_a_metric_that_is_newer_than_the_record_is_computed_from_its_scores(plan: Plan) -> None:
    run = plan.runs[0]
    record = recorded(run, some_scores(0))
    old = replace(record, evaluations={run.training.views[0].key: {"top5": 1.0}})
    assert cells(plan, {run.run_id: old})["one"]["mean"] == metrics(some_scores(0))["top1"]


def test_a_table_says_how_its_scores_are_fused(plan: Plan) -> None:
    (table,) = document(plan, {})["tables"]
    said = table["provenance"]["sentences"]
    assert "Fused: per video, the mean of the runs' softmax scores, weights 1 : 1.5, seed by seed." in said
    assert "Fused: per video, the mean of the runs' softmax scores, weights 1 : 1, seed by seed." in said
