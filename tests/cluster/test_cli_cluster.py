"""``retable cluster up``, ``down``, ``status``, ``tunnel``: refusals before anything starts, one clear line each."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest

from retable import cli, console
from retable.cluster.document import ClusterError, load
from retable.execute import clusters, ssh
from retable.execute.credentials import make_token

ROOT = Path(__file__).resolve().parents[2]
Retable = Callable[..., tuple[int, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of its own, started from the top of the checkout."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)
    return tmp_path


@pytest.fixture
def local(home: Path) -> Path:
    """A filled-in file of a cluster of machines, whose head is an address that is never there."""
    aws = (ROOT / "cluster.yaml").read_text()
    file = home / "lab.yaml"
    file.write_text(
        "cluster_name: lab\nprovider: {type: local, head_ip: 127.0.0.99, worker_ips: [127.0.0.98]}\n"
        "auth: {ssh_user: ray, ssh_private_key: ~/.ssh/lab}\n"
        + aws[aws.index("file_mounts:") :].replace("retable.token", "lab.token")
    )
    return file


@pytest.fixture
def retable(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Retable:
    """Runs a command; exit code and everything it said."""

    def run(*words: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["retable", "cluster", *map(str, words)])
        for where in (console.out, console.err):
            where.width = 200
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out + said.err

    return run


@pytest.fixture
def launcher(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for `python -m ray...`: it keeps the words and the environment that it was called with."""
    file = home / "launcher"
    file.write_text(f'#!/bin/sh\necho "$@" >> {home}/words; env > {home}/env\n')
    file.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(file))
    return home / "words"


