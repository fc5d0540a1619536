"""Draws a study's search: reads its trials, asks what mattered, and writes figures and their data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retable.execute.searching.importance import LEAST_TRIALS, importance
from retable.execute.searching.reader import see
from retable.report import figure_files
from retable.report.searching import figures as search_figures
from retable.report.searching.searched import figure_data
from retable.study.searches import Hunt
from retable.workspace import Workspace


def draw_search(
    hunt: Hunt, workspace: Workspace, folder: Path, *, url: str | None = None, name: str | None = None
) -> list[Path]:
    """Write the figures of a search; importance only where there are trials enough. Returns what was written.

    Raises:
        StudyError: there are no trials.
    """
    seen = see(hunt, workspace, url, name)
    data = data_of(hunt, seen.name, seen.trials)
    return figure_files.write(folder, search_figures.figures(data), data, figure_files.trials_csv(data), "search")


def data_of(hunt: Hunt, name: str, trials: list[Any]) -> dict[str, Any]:
    """What the figures show; without importance where there are too few whole trials for it."""
    whole = [t for t in trials if t.state in ("complete", "recorded")]
    shares = importance(name, hunt, trials) if len(whole) >= LEAST_TRIALS else None
    return figure_data(name, hunt, trials, shares)
