"""What notebooks call: ``import retable; retable.results("studies/msfnet.yaml")``."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from retable.report.results import document
from retable.report.results import results as long_form
from retable.workspace import Workspace, open_study


def results(
    study: str,
    *,
    profile: str | None = None,
    seeds: Sequence[int] | None = None,
    storage: str | None = None,
    data: str | None = None,
    tracking_uri: str | None = None,
    offline: bool = False,
) -> pd.DataFrame:
    """Every recorded value of a study's tables, one row per (table, row, column, seed).

    Args:
        study: a study file, or the name of a shipped study.
        profile: default: the study's.
        seeds: only these; default all that are recorded.
        storage, data, tracking_uri: as the command line's options, with the same defaults.
        offline: read storage only, not MLflow.

    Returns:
        Columns table, row, column, seed, value, published, unit, metric, run_id, config_id, status; values unrounded.
        A cell without a value has one row, with its status.

    Raises:
        StudyError: the study cannot be used.
        TrackingUnavailable: runs are missing from storage, and MLflow cannot be reached.
    """
    workspace = Workspace.open(storage, data, tracking_uri)
    plan = workspace.plan(open_study(study), profile=profile, seeds=tuple(seeds or (0,)), recorded=not offline)
    return long_form(document(plan, workspace.records(plan, offline=offline), seeds=seeds))
