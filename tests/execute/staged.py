"""Studies of two stages, small enough to train in a second: MSF-Net from weights, and STA-TSN's head on features."""

from __future__ import annotations

WEIGHTS = """
study: twice
default_profile: laptop
base:
  model: {name: msfnet, groups: 4, width: 8, reduction: 4}
  data: {dataset: motions-ucf101, clip: {frames: 8, size: 32}}
  recipe: {lr: 1.0e-6, epochs: 2, batch_size: 8}
profiles:
  laptop: {}
tables:
  - id: t
    caption: Trained once and twice
    columns: {top1: {metric: top1, unit: "%"}}
    rows:
      - {id: once, label: once, set: {recipe.lr: 1.0e-3, recipe.epochs: 1}}
      - {id: twice, label: twice, init_from: {set: {recipe.lr: 1.0e-3, recipe.epochs: 1}}}
"""

FEATURES = """
study: heads
default_profile: laptop
base:
  model: {name: statsn, backbone: tiny, segments: 2, frames_per_segment: 3}
  data: {dataset: motions-ucf101, clip: {frames: 6, size: 32, sampling: segments}}
  recipe: {lr: 1.0e-3, epochs: 2, batch_size: 8}
profiles:
  laptop: {}
tables:
  - id: t
    caption: Heads on the features of one network
    init_from:
      set: {model.tsn: false, model.key_frames: false, data.clip.frames: 1, model.regularisation: 1.0}
      use: features
    columns: {top1: {metric: top1, unit: "%"}}
    rows:
      - {id: with-loss, label: with the attention loss}
      - {id: without, label: without, set: {model.regularisation: 0.0}}
"""
