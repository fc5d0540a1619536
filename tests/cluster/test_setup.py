"""clusters/setup.sh: a node that fits is left as it is; one that does not is said; the token is closed to others."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from retable.execute import clusters

ROOT = Path(__file__).resolve().parents[2]
PINS = clusters.pins()
PYTHON = ".".join(map(str, sys.version_info[:2]))
ASKED = ["--python", PYTHON, "--ray", PINS.ray, "--retable", PINS.retable, "--extra", "aws,postgres"]


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node's home: the code was sent, and packages are installed (this environment's)."""
    (tmp_path / "retable").symlink_to(ROOT)
    (tmp_path / "retable-venv").symlink_to(sys.prefix)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    (tmp_path / ".bashrc").write_text("return\nnever=reached\n")
    (tmp_path / "bin").mkdir()
    for name in ("python3", "python3.99", "sudo"):  # nothing is installed here, and nothing asked for as root
        (tmp_path / "bin" / name).write_text("#!/bin/sh\necho $0 was called >&2; exit 1\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def setup(node: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {"HOME": str(node), "PATH": f"{node}/bin:/usr/bin:/bin"}
    command = ["bash", str(node / "retable" / "clusters" / "setup.sh"), *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_a_node_that_fits_gets_settings_first_a_closed_token_and_scratch_and_twice_is_as_once(node: Path) -> None:
    for _ in range(2):
        done = setup(node, *ASKED)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (node / ".bashrc").read_text().splitlines() == [". ~/retable/clusters/env.sh", "return", "never=reached"]
    assert stat.S_IMODE((node / ".ray" / "auth_token").stat().st_mode) == 0o600
    assert (node / "scratch" / "spill").is_dir()


@pytest.mark.parametrize(
    ("option", "asked", "said"),
    [("--ray", "2.9.0", f"ray is {PINS.ray}, not 2.9.0"), ("--retable", "9", f"retable is {PINS.retable}, not 9")],
)
def test_other_versions_are_named_and_the_node_is_not_used(option: str, asked: str, said: str, node: Path) -> None:
    words = [*ASKED, "--python", "3.99", option, asked]
    done = setup(node, *words)
    assert done.returncode != 0
    assert said in done.stdout
    assert f"{node}/bin/sudo was called" in done.stderr


def test_a_node_without_a_token_is_refused(node: Path) -> None:
    (node / ".ray" / "auth_token").unlink()
    done = setup(node, *ASKED)
    assert done.returncode == 1
    assert "there is no ~/.ray/auth_token: see file_mounts" in done.stderr


def test_settings_reach_every_shell(node: Path) -> None:
    setup(node, *ASKED)
    done = subprocess.run(
        ["bash", "-c", ". ~/.bashrc; env"], env={"HOME": str(node), "PATH": "/bin"}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    env = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    assert env["RAY_AUTH_MODE"] == "token"
    assert env["RAY_worker_niceness"] == "0"
    assert env["PYTHONPATH"] == f"{node}/retable/platform"
    assert env["PATH"].startswith(f"{node}/retable-venv/bin:")


@pytest.mark.parametrize("path", sorted((ROOT / "clusters" / "policies").glob("*.json")), ids=lambda p: p.stem)
def test_policies_name_their_actions_and_keep_to_what_is_the_clusters(path: Path) -> None:
    statements = json.loads(path.read_text())["Statement"]
    assert statements
    for statement in statements:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert all("*" not in action for action in actions), statement["Sid"]
        if statement.get("Resource") == "*":  # these actions know no resources
            assert all(a.startswith(("ec2:Describe", "ssm")) for a in actions), statement["Sid"]
        if "ec2:TerminateInstances" in actions:
            assert statement["Condition"]["StringEquals"] == {"aws:ResourceTag/ray-cluster-name": "CLUSTER"}
