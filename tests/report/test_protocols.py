"""A column whose cells were not all scored under one protocol says of each cell how it was."""

from __future__ import annotations

from typing import Any

import pytest

from retable.report.results import document
from retable.study.load import parse
from retable.study.planner import World, make_plan

TEXT = """\
study: mixed
default_profile: paper
base:
  model: {name: statsn, backbone: tiny, key_frames: false}
  data: {dataset: ucf101, clip: {frames: 3, size: 32, sampling: segments}}
  recipe: {epochs: 4}
  protocol: {clips: 10}
profiles: {paper: {}}
tables:
  - id: t
    caption: Protocols
    columns: {top1: {metric: top1}}
    rows:
      - {id: segments, label: segments}
      - {id: other, label: other, ROW}
"""


def told(row: str) -> list[str]:
    plan = make_plan(parse(TEXT.replace("ROW", row)), World(lambda data: "f" * 64, 1, 1, 1))
    doc: Any = document(plan, {})
    notes = {note["n"]: note["text"] for note in doc["tables"][0]["footnotes"]}
    cells = [row["cells"]["top1"] for row in doc["tables"][0]["rows"]]
    return [notes[n] for cell in cells for n in cell["notes"] if notes[n].startswith("Scored on")]


@pytest.mark.parametrize(
    "row",
    [
        "set: {recipe.epochs: 5}",
        "set: {model.tsn: false, data.clip.frames: 1}, protocol: {clips: 30}",  # 30 frames in all, too
        "set: {data.clip.frames: 6}",  # ten clips, too
    ],
)
def test_one_protocol_needs_no_words(row: str) -> None:
    assert told(row) == []


def test_several_are_told_apart() -> None:
    assert told("protocol: {clips: 1, crops: ten}") == [
        "Scored on 10 clips × centre crop per video, scores averaged, weights after the last epoch,"
        " clips of 3 frames of 32 × 32 pixels.",
        "Scored on 1 clip × 10 crops per video, scores averaged, weights after the last epoch,"
        " clips of 3 frames of 32 × 32 pixels.",
    ]
