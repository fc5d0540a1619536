"""``retable data flow`` from the command line: what it computes is what runs find, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from retable import cli
from retable.data import flow_store
from retable.data.errors import FlowUnavailable
from retable.workspace import Workspace

ARGUMENTS = ["data", "flow", "motions-ucfsports", "--method", "dis", "--short-side", "16", "--bound", "4"]


def call(workspace: Workspace, *more: str) -> str:
    done = CliRunner().invoke(cli.app, [*ARGUMENTS, *more, "--data", str(workspace.data_root)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_what_it_computes_is_there_for_runs(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETABLE_CACHE", str(tmp_path))
    said = call(workspace)
    count = len(workspace.dataset("motions-ucfsports").items(1))
    assert said.startswith(f"dis flow of {count} videos of motions-ucfsports: ")
    assert len(list((tmp_path / "flow-dis-4-16-v2").glob("*.flow"))) == count
    monkeypatch.setattr(flow_store, "estimate", None)  # the second time nothing is left to compute
    assert call(workspace).startswith(f"dis flow of {count} videos")


def test_it_is_refused_at_once_without_its_library(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETABLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(FlowUnavailable, match="flow by dis needs OpenCV"):
        call(workspace)
    assert not (tmp_path / "cache").exists()


def test_weights_go_with_raft_only(workspace: Workspace) -> None:
    done = CliRunner().invoke(cli.app, [*ARGUMENTS, "--weights", "x.pth"])
    assert done.exit_code == 2
    assert "--weights goes with --method raft" in done.output
