"""A real Ray head on this machine with ports and a folder of its own, as ``ray start --head`` gives it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import psutil
import requests

START_SECONDS = 300.0
PORTS = (
    "port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port",
    "runtime-env-agent-port", "ray-client-server-port", "node-manager-port", "object-manager-port",
)  # fmt: skip

TRIES = 3
"""Ray gives its own parts 30 s to start, which is too little on a very busy machine."""


@dataclass(frozen=True)
class Head:
    """A running head: its dashboard, and what a driver connects to."""

    url: str
    gcs: str


@contextmanager
def head(cpus: int = 2, env: Mapping[str, str] | None = None) -> Iterator[Head]:
    """Start one, wait until its jobs API answers, and end every process of it at the end."""
    for attempt in range(TRIES):
        with ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="rh-"))  # short: socket paths end at 107 bytes
            stack.callback(rmtree, folder, ignore_errors=True)
            ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
            process = _start(folder, cpus, ports, env or {})
            stack.callback(_end, process)
            url = f"http://127.0.0.1:{ports['dashboard-port']}"
            if _answers(url, process, folder / "start.log"):
                yield Head(url, f"127.0.0.1:{ports['port']}")
                return
            said = (folder / "start.log").read_text()
            assert attempt + 1 < TRIES, f"the head did not come up: {said[-2000:]}"


def _start(folder: Path, cpus: int, ports: Mapping[str, int], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    programs = Path(sys.executable).parent
    command = [str(programs / "ray"), "start", "--head", "--block", f"--num-cpus={cpus}"]
    command += [f"--temp-dir={folder}", "--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    own = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    own["PATH"] = f"{programs}:{own['PATH']}"  # as in an activated environment: a job's `python` is found there
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "RAY_AUTH_MODE": "disabled"}
    with (folder / "start.log").open("wb") as log:
        return subprocess.Popen(
            command, env={**own, **quiet, **env}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip


def _answers(url: str, process: subprocess.Popen[bytes], log: Path) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            answer = requests.get(f"{url}/api/version", timeout=5).status_code
            if answer in (200, 401) and "Ray runtime started" in log.read_text():
                return True
        except requests.RequestException:
            pass
        time.sleep(0.2)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    ours = psutil.Process(process.pid).children(recursive=True)
    process.terminate()  # `ray start --block` ends what it started
    _, left = psutil.wait_procs(ours, timeout=15)
    for each in left:
        each.kill()
    process.kill()
    process.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in taken]
