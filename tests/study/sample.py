"""A valid study with every part of the format, and how tests spoil it and ask where something stands."""

from __future__ import annotations

from retable.study.load import LoadedStudy, parse
from retable.study.planner import World
from retable.study.problems import Problem, StudyError

TEXT = """\
study: sample
default_profile: paper
paper: {title: A paper, year: 2023}
base:
  model: {name: msfnet, groups: 4, attention: none}
  data:
    dataset: ucf101
    split: 1
    clip: {frames: 8, size: 32}
  recipe: {lr: 1e-4, epochs: 2}
  protocol: {clips: 1}
profiles:
  paper: {}
  laptop:
    datasets: {ucf101: motions-ucf101}
    model: {width: 24}
    recipe: {epochs: 1}
tables:
  - id: t1
    cite: Table 1
    caption: Channel groups
    baseline: s4
    columns:
      params: {metric: params, unit: M}
      top1: {metric: top1, unit: "%"}
    rows:
      - {id: s3, label: S = 3, set: {model.groups: 3}, published: {params: 21.18, top1: 46.0}}
      - {id: s4, label: S = 4, published: {params: 21.84, top1: 49.5}}
  - id: t2
    caption: Splits
    columns:
      split1: {metric: top1, hidden: true}
      split2: {metric: top1, hidden: true, set: {data.split: 2}}
      mean: {mean_of: [split1, split2]}
      input: {text: true}
    rows:
      - {id: plain, label: Plain, text: {input: RGB}}
      - {id: theirs, label: "Theirs [1]", quoted: "[1]", published: {mean: 50.0}}
claims:
  - {text: S = 4 is best., value: t1.s4.top1 > t1.s3.top1}
"""

WORLD = World(fingerprint=lambda data: None, pipeline=1, loop=1, evaluation=1)
"""No dataset is at hand."""
EQUIPPED = World(fingerprint=lambda data: f"{data.dataset}-{data.split}", pipeline=1, loop=1, evaluation=1)
"""Every dataset is at hand."""


def sample(*changes: tuple[str, str]) -> LoadedStudy:
    """The sample with texts replaced, each of which must stand in it once."""
    return parse(spoilt(*changes), "s.yaml")


def spoilt(*changes: tuple[str, str]) -> str:
    """The sample's text with texts replaced."""
    text = TEXT
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the sample"
        text = text.replace(old, new)
    return text


def place(text: str, fragment: str) -> tuple[int, int]:
    """Line and column, from 1, at which ``fragment`` stands in ``text``, where it stands once."""
    assert text.count(fragment) == 1, f"{fragment!r} stands {text.count(fragment)} times"
    before = text[: text.index(fragment)]
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def faults(text: str) -> tuple[Problem, ...]:
    """What :func:`parse` finds wrong with a text."""
    try:
        parse(text, "s.yaml")
    except StudyError as error:
        return error.problems
    return ()
