"""A study sent to a real Ray head that wants a token: admission, checks, stopping, going on."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from retable.execute import jobs, nodes
from retable.execute.attempt import carry_out
from retable.execute.driver import still_missing
from retable.execute.jobs import Cluster, JobsUnavailable, read_token
from retable.execute.submit import submission
from retable.execute.work import train_and_score
from retable.study.load import load
from retable.track.storage import Storage
from retable.workspace import Workspace
from tests.execute.head import Head, head
from tests.execute.small import TEXT

TOKEN = "0123456789abcdef" * 4
ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 60


@pytest.fixture(scope="module")
def cluster() -> Iterator[Head]:
    with head(env={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}) as running:
        yield running


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This user's token file."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    return file


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a study in it, and what must not be sent."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "small.yaml").write_text(TEXT.replace("epochs: 2", f"epochs: {EPOCHS}"))
    return folder


def retable(project: Path, *words: str, check: int | None = 0) -> str:
    """What a command prints, both streams, in the project's folder."""
    done = subprocess.run(
        [sys.executable, "-m", "retable.cli", *words],
        cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "platform"), "COLUMNS": "200"},
    )  # fmt: skip
    assert check is None or done.returncode == check, done.stdout
    return done.stdout


def job_id(said: str) -> str:
    found = re.search(r"^job (\S+)$", said, re.MULTILINE)
    assert found is not None, said
    return found[1]


def test_without_the_token_nobody_is_let_in(cluster: Head, token: Path) -> None:
    Cluster(cluster.url)
    token.chmod(0o644)
    with pytest.raises(JobsUnavailable, match=r"others on this machine may read the token .*: chmod 600"):
        Cluster(cluster.url)
    token.chmod(0o600)
    token.write_text("f" * 64)
    with pytest.raises(JobsUnavailable, match=r"refuses the token in .*/token: it is another cluster's, or an old one"):
        Cluster(cluster.url)
    token.unlink()
    with pytest.raises(JobsUnavailable, match=r"wants a token, and there is none in .*/token"):
        Cluster(cluster.url)


def test_another_version_of_ray_is_named_and_refused(
    cluster: Head, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "__version__", "2.59.1")
    with pytest.raises(JobsUnavailable, match=r"the cluster runs Ray 2\.60\.0, this machine has Ray 2\.59\.1: install"):
        Cluster(cluster.url)


def test_a_job_that_is_not_there_is_said_to_be_unknown(cluster: Head, token: Path) -> None:
    with pytest.raises(JobsUnavailable, match="knows no such job: retable jobs lists them"):
        Cluster(cluster.url).job("nothing")


def test_an_address_that_nobody_answers_at_is_refused_within_seconds() -> None:
    start = time.monotonic()
    with pytest.raises(
        JobsUnavailable, match=r"nobody answers at http://127\.0\.0\.1:9 \(Connection refused\): is the cluster up"
    ):
        Cluster("http://127.0.0.1:9")
    assert time.monotonic() - start < 2 * jobs.CONNECT_SECONDS


def test_a_server_that_is_no_dashboard_is_refused(s3_server: str) -> None:
    with pytest.raises(JobsUnavailable, match="is something else than a Ray dashboard"):
        Cluster(s3_server)


def test_a_token_in_the_environment_needs_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert read_token() == TOKEN


