"""Whole executions through one session-wide Ray."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from retable.execute.driver import Summary, run_study, still_missing
from retable.execute.tune import ImpossibleError
from retable.study.load import LoadedStudy
from retable.track.claims import Claim, Process
from retable.workspace import Workspace
from tests.execute.small import TEXT, study

pytestmark = pytest.mark.usefixtures("ray_local")


def run(workspace: Workspace, loaded: LoadedStudy | None = None, **kwargs: Any) -> tuple[Summary, str]:
    said = io.StringIO()
    loaded = loaded or study()
    plan = workspace.plan(loaded, **kwargs)
    return run_study(loaded, plan, workspace, Console(file=said, width=200), record=False), said.getvalue()


def test_a_study_runs_and_the_same_command_again_does_nothing(workspace: Workspace) -> None:
    summary, said = run(workspace, seeds=(0, 1))
    assert summary.exit_code == 0
    assert sorted(r.status for r in workspace.storage.records().values()) == ["done"] * 4
    assert "table2 · S = 3 · seed 0: done" in said
    again, _ = run(workspace, seeds=(0, 1))
    assert again.missing.orders == ()
    assert again.missing.done == 4
    more, _ = run(workspace, seeds=(0, 1, 2))
    assert len(more.endings.of("done")) == 2


def test_relative_folders_mean_the_drivers_not_the_workers(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(str(workspace.data_root)).parent)
    relative = Workspace("store-of-relative", Path(str(workspace.data_root)).name)
    summary, _ = run(relative, rows=("s3",))
    assert summary.exit_code == 0, summary.lines()
    assert Path("store-of-relative/runs").is_dir()


def test_a_failing_run_does_not_stop_the_others(workspace: Workspace) -> None:
    text = TEXT.replace("set: {model.groups: 3}", "set: {model.groups: 3, recipe.lr: 1.0e+30}")
    summary, said = run(workspace, study(text))
    assert summary.exit_code == 1
    assert sorted(r.status for r in workspace.storage.records().values()) == ["done", "failed"]
    assert "NonFiniteLoss" in said
    assert any("--retry-failed" in line for line in summary.lines())


DYING = """
import os
from pathlib import Path
from retable import registry
_file = registry.load("msfnet")
PAPER, SEMANTICS, Config, CONFIGS, TINY, inputs = (
    "test", 1, _file.config_class, {"dying": _file.tiny}, _file.tiny, _file.inputs)

def Model(config):
    deaths = Path(__file__).with_suffix(".deaths")
    count = int(deaths.read_text()) if deaths.exists() else 0
    if count < DEATHS:
        deaths.write_text(str(count + 1))
        os._exit(1)
    return _file.build(config)
"""


def dying(tmp_path: Path, deaths: int) -> LoadedStudy:
    model = tmp_path / "dying.py"
    model.write_text(DYING.replace("DEATHS", str(deaths)))
    return study(TEXT.replace("set: {model.groups: 3}", f"set: {{model.name: {model}}}"))


def test_a_run_whose_process_dies_is_tried_again(workspace: Workspace, tmp_path: Path) -> None:
    summary, said = run(workspace, dying(tmp_path, 1))
    assert summary.exit_code == 0
    assert "its process died" in said
    assert sorted(r.status for r in workspace.storage.records().values()) == ["done", "done"]


def test_a_run_whose_process_keeps_dying_is_recorded_as_failed(workspace: Workspace, tmp_path: Path) -> None:
    summary, _ = run(workspace, dying(tmp_path, 99))
    assert summary.exit_code == 1
    reasons = {r.status: r.reason for r in workspace.storage.records().values()}
    assert "died 3 times" in str(reasons["failed"])
    assert "done" in reasons


def test_two_workers_fill_a_cell_with_every_test_video_scored_once(workspace: Workspace) -> None:
    summary, _ = run(workspace, rows=("s4",), settings={"recipe.workers": 2})
    assert summary.exit_code == 0, summary.lines()
    (record,) = workspace.storage.records().values()
    (metrics,) = record.evaluations.values()
    manifest = workspace.dataset("motions-ucf101")
    assert metrics["videos"] == sum(item.subset == "test" for item in manifest.items(1))


def test_more_cpus_than_there_are_is_refused_before_anything_starts(workspace: Workspace) -> None:
    with pytest.raises(ImpossibleError, match=r"asks for 4 CPUs .* there are 2"):
        run(workspace, settings={"recipe.workers": 4})
    with pytest.raises(ImpossibleError, match="1 GPUs"):
        run(workspace, settings={"resources.gpus_per_worker": 1})
    assert workspace.storage.records() == {}


def test_a_second_driver_is_told_and_trains_nothing_twice(workspace: Workspace) -> None:
    order = still_missing(workspace.plan(study()), workspace).orders[0]
    with Claim(workspace.storage, order.run_id, Process.this()):
        summary, said = run(workspace)
    assert summary.exit_code == 3
    assert "is being trained by another driver" in said
    assert workspace.storage.run_ids() != []
    assert len(summary.endings.of("done")) == 1


def test_accuracies_do_not_depend_on_ray(workspace: Workspace, tmp_path: Path) -> None:
    from retable.execute.attempt import carry_out
    from retable.execute.work import train_and_score

    run(workspace, rows=("s3",))
    (through_ray,) = workspace.storage.records().values()
    (order,) = still_missing(
        workspace.plan(study(), rows=("s3",)), Workspace(str(tmp_path / "other"), workspace.data_root)
    ).orders
    order = replace(order, places=replace(order.places, storage=str(tmp_path / "other")))
    carry_out(order, lambda attempt: train_and_score(order, attempt, device="cpu"))
    alone = Workspace(str(tmp_path / "other"), workspace.data_root).storage.record(order.run_id)
    assert alone is not None
    assert alone.evaluations == through_ray.evaluations
    curve = [{k: v for k, v in e.items() if k.startswith(("train/", "test/"))} for e in alone.epochs]
    assert curve == [{k: v for k, v in e.items() if k.startswith(("train/", "test/"))} for e in through_ray.epochs]
