"""Static columns: parameters and multiply-accumulates of a config's model, counted without weights, data or runs."""

from __future__ import annotations

import functools
import json

from retable import registry
from retable.study import identity
from retable.study.config import Config

UNITS = {"K": 1e3, "k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}


def static_counts(config: Config, metric: str) -> float:
    """The model's parameters (``params``) or its MACs for one view (``gmacs``), as plain counts.

    Counted once per process and model config; see :mod:`retable.nn.count` for the convention.
    """
    return _count(identity.canonical(config.model), metric)


def in_unit(count: float, metric: str, unit: str) -> float:
    """A count in the column's unit: K, M, G, B or T, else plain parameters and 1e9 MACs."""
    return count / UNITS.get(unit, 1e9 if metric == "gmacs" else 1.0)


@functools.cache
def _count(model: str, metric: str) -> float:
    from retable.nn import count  # torch loads when something is counted, not when a table is printed

    settings = json.loads(model)
    file = registry.load(settings.pop("name"))
    config = file.config_class.model_validate(settings)
    if metric == "params":
        return float(count.parameters(lambda: file.build(config)))
    return float(count.macs(lambda: file.build(config), file.inputs(config)))
