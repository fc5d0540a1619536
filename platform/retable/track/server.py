"""UIs on this machine only, MLflow's first of all: started quietly, waited for, stopped as a whole."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from retable.track.connection import TrackingUnavailable, probe

HOST = "127.0.0.1"
START_SECONDS = 90.0
STOP_SECONDS = 5.0
POLL_SECONDS = 0.1
ENVIRONMENT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


@dataclass
class Server:
    """A running UI. As a context manager it stops at the end, also on Ctrl-C."""

    url: str
    process: subprocess.Popen[bytes]
    stopped: bool = False

    def wait(self) -> int:
        """Until it ends by itself, or KeyboardInterrupt."""
        return self.process.wait()

    def stop(self) -> None:
        """End the server and everything it started; nothing else, also when called twice."""
        if self.stopped:
            return  # its process group's number may be somebody else's by now
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, sign)
            except ProcessLookupError:
                break
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            if not _alive(self.process.pid):
                break
        self.process.wait()
        self.stopped = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve(uri: str, artifacts_root: str | Path, port: int | None = None, *, patience: float = START_SECONDS) -> Server:
    """Start the UI of the store ``uri`` on 127.0.0.1 and wait until it answers; a free port unless one is given.

    Raises:
        TrackingUnavailable: the store is not there, the port is taken, or the server ends or does not answer in time
            (``patience``, seconds); with the server's last words.
    """
    probe(uri)
    chosen = port or _free_port()
    return launch(
        command(uri, artifacts_root, chosen),
        chosen,
        "/health",
        lambda reason: TrackingUnavailable(uri, reason),
        patience,
    )


def launch(
    words: list[str], port: int, path: str, failure: Callable[[str], Exception], patience: float = START_SECONDS
) -> Server:
    """Start a program that serves on 127.0.0.1 at ``port``, and wait until ``path`` answers with 200.

    Raises:
        What ``failure`` makes of the reason: the port is taken, or the program ends or does not answer in time
            (``patience``, seconds); with its last words.
    """
    if _answers(port):
        raise failure(f"port {port} of {HOST} is taken by another program: give another --port")
    with tempfile.TemporaryFile() as log:
        server = Server(f"http://{HOST}:{port}", _start(words, log))
        try:
            _until_it_answers(server, f"{server.url}{path}", failure, log, time.monotonic() + patience)
        except BaseException:
            server.stop()
            raise
    return server


def command(uri: str, artifacts_root: str | Path, port: int) -> list[str]:
    """What is started: one worker, on this machine only."""
    base = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", HOST, "--port", str(port)]
    return [*base, "--backend-store-uri", uri, "--artifacts-destination", str(artifacts_root)]


def _start(words: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    # a session of its own: Ctrl-C reaches us first, and the whole group can be ended without touching anything else
    return subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, **ENVIRONMENT},
        start_new_session=True,
    )


def _until_it_answers(
    server: Server, url: str, failure: Callable[[str], Exception], log: IO[bytes], deadline: float
) -> None:
    opener = build_opener(ProxyHandler({}))  # loopback never goes through a proxy
    while True:
        if server.process.poll() is not None:
            raise failure(f"its UI ended at once: {_last_words(log)}")
        if time.monotonic() > deadline:
            raise failure(f"its UI did not answer in time: {_last_words(log)}")
        try:
            with opener.open(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (URLError, OSError):
            time.sleep(POLL_SECONDS)


def _last_words(log: IO[bytes]) -> str:
    log.seek(0)
    lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-3:]) or "no output"


def _free_port() -> int:
    with socket.socket() as probe_socket:
        probe_socket.bind((HOST, 0))
        return int(probe_socket.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
