"""kill -9 of the driver in the middle of ``retable search``, the same command again, and what follows it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from retable.workspace import Workspace
from tests.execute.small import TEXT
from tests.execute.test_kill import command, environment
from tests.execute.test_search_rows import TABLE

SEARCH = """
search:
  space:
    model.groups: {choice: [3, 4]}
    recipe.lr: {log_uniform: [1.0e-4, 1.0e-2]}
  objective: {maximize: top1, on: val}
  holdout: 0.4
  first: [table2.s4]
  sampler: random
  scheduler: {kind: asha, eta: 2}
"""


def told(*words: str, env: dict[str, str], code: int = 0) -> str:
    done = subprocess.run(command(*words), env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


def killed_at(line: str, *words: str, env: dict[str, str]) -> None:
    driver = subprocess.Popen(command(*words), env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert driver.stderr is not None
    assert any(line in told for told in driver.stderr), f"it ended without saying {line!r}"
    os.kill(driver.pid, signal.SIGKILL)
    driver.stderr.close()
    driver.wait()


def assert_no_epoch_is_repeated(storage: Path) -> None:
    for folder in (storage / "runs").iterdir():
        epochs = Counter(int(f.name.split(".")[0]) for f in (folder / "epochs").glob("*.json"))
        assert set(epochs.values()) == {1}, f"{folder.name} repeated an epoch"


def test_a_killed_search_goes_on_and_its_best_can_be_ablated(workspace: Workspace, tmp_path: Path) -> None:
    study, storage = tmp_path / "small.yaml", tmp_path / "store"
    study.write_text(TEXT.replace("epochs: 2", "epochs: 5") + SEARCH)
    env = environment(workspace, storage)
    words = "search", str(study), "--trials", "5", "--offline", "--cpus", "2", "--concurrency", "1"
    killed_at("trial 1: started", *words, env=env)

    doc: dict[str, Any] = json.loads(told(*words, "--json", env=env))
    states = Counter(t["state"] for t in doc["trials"])
    assert states["complete"] + states["pruned"] == 5, doc["trials"]
    assert_no_epoch_is_repeated(storage)
    assert sum(t["epochs"] for t in doc["trials"]) == doc["accounting"]["epochs"]
    values = {t["run_id"]: t["values"][0] for t in doc["trials"] if t["state"] == "complete"}
    scored = [json.loads(f.read_text())["top1"] for f in storage.glob("runs/*/scores/*.json")]
    best = next(t for t in doc["trials"] if t["number"] == doc["best"][0])
    assert best["values"][0] == max(values.values()) == max(scored)
    assert doc["trials"] == json.loads(told("search", str(study), "--show", "--json", env=env))["trials"]

    made = tmp_path / "ablation.yaml"
    told("ablate", str(study), "--from", best["run_id"][:8], "--out", str(made), env=env)
    assert "valid" not in told("lint", str(made), env=env)
    told("ablate", str(study), "--out", str(made), env=env, code=2)  # it is there already


def test_a_run_that_is_killed_while_a_row_is_tuned_goes_on_there(workspace: Workspace, tmp_path: Path) -> None:
    study, storage = tmp_path / "small.yaml", tmp_path / "store"
    study.write_text(TEXT + TABLE.replace("VIDEOS", "val"))
    env = environment(workspace, storage)
    words = "run", str(study), "--tables", "tuned", "--offline", "--cpus", "1"
    killed_at("tuned.s4 · trial 0: started", *words, env=env)
    tuned = sorted((storage / "search").glob("*.json"))
    told(*words, env=env)

    assert_no_epoch_is_repeated(storage)
    assert len(tuned) == 1, "only the first row was tuned"
    ends = [json.loads(f.read_text()) for f in sorted((storage / "search").glob("*.json"))]
    assert [(end["row"], end["trials"]["complete"]) for end in ends] == [(["tuned", "s3"], 2), (["tuned", "s4"], 2)]
    doc = json.loads(told("table", str(study), "--format", "json", "--offline", "--tables", "tuned", env=env))
    assert [row["cells"]["best"]["status"] for row in doc["tables"][0]["rows"]] == ["done", "done"]
