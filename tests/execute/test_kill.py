"""kill -9 of the driver in the middle of ``retable run``, and the same command again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from retable.execute.attempt import carry_out
from retable.execute.driver import still_missing
from retable.execute.work import train_and_score
from retable.study.load import load
from retable.track.storage import Storage
from retable.workspace import Workspace
from tests.execute.small import TEXT


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "retable.cli", *words]


def environment(workspace: Workspace, storage: Path | str) -> dict[str, str]:
    return {
        **os.environ,
        "RETABLE_STORAGE": str(storage),
        "RETABLE_DATA": str(workspace.data_root),
        "RETABLE_CACHE": str(workspace.cache),
        "PYTHONUNBUFFERED": "1",
    }


def table(workspace: Workspace, storage: Path | str, study: Path) -> list[Any]:
    done = subprocess.run(
        command("table", str(study), "--format", "json", "--offline"),
        env=environment(workspace, storage), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [row["cells"]["top1"] for row in json.loads(done.stdout)["tables"][0]["rows"]]


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_a_killed_driver_loses_nothing_and_repeats_no_finished_epoch(
    where: str, workspace: Workspace, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    study = tmp_path / "small.yaml"
    study.write_text(TEXT.replace("epochs: 2", "epochs: 12"))
    place = str(tmp_path / "killed") if where == "folder" else request.getfixturevalue("bucket")
    killed, whole = Storage(place), tmp_path / "whole"
    run = command("run", str(study), "--offline", "--cpus", "2")

    driver = subprocess.Popen(run, env=environment(workspace, place), stderr=subprocess.PIPE, text=True)
    assert driver.stderr is not None
    for line in driver.stderr:
        if "epoch" in line:
            break
    os.kill(driver.pid, signal.SIGKILL)
    driver.stderr.close()
    driver.wait()
    done = [run_id for run_id in killed.run_ids() if killed.exists(f"runs/{run_id}/result.json")]
    assert len(done) < 2, "the study was over before it could be killed"

    again = subprocess.run(run, env=environment(workspace, place), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert len(killed.run_ids()) == 2
    names = {run_id: killed.names(f"runs/{run_id}/epochs") for run_id in killed.run_ids()}
    for run_id, epochs in names.items():
        assert Counter(int(n.split(".")[0]) for n in epochs) == Counter(range(12)), f"{run_id} repeated an epoch"
    assert any(n.split(".")[1] != "0" for epochs in names.values() for n in epochs), "nothing was resumed"

    undisturbed = Workspace(str(whole), workspace.data_root)
    for order in still_missing(undisturbed.plan(load(study)), undisturbed).orders:
        carry_out(order, lambda attempt, order=order: train_and_score(order, attempt, device="cpu"))  # type: ignore[misc]
    assert table(workspace, place, study) == table(workspace, whole, study)
