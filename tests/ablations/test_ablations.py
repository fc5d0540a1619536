"""Every own row of every study, as its smallest run: study -> plan -> Ray Tune -> storage -> MLflow -> table.

``python -m pytest tests/ablations -k "msfnet and table2"`` reruns one table: the selected rows are trained together.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from retable.execute.driver import run_study
from retable.report.results import document
from retable.study.plan import Plan
from retable.study.schema import Study
from retable.track import reader
from retable.workspace import Workspace, find_study, open_study

PAPERS = ("maagn", "mast", "msfnet", "statsn", "stidf")
SMALLEST = {"recipe.epochs": 1, "recipe.batch_size": 8}


@cache
def study_of(name: str) -> Study:
    return open_study(str(find_study(name))).study


def own_rows() -> list[Any]:
    return [
        pytest.param(name, table.id, row.id, id=f"{name}-{table.id}-{row.id}")
        for name in PAPERS
        for table in study_of(name).tables
        if table.cite is not None
        for row in table.rows
        if row.quoted is None
    ]


@dataclass(frozen=True)
class Rerun:
    """One study's selected rows after their run: the tables told by storage and by MLflow alone."""

    plan: Plan
    from_storage: dict[str, Any]
    from_mlflow: dict[str, Any]

    def cells(self, doc: dict[str, Any], table: str, row: str) -> dict[str, Any]:
        (found,) = [r for t in doc["tables"] if t["id"] == table for r in t["rows"] if r["id"] == row]
        return dict(found["cells"])


@pytest.fixture(scope="module")
def rerun(
    request: pytest.FixtureRequest, ray_local: None, data_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Rerun]:
    chosen: dict[str, set[tuple[str, str]]] = {}
    for item in request.session.items:
        params = getattr(item, "callspec", None)
        if item.path == request.path and params is not None:
            values = params.params
            chosen.setdefault(values["name"], set()).add((values["table"], values["row"]))

    @cache
    def once(name: str) -> Rerun:
        store = tmp_path_factory.mktemp(name)
        workspace = Workspace(str(store), str(data_root))
        loaded = open_study(name)
        tables = sorted({table for table, _ in chosen[name]})
        rows = sorted({row for _, row in chosen[name]})
        plan = workspace.plan(loaded, settings=SMALLEST, tables=tables, rows=rows)
        summary = run_study(loaded, plan, workspace, Console(file=io.StringIO()))
        assert summary.exit_code == 0, summary.lines()
        told = document(plan, workspace.records(plan, offline=True))
        return Rerun(plan, told, document(plan, reader.read(workspace.tracking_uri, loaded.study.study)))

    return once


@pytest.mark.parametrize(("name", "table", "row"), own_rows())
def test_a_row_is_retrained_and_its_cells_are_filled_from_mlflow_alone(
    rerun: Callable[[str], Rerun], name: str, table: str, row: str
) -> None:
    done = rerun(name)
    cells = done.cells(done.from_mlflow, table, row)
    assert cells == done.cells(done.from_storage, table, row)
    for column, cell in cells.items():
        if cell["kind"] == "speed":
            assert cell["values"][0]["low"] <= cell["mean"] <= cell["values"][0]["high"], (column, cell)
        elif cell["kind"] != "static" and cell["status"] not in ("not in the paper", "text"):
            assert cell["status"] == "done", (column, cell)
            assert cell["n"] == 1
            assert 0 <= cell["mean"] <= 100
            assert cell["half_width"] is None
        if cell["kind"] == "static":
            assert cell["mean"] > 0
