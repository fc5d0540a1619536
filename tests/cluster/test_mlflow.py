"""The script that runs MLflow on a head: what it refuses before it starts anything."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.cluster.hosts import ROOT

SCRIPT = ROOT / "clusters" / "mlflow" / "serve.sh"


def serve(home: Path, settings: str, mode: int = 0o600) -> subprocess.CompletedProcess[str]:
    file = home / "retable-mlflow.env"
    file.write_text(settings)
    file.chmod(mode)
    env = {"HOME": str(home), "PATH": os.environ["PATH"]}
    return subprocess.run(["bash", str(SCRIPT), "run"], env=env, capture_output=True, text=True, check=False)


def test_settings_that_others_may_read_are_refused(tmp_path: Path) -> None:
    done = serve(tmp_path, "MLFLOW_STORE=sqlite:////x\n", 0o644)
    assert done.returncode == 1
    assert f"others may read {tmp_path}/retable-mlflow.env: chmod 600" in done.stderr


def test_it_is_not_opened_to_a_network_without_asking_who_comes(tmp_path: Path) -> None:
    done = serve(tmp_path, "MLFLOW_HOST=0.0.0.0\n")
    assert done.returncode == 1
    assert "0.0.0.0 is open to the network, and nobody would be asked who he is" in done.stderr


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("", "--host 127.0.0.1 --port 5000 --workers 1 --backend-store-uri sqlite:///{home}/mlflow/mlflow.db"),
        ("MLFLOW_STORE=postgresql+psycopg2://db/x\nMLFLOW_ARTIFACTS=s3://b/m\n", "--artifacts-destination s3://b/m"),
        (
            "MLFLOW_HOST=0.0.0.0\nMLFLOW_AUTH_CONFIG_PATH=/etc/a.ini\nMLFLOW_ALLOWED_HOSTS=m.example\n",
            "--allowed-hosts m.example --app-name basic-auth",
        ),
    ],
)
def test_settings_become_options_of_the_server(settings: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    told = tmp_path / "bin" / "mlflow"
    told.write_text('#!/bin/sh\necho "$@"\n')
    told.chmod(0o755)
    (tmp_path / "retable-mlflow.env").write_text(settings)
    (tmp_path / "retable-mlflow.env").chmod(0o600)
    env = {"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    done = subprocess.run(["bash", str(SCRIPT), "run"], env=env, capture_output=True, text=True, check=True)
    assert words.format(home=tmp_path) in done.stdout
