"""The record is whole: tables and results come out of MLflow alone, byte for byte, and out of storage alone."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

import retable
from retable.execute.driver import run_study
from retable.report.render import render
from retable.report.results import document
from retable.workspace import Workspace
from tests.execute.small import TEXT, study

FORMATS = ("terminal", "md", "latex", "csv", "json")


@pytest.mark.usefixtures("ray_local")
def test_tables_are_the_same_from_storage_and_from_mlflow_alone(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Workspace(workspace.storage_url, workspace.data_root, f"sqlite:///{tmp_path / 'elsewhere.db'}")
    failing = TEXT.replace("set: {model.groups: 4}", "set: {model.groups: 4, recipe.lr: 1.0e+30}")
    loaded = study(failing)
    plan = elsewhere.plan(loaded, seeds=(0, 1))
    assert run_study(loaded, plan, elsewhere, Console(file=io.StringIO())).exit_code == 1

    def printed(place: Workspace, *, offline: bool) -> dict[str, str]:
        again = place.plan(loaded)
        doc = document(again, place.records(again, offline=offline))
        return {name: render(doc, name) for name in FORMATS}  # type: ignore[arg-type]

    from_storage = printed(elsewhere, offline=True)
    assert "±" in from_storage["terminal"]
    assert "NonFiniteLoss" in from_storage["md"]
    shutil.rmtree(elsewhere.storage.root)
    empty = Workspace(workspace.storage_url, workspace.data_root, elsewhere.tracking)
    assert printed(empty, offline=False) == from_storage
    nobody = Workspace(workspace.storage_url, str(tmp_path / "no-data"), elsewhere.tracking)
    without_dataset = nobody.plan(loaded)
    values = [
        row["cells"]["top1"]["mean"]
        for doc in (document(without_dataset, nobody.records(without_dataset)), document(plan, empty.records(plan)))
        for row in doc["tables"][0]["rows"]
    ]
    assert values[0] is not None
    assert values[:2] == values[2:]

    path = tmp_path / "failing.yaml"
    path.write_text(failing)
    frame = retable.results(
        str(path), storage=str(tmp_path / "nothing"), data=workspace.data_root, tracking_uri=elsewhere.tracking
    )
    own = frame[(frame.row == "s3") & (frame.column == "top1")]
    assert sorted(own.seed) == [0, 1]
    assert own.value.notna().all()