def test_a_study_is_named_as_the_cluster_finds_it(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    assert submission("small.yaml", (), folder=project).study == "small.yaml"
    assert submission("msfnet", ("--seeds", "2"), folder=project).study == "msfnet"
    with pytest.raises(JobsUnavailable, match="lies outside"):
        submission("small.yaml", (), folder=tmp_path / "other")


def test_the_head_runs_the_same_options_with_the_code_that_was_sent(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    sent = submission("small.yaml", ("--rows", "s 3"), folder=project, variables={"NCCL_DEBUG": "INFO"})
    words = shlex.split(sent.entrypoint.splitlines()[-1])
    assert words[:5] == ["exec", "python", "-m", "retable.cli", "run-submitted"]
    assert json.loads(words[6]) == nodes.versions()
    assert words[7:] == ["small.yaml", "--rows", "s 3"]
    assert sent.environment["NCCL_DEBUG"] == "INFO"
    assert "PYTHONPATH" not in sent.environment
    (project / "platform/retable").mkdir(parents=True)
    (project / "platform/retable/cli.py").touch()
    assert sent.environment["PYTHONPATH"] == "platform"


@pytest.mark.parametrize("installed", [True, False])
def test_a_head_whose_python_lacks_retable_says_so_and_what_to_do(
    installed: bool, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    path = tmp_path / "bin"
    path.mkdir()
    if installed:
        (path / "python").write_text(f'#!/bin/sh\nexec {sys.base_prefix}/bin/python3 -I -S "$@"\n')
        (path / "python").chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", submission("small.yaml", (), folder=project).entrypoint],
        env={"PATH": str(path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    first = "No module named 'retable'" if installed else "not found"
    which = str(path / "python") if installed else "none"
    assert first in done.stderr
    assert f"the head's python ({which}) cannot import retable; the error is above. Install it where" in done.stderr


def test_folders_of_this_machine_and_faulty_studies_are_refused_before_anything_is_sent(project: Path) -> None:
    said = retable(project, "submit", "small.yaml", "--storage", "here", check=2)
    assert "--storage here is a folder of this machine" in said
    (project / "small.yaml").write_text(TEXT.replace("lr:", "lrr:"))
    assert "small.yaml:7" in retable(project, "submit", "small.yaml", "--storage", "/shared", check=2)


def test_a_dry_run_names_all_that_is_wrong_on_the_cluster(cluster: Head, token: Path, project: Path) -> None:
    missing = ["--storage", "/proc/nothing", "--data", str(project), "--tracking-uri", "http://127.0.0.1:9"]
    said = retable(project, "submit", "small.yaml", "--address", cluster.url, "--dry-run", *missing, check=3)
    assert "ok   versions: the same" in said
    assert "FAIL storage: " in said
    assert "FAIL datasets: dataset motions-ucf101: there is no folder" in said
    assert "FAIL MLflow: cannot use MLflow at http://127.0.0.1:9: nobody answers there" in said
    assert "FAIL machines: " in said


def test_a_stopped_study_is_saved_and_goes_on_when_it_is_submitted_again(
    cluster: Head, token: Path, project: Path, workspace: Workspace, tmp_path: Path
) -> None:
    storage = Storage(tmp_path / "runs")
    words = ["submit", "small.yaml", "--address", cluster.url, "--offline"]
    words += ["--storage", storage.root, "--data", str(workspace.data_root)]
    job = job_id(retable(project, *words))
    await_epoch(storage)
    said = retable(project, "stop", job, "--address", cluster.url)
    assert f"{job}: stopped; submit the study again to go on" in said
    log = retable(project, "jobs", job, "--address", cluster.url, "--follow", check=130)
    assert "saved where they were or not begun" in log
    begun = storage.run_ids()
    assert all(storage.exists(f"runs/{r}/attempts/0/released.json") for r in begun), "no claim is left behind"
    assert any(b"stopped in epoch" in (storage.get(f"runs/{r}/log.txt") or b"") for r in begun)

    said = retable(project, *words, "--follow")
    assert "2 runs trained, 0 were done already" in said
    for run_id in storage.run_ids():
        epochs = [int(n.split(".")[0]) for n in storage.names(f"runs/{run_id}/epochs")]
        assert Counter(epochs) == Counter(range(EPOCHS)), "an epoch was repeated"
    whole = Workspace(str(tmp_path / "whole"), workspace.data_root)
    for order in still_missing(whole.plan(load(project / "small.yaml")), whole).orders:
        carry_out(order, lambda attempt, order=order: train_and_score(order, attempt, device="cpu"))  # type: ignore[misc]
    assert table(project, storage.root, workspace) == table(project, whole.storage.root, workspace)
    listed = json.loads(retable(project, "jobs", "--address", cluster.url, "--json"))["jobs"]
    assert [j["status"] for j in listed if storage.root in j["about"]] == ["succeeded", "stopped"]


def await_epoch(storage: Storage) -> None:
    deadline = time.monotonic() + 120
    while not any(storage.names(f"runs/{run_id}/epochs") for run_id in storage.run_ids()):
        assert time.monotonic() < deadline, "no epoch was finished"
        time.sleep(0.2)


def table(project: Path, storage: str, workspace: Workspace) -> list[Any]:
    places = ["--storage", storage, "--data", str(workspace.data_root), "--offline", "--format", "json"]
    return [
        row["cells"]["top1"]
        for row in json.loads(retable(project, "table", "small.yaml", *places))["tables"][0]["rows"]
    ]
