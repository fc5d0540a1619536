"""ssh to a cluster's head: one command, or ports of its loopback brought to ours."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from retable.cluster.document import ClusterError, ClusterFile
from retable.execute.credentials import require_key

REACH_SECONDS = 20.0


def run(file: ClusterFile, head: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the head, quietly.

    Raises:
        ClusterError: there is no usable key, or the head does not answer.
    """
    require_key(file)
    done = subprocess.run(
        [*_command(file, head, []), command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode == 255:  # ssh's own failures
        raise _unreachable(file, done.stderr)
    return done


@contextmanager
def forward(file: ClusterFile, head: str, ports: Mapping[int, int]) -> Iterator[subprocess.Popen[str]]:
    """Forward local ports of 127.0.0.1 to ports of the head's loopback, while the block runs.

    Raises:
        ClusterError: a local port is taken, or the head does not answer.
    """
    require_key(file)
    for local in ports:
        _require_free(local)
    forwards = [word for local, remote in ports.items() for word in ("-L", f"127.0.0.1:{local}:127.0.0.1:{remote}")]
    command = _command(file, head, ["-N", *forwards])
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            _await_ports(file, process, list(ports))
            yield process
        finally:
            process.terminate()


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise ClusterError(
                f"port {port} of this machine is taken: choose another, or end the other tunnel"
            ) from None


def _await_ports(file: ClusterFile, process: subprocess.Popen[str], ports: list[int]) -> None:
    deadline = time.monotonic() + 2 * REACH_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            assert process.stderr is not None
            raise _unreachable(file, process.stderr.read())
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", ports[0])) == 0:
                return
        time.sleep(0.1)
    raise _unreachable(file, "no answer")


def _unreachable(file: ClusterFile, said: str) -> ClusterError:
    reason = (said.strip().splitlines() or ["no answer"])[-1]
    hint = f"is the cluster up (retable cluster up {file.source.file}), and are you on its network or VPN?"
    if reason.startswith("Host key verification failed"):
        hint = (
            "it shows another host key than at first. If the machine was installed anew, retable cluster down"
            f" {file.source.file} forgets the old key; otherwise somebody else answers"
        )
    return ClusterError(f"cannot reach the head of {file.name} by ssh: {reason}\n{hint}")


def _command(file: ClusterFile, head: str, options: list[str]) -> list[str]:
    """An ssh to the head that trusts its host key on first use, and from then on until the cluster goes down."""
    auth = file.section("auth")
    given = {
        "BatchMode": "yes",
        "ConnectTimeout": f"{REACH_SECONDS:.0f}",
        "ExitOnForwardFailure": "yes",
        "IdentitiesOnly": "yes",
        "ServerAliveInterval": "10",
        "StrictHostKeyChecking": "accept-new",
        "UserKnownHostsFile": str(known_hosts(file)),
        "LogLevel": "ERROR",
    }
    if auth.get("ssh_proxy_command"):
        given["ProxyCommand"] = str(auth["ssh_proxy_command"])
    if auth.get("ssh_private_key"):
        given["IdentityFile"] = str(Path(str(auth["ssh_private_key"])).expanduser())
    words = [word for name, value in given.items() for word in ("-o", f"{name}={value}")]
    return ["ssh", *words, *options, f"{auth.get('ssh_user', 'ubuntu')}@{head}"]


def known_hosts(file: ClusterFile) -> Path:
    """Where the head's host key is kept from its first use until the cluster goes down."""
    return Path.home() / ".ray" / f"{file.name}.known_hosts"
