"""A study small enough to train in a second: two rows of MSF-Net at width 8 on a miniature dataset."""

from __future__ import annotations

from retable.study.load import LoadedStudy, parse

TEXT = """
study: small
default_profile: laptop
base:
  model: {name: msfnet, groups: 4, width: 8, reduction: 4}
  data: {dataset: motions-ucf101, clip: {frames: 8, size: 32}}
  recipe: {lr: 1.0e-3, epochs: 2, batch_size: 8}
  protocol: {clips: 1}
profiles:
  laptop: {}
tables:
  - id: table2
    cite: "Table 2"
    caption: Number of channel groups S
    columns:
      params: {metric: params, unit: M}
      top1: {metric: top1, unit: "%"}
    rows:
      - {id: s3, label: S = 3, set: {model.groups: 3}, published: {params: 21.18, top1: 46.0}}
      - {id: s4, label: S = 4, set: {model.groups: 4}, published: {params: 21.84, top1: 49.5}}
"""


def study(text: str = TEXT) -> LoadedStudy:
    """The small study, or a variation of its text."""
    return parse(text, "small.yaml")
