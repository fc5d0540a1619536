"""Stages through Ray Tune: order, one failing family beside a whole one, and the same command again."""

from __future__ import annotations

import io
import os
import signal
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from retable.execute.attempt import carry_out
from retable.execute.driver import Summary, run_study, still_missing
from retable.execute.work import train_and_score
from retable.study.load import load
from retable.workspace import Workspace
from tests.execute.small import study
from tests.execute.staged import FEATURES, WEIGHTS
from tests.execute.test_kill import command, environment, table

pytestmark = pytest.mark.usefixtures("ray_local")

TWO = WEIGHTS + "      - {id: lost, label: lost, init_from: {set: {recipe.lr: 1.0e+30, recipe.epochs: 1}}}\n"


def run(workspace: Workspace, text: str) -> tuple[Summary, str]:
    said = io.StringIO()
    loaded = study(text)
    console = Console(file=said, width=200)
    return run_study(loaded, workspace.plan(loaded), workspace, console, record=False), said.getvalue()


def run_alone(workspace: Workspace, text: str) -> str:
    """By a command with a Ray of its own: a run that needs all CPUs would wait for ever for one that a shared Ray has
    lost, as Ray 2.60 does when a placement group is removed while it is made (seen once)."""
    file = Path(workspace.storage_url).parent / "alone.yaml"
    file.write_text(text)
    words = command("run", str(file), "--offline", "--cpus", "2")
    told = environment(workspace, workspace.storage_url)
    done = subprocess.run(words, env=told, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_parents_run_first_and_a_failed_one_marks_its_child_only(workspace: Workspace) -> None:
    summary, said = run(workspace, TWO)
    assert summary.exit_code == 1
    assert (len(summary.endings.of("done")), len(summary.endings.of("failed"))) == (2, 1)
    (failed,) = summary.endings.of("failed")
    assert list(summary.endings.of("blocked").values()) == [f"not run: parent failed ({failed})"]
    assert f"not run: parent failed ({failed}): 1 runs" in summary.lines()
    assert said.index("t · once · seed 0: done") < said.index("t · twice · seed 0: started")
    again, _ = run(workspace, TWO)
    assert (again.missing.orders, again.missing.done, len(again.missing.blocked)) == ((), 2, 1)
    assert again.exit_code == 1


def test_heads_run_at_once_over_the_features_of_their_parent(workspace: Workspace) -> None:
    summary, said = run(workspace, FEATURES)
    assert summary.exit_code == 0, summary.lines()
    assert "t · with the attention loss · first stage · seed 0: done" in said
    assert len(summary.endings.of("done")) == 3


def test_a_driver_killed_between_stages_loses_nothing(workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "heads.yaml"
    file.write_text(FEATURES.replace("epochs: 2", "epochs: 12"))
    killed, words = tmp_path / "killed", command("run", str(file), "--offline", "--cpus", "2")
    driver = subprocess.Popen(words, env=environment(workspace, killed), stderr=subprocess.PIPE, text=True)
    assert driver.stderr is not None
    for line in driver.stderr:
        if "first stage" in line and "done" in line:
            break
    os.kill(driver.pid, signal.SIGKILL)
    driver.stderr.close()
    driver.wait()
    assert len(list(killed.glob("runs/*/result.json"))) < 3, "the study was over before it could be killed"
    again = subprocess.run(words, env=environment(workspace, killed), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    whole = Workspace(str(tmp_path / "whole"), workspace.data_root)
    for order in still_missing(whole.plan(load(file)), whole).orders:
        carry_out(order, lambda attempt, order=order: train_and_score(order, attempt, device="cpu"))  # type: ignore[misc]
    assert table(workspace, killed, file) == table(workspace, tmp_path / "whole", file)


def test_a_head_trains_on_two_ranks_over_the_features_of_a_parent_of_one(workspace: Workspace) -> None:
    text = FEATURES.replace("data.clip.frames: 1,", "data.clip.frames: 1, recipe.workers: 1,")
    text = text.replace("label: with the attention loss}", "label: with the attention loss, set: {recipe.workers: 2}}")
    text = "\n".join(line for line in text.splitlines() if "id: without" not in line)
    run_alone(workspace, text)
    first, head = workspace.plan(study(text)).runs
    assert (first.training.config.recipe.workers, head.training.config.recipe.workers) == (1, 2)
    assert head.parents == (first.run_id,)
    record = workspace.storage.record(head.run_id)
    assert record is not None
    assert 0.0 < record.epochs[-1]["train/judged_false"] < 1.0
    (view,) = head.training.views
    assert 0 <= record.evaluations[view.key]["top1"] <= 100


def test_a_throughput_is_measured_over_all_workers(workspace: Workspace) -> None:
    text = WEIGHTS.replace('top1: {metric: top1, unit: "%"}', "speed: {metric: videos_per_second}")
    text = "\n".join(line for line in text.splitlines() if "id: twice" not in line).replace(
        "set: {recipe.lr: 1.0e-3,", "set: {recipe.workers: 2,"
    )
    said = run_alone(workspace, text)
    assert "t · once · speed: done" in said
    assert "1 speeds measured, 0 were measured already" in said
    (measurement,) = workspace.plan(study(text)).measurements.values()
    record = workspace.storage.record(measurement.run_id)
    assert record is not None
    (found,) = record.evaluations.values()
    assert (found["videos"], found["batch"]) == (12.0, 8.0)
    assert found["videos_per_second"] > 0