@pytest.fixture
def answering(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes ``ssh`` end with a code, as if the head had run the command; it may say something."""
    (home / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{home}/bin:{os.environ['PATH']}")

    def answer(code: int, said: str = "") -> None:
        text = f'#!/bin/sh\necho "$@" >> {home}/asked; echo "{said}" >&2; exit {code}\n'
        (home / "bin" / "ssh").write_text(text)
        (home / "bin" / "ssh").chmod(0o755)

    return answer


def with_key(home: Path, mode: int = 0o600) -> None:
    (home / ".ssh").mkdir()
    (home / ".ssh" / "lab").write_text("a key")
    (home / ".ssh" / "lab").chmod(mode)


def test_up_refuses_what_is_not_filled_in(retable: Retable) -> None:
    code, said = retable("up", ROOT / "cluster.yaml")
    assert code == 3
    assert "'sg-CHANGE-ME' is still to be filled in" in said
    assert "nothing was started" in said


def test_up_refuses_a_manifest_of_kubernetes(retable: Retable, home: Path) -> None:
    manifest = home / "job.yaml"
    manifest.write_text((ROOT / "clusters" / "kuberay-rayjob.yaml").read_text().replace("CHANGE-ME", "registry"))
    code, said = retable("up", manifest)
    assert code == 3
    assert f"kubectl apply -f {manifest}" in said


def test_up_says_how_to_make_a_missing_key(retable: Retable, local: Path, home: Path) -> None:
    code, said = retable("up", local)
    assert code == 3
    assert f"there is no ssh key {home}/.ssh/lab: ssh-keygen" in said


@pytest.mark.parametrize("command", ["up", "status", "tunnel"])
def test_a_key_that_others_may_read_is_refused(command: str, retable: Retable, local: Path, home: Path) -> None:
    with_key(home, 0o644)
    code, said = retable(command, local)
    assert code == 3
    assert f"chmod 600 {home}/.ssh/lab" in said


def test_up_from_another_folder_says_where_to_start(
    retable: Retable, local: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_key(home)
    monkeypatch.chdir(home)
    code, said = retable("up", local)
    assert code == 3
    assert "./platform" in said
    assert "start at the top of the checkout" in said


LAUNCHED = ["-m", "ray.scripts.scripts", "up", "--yes", "--no-config-cache"]


def test_up_runs_the_launcher_without_restart_with_a_token_and_the_old_autoscaler_for_machines(
    retable: Retable, local: Path, home: Path, launcher: Path, answering: Callable[[int], None]
) -> None:
    with_key(home)
    answering(0)
    assert retable("up", local)[0] == 0
    assert launched(launcher, local) == [[*LAUNCHED, "--no-restart"]]
    assert (home / "asked").read_text().endswith("ray@127.0.0.99 pgrep -x gcs_server\n")
    env = dict(line.partition("=")[::2] for line in (home / "env").read_text().splitlines())
    assert env["RAY_UP_enable_autoscaler_v2"] == "0"
    assert stat.S_IMODE((home / ".ray" / "lab.token").stat().st_mode) == 0o600
    launcher.unlink()
    assert retable("up", local, "--restart", "--yes")[0] == 0
    assert launched(launcher, local) == [LAUNCHED]


def test_up_starts_ray_again_on_a_head_that_came_back_without_it(
    retable: Retable, local: Path, home: Path, launcher: Path, answering: Callable[[int], None]
) -> None:
    with_key(home)
    answering(1)
    assert retable("up", local)[0] == 0
    assert launched(launcher, local) == [[*LAUNCHED, "--no-restart"], LAUNCHED]


@pytest.mark.parametrize("code", [2, 127])
def test_ray_is_not_restarted_where_it_is_not_clear_that_there_is_none(
    code: int, retable: Retable, local: Path, home: Path, launcher: Path, answering: Callable[[int], None]
) -> None:
    with_key(home)
    answering(code)
    assert retable("up", local)[0] == 0
    assert launched(launcher, local) == [[*LAUNCHED, "--no-restart"]]


def launched(words: Path, file: Path) -> list[list[str]]:
    """The calls of the launcher, without the file that each of them names."""
    return [[word for word in line.split() if word != str(file)] for line in words.read_text().splitlines()]


def test_a_cluster_ends_though_its_key_and_token_are_lost(retable: Retable, local: Path, launcher: Path) -> None:
    assert retable("down", local, "--yes")[0] == 0
    assert launcher.read_text().split() == ["-m", "ray.scripts.scripts", "down", str(local), "--yes"]


def test_a_restart_is_asked_about(retable: Retable, local: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_key(home)
    monkeypatch.setattr(sys, "stdin", StringIO(""))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    code, said = retable("up", local, "--restart")
    assert code == 130
    assert "ends every job" in said


def test_a_token_is_made_once_and_closed_to_others(local: Path) -> None:
    file = load(local)
    path = make_token(file)
    token = path.read_text()
    assert len(token) == 64
    path.chmod(0o644)
    assert make_token(file).read_text() == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("")
    with pytest.raises(ClusterError, match="is empty"):
        make_token(file)


def test_a_head_that_does_not_answer_is_a_line(
    retable: Retable, local: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "REACH_SECONDS", 1.0)
    with_key(home)
    for command in ("status", "tunnel"):
        code, said = retable(command, local)
        assert code == 3
        assert "cannot reach the head of lab by ssh" in said
        assert "VPN" in said


def test_a_head_with_another_host_key_is_told_apart_from_one_that_is_away(
    retable: Retable, local: Path, home: Path, answering: Callable[..., None]
) -> None:
    with_key(home)
    answering(255, "Host key verification failed.")
    code, said = retable("status", local)
    assert code == 3
    assert f"installed anew, retable cluster down {local} forgets the old key" in " ".join(said.split())


def test_a_taken_port_is_named(retable: Retable, local: Path, home: Path) -> None:
    with_key(home)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = retable("tunnel", local, "--dashboard", str(port))
    assert code == 3
    assert f"port {port} of this machine is taken" in said


def test_a_cloud_that_knows_no_head_is_a_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto import mock_aws

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws(), pytest.raises(ClusterError, match="retable has no head: retable cluster up"):
        clusters.head(load(ROOT / "cluster.yaml"))
