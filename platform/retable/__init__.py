"""retable regenerates the ablation tables of research papers.

In a checkout ``models/`` and ``studies/`` stand beside ``platform/``; in a wheel they are ``retable.models`` and
``retable.studies``. Both are reached through :mod:`retable.registry`, never imported by name.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

# Set before ray or mlflow are imported anywhere: no telemetry, and workers that run at the user's own priority.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

_root = Path(__file__).resolve().parents[2]
if (_root / "pyproject.toml").is_file() and (_root / "platform").is_dir():
    __path__.append(str(_root))


def __getattr__(name: str) -> Any:
    """``retable.results`` without loading torch and pandas for those who do not ask for it."""
    if name == "results":
        return importlib.import_module("retable.api").results
    raise AttributeError(f"module 'retable' has no attribute {name!r}")
