"""A small study with every kind of cell, and records made for it by hand: nothing is trained here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from retable.study.config import Config
from retable.study.load import parse
from retable.study.plan import Plan, RunSpec
from retable.study.planner import World, make_plan
from retable.track.records import RunRecord

STUDY = """
study: small
default_profile: paper
paper: {title: A paper & its tables, year: 2023, doi: 10.0/1}
notes: [The paper names no batch size.]
base:
  model: {name: msfnet}
  data: {dataset: ucf101, clip: {frames: 8, size: 112}}
  recipe: {epochs: 4}
profiles:
  paper: {}
  laptop: {note: Small., model: {width: 24}, data: {clip: {size: 32}}}
tables:
  - id: t1
    cite: Table 1
    caption: Attention, with 100 % of the videos
    baseline: plain
    columns:
      input: {text: true, label: Input}
      params: {metric: params, unit: M, better: lower}
      top1: {metric: top1, unit: "%", label: Accuracy, margin: 1.0}
    notes: [Trained from scratch.]
    rows:
      - id: other
        label: Other_net [22]
        section: Theirs
        quoted: "[22]"
        text: {input: 8x1x1}
        published: {params: null, top1: 61.0}
      - {id: plain, label: plain, section: Ours, text: {input: 8x1x1}, published: {params: 21.84, top1: 49.5}}
      - id: se
        label: plain
        section: Ours
        text: {input: 16x1x1}
        set: {model.attention: se}
        published: {params: 21.88, top1: 50.1}
        notes: [A module of another paper.]
      - id: fsam
        label: FSAM
        section: Ours
        set: {model.attention: fsam}
        published: {params: 21.90, top1: 52.8}
        cells: {params: {note: "Printed as 21.90 M | here <only>."}}
      - {id: nst, label: NST, section: Ours, set: {model.attention: nst}, published: {params: 21.85, top1: null}}
  - id: t2
    caption: Splits and streams
    columns:
      split1: {metric: top1, unit: "%", set: {data.split: 1}}
      split2: {metric: top1, unit: "%", set: {data.split: 2}}
      mean: {mean_of: [split1, split2], unit: "%"}
      flow: {metric: top1, unit: "%", set: {data.stream: flow}}
      both: {fuse: [split1, flow], unit: "%"}
    rows:
      - {id: plain, label: plain}
      - {id: se, label: SE, set: {model.attention: se}}
claims:
  - {text: FSAM beats SE., value: t1.fsam.top1 > t1.se.top1}
  - {text: FSAM gains 3.3 points., value: t1.fsam.top1 - t1.plain.top1, published: 3.3, note: Over no attention.}
  - {text: FSAM costs 0.3 %., value: 100 * (t1.fsam.params / t1.plain.params - 1), published: 0.3}
  - {text: Others are far better., value: t1.other.top1 - t1.fsam.top1, published: 8.2}
"""

PARAMS = {"none": 21.844845e6, "se": 21.879661e6, "fsam": 21.881033e6, "nst": 21.846961e6}
CPU = {"device": "cpu x86_64", "host": "a", "python": "3.11.9", "torch": "2.15.0"}


def counts(config: Config, metric: str) -> float:
    """The published sizes without counting anything."""
    assert metric == "params"
    return PARAMS[config.model["attention"]]


def at_hand(data: Any) -> str | None:
    """A fingerprint for each split."""
    return f"{data.split}f" * 16


def not_at_hand(data: Any) -> str | None:
    del data
    return None


def plan(profile: str = "paper", *, fingerprint: Callable[[Any], str | None] = at_hand, **asked: Any) -> Plan:
    return make_plan(parse(STUDY), World(fingerprint, 1, 1, 1), profile=profile, **asked)


def done(run: RunSpec, top1: float, environment: Mapping[str, str] = CPU) -> RunRecord:
    """A finished run whose every view scored ``top1``."""
    scores = {view.key: {"top1": top1, "top5": 90.0} for view in run.training.views}
    return RunRecord(run.to_json(), "done", evaluations=scores, environment=dict(environment))


VALUES: dict[tuple[str, int], tuple[float, ...]] = {
    ("none", 1): (49.25, 49.75),
    ("se", 1): (50.0, 49.5, 50.75),
    ("fsam", 1): (53.0,),
    ("none", 2): (45.0,),
}


def some_records(planned: Plan) -> dict[str, RunRecord]:
    """Runs of one, two and three seeds, one that failed and one that has not ended."""
    found = {}
    for training in planned.trainings.values():
        key = training.config.model["attention"], training.config.data.split
        if training.unsupported is not None:
            continue
        for seed, value in enumerate(VALUES.get(key, ())):
            run = training.run(seed)
            found[run.run_id] = done(run, value)
        if key == ("fsam", 1):
            run = training.run(1)
            found[run.run_id] = RunRecord(run.to_json(), "failed", "the loss is nan at update 7")
        if key == ("se", 2):
            run = training.run(0)
            found[run.run_id] = RunRecord(run.to_json(), "partial", epochs=({"epoch": 0.0}, {"epoch": 1.0}))
    return found


class Small:
    """What the tests of this folder build documents from."""

    counts = staticmethod(counts)
    at_hand = staticmethod(at_hand)
    not_at_hand = staticmethod(not_at_hand)
    plan = staticmethod(plan)
    done = staticmethod(done)
    some_records = staticmethod(some_records)


@pytest.fixture
def small() -> type[Small]:
    return Small
