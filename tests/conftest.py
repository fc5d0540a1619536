"""What several rooms' tests share: a miniature of each generated dataset, one Ray for the whole session."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from retable.workspace import Workspace

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("retable", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("retable")


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Miniatures of the generated datasets: all their classes, three groups, one clip each."""
    from retable.data.generate import generate
    from retable.data.variants import VARIANTS

    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIANTS:
            patch.setitem(VARIANTS, name, replace(VARIANTS[name], groups=3, clips=1))
            generate(name, root / name, processes=1)
    return root


@pytest.fixture
def workspace(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Fresh storage and record over the miniature datasets."""
    monkeypatch.setenv("RETABLE_CACHE", str(data_root / "cache"))
    return Workspace(str(tmp_path / "store"), str(data_root))


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks for groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share the session's Ray go to one process, so that there is one Ray also under pytest-xdist."""
    for item in items:
        if "ray_local" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("ray"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """pytest-xdist marks grouped tests by their ids; a pytest that it does not know hides that from it, silently."""
    if getattr(session.config.option, "loadgroup", False):
        for item in session.items:
            if item.get_closest_marker("xdist_group") and "@" not in item.nodeid:
                raise pytest.UsageError("this pytest-xdist does not see groups: install what constraints.txt says")


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """One private local Ray of two CPUs."""
    from retable.execute.session import ray_session

    with ray_session(cpus=2):
        yield


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of an S3 server on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 60
            while server.poll() is None:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline, "moto's server does not answer"
                    time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()


@pytest.fixture
def bucket(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place in a bucket, reached as a user would: endpoint and credentials from the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anyone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    urllib.request.urlopen(urllib.request.Request(f"{s3_server}/runs", method="PUT"), timeout=30).close()
    return f"s3://runs{tmp_path}"
