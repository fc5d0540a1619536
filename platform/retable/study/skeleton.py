"""The study file that ``retable init`` writes: small, complete, and explained line by line."""

from __future__ import annotations

import re

from retable.study.problems import Problem, StudyError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

TEXT = """\
# Question: does a second attention module pay for itself?       <- what the tables below are to answer
# Command:  retable plan {name}.yaml, then retable run {name}.yaml --seeds 3
study: {name}
question: Which attention module helps MSF-Net on generated videos?
default_profile: laptop

# The configuration that every row starts from. `retable models` lists models, `retable models msfnet` their settings.
base:
  model: {{name: msfnet, groups: 4, attention: none}}
  data:
    dataset: motions-ucf101 # retable data generate motions-ucf101; `retable data show` lists what there is
    clip: {{frames: 8, size: 32, resize: 36, sampling: segments}}
  recipe: {{optimizer: adam, lr: 1.0e-3, epochs: 10, batch_size: 16, schedule: {{every: 8, gamma: 0.1}}}}
  protocol: {{clips: 1, crops: center, checkpoint: last}} # how a trained network is tested

# Overlays. A study of a paper has `paper` (as published) and `laptop` (small, on generated videos).
profiles:
  laptop:
    model: {{width: 24, fc_hidden: 256}}

tables:
  - id: attention
    caption: Attention modules
    baseline: none # differences to this row are paired by seed
    columns:
      params: {{metric: params, unit: M, label: Parameters, decimals: 2, better: lower}}
      top1: {{metric: top1, unit: "%", label: Accuracy, margin: 1.0}}
    rows: # what a row changes; a paper's values beside yours: published: {{params: 21.84, top1: 49.5}}
      - {{id: none, label: none}}
      - {{id: se, label: SE, set: {{model.attention: se}}}}
      - {{id: fsam, label: FSAM, set: {{model.attention: fsam}}}}

# Sentences and the arithmetic on cells that they assert.
claims:
  - {{text: FSAM beats SE., value: attention.fsam.top1 > attention.se.top1}}

# retable search {name}.yaml: held-out training videos decide; the test videos are not looked at.
search:
  space:
    model.attention: {{choice: [none, se, fsam]}}
    recipe.lr: {{log_uniform: [1.0e-4, 1.0e-2]}}
  objective: {{maximize: top1, on: val}}
  first: [attention.none] # tried first: a row, as it stands
  scheduler: {{kind: asha, eta: 3}}
  budget: {{trials: 12}}
"""


def skeleton(name: str) -> str:
    """The text of a study called ``name``.

    Raises:
        StudyError: the name cannot be a study's.
    """
    if NAME.fullmatch(name) is None:
        message = "a study's name has letters, digits, - and _, and begins with a letter or digit"
        raise StudyError([Problem("NAME", 1, 1, name, message)])
    return TEXT.format(name=name)
