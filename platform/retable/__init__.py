"""retable regenerates the ablation tables of research papers.

In a checkout ``models/`` and ``studies/`` stand beside ``platform/``; in a wheel they are ``retable.models`` and
``retable.studies``. Both are reached through :mod:`retable.registry`, never imported by name.
"""

from __future__ import annotations

import os
from pathlib import Path

__version__ = "0.1.0"

# Set before ray or mlflow are imported anywhere: no telemetry, and workers that run at the user's own priority.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

_root = Path(__file__).resolve().parents[2]
if (_root / "pyproject.toml").is_file() and (_root / "platform").is_dir():
    __path__.append(str(_root))
