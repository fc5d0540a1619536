"""From video files to uint8 batches: layouts, manifests, exact decoding, sampling, augmentation, loading.

Light to import (no torch, no av): planning needs layouts and fingerprints only.
"""

from __future__ import annotations

PIPELINE_SEMANTICS = 1
"""Part of every run's identity. Raise it when the same videos, config and seed would give other pixels or labels."""

FLOW_SEMANTICS = 2
"""Part of the identity of runs that read flow. Raise it when the same frames and method would give other flow.

2: fields are kept as JPEG pairs, which changes them a little.
"""
