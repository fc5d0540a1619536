"""``clusters/onprem.yaml`` as shipped, on three hosts: up, a study that spreads over them, its record, and down."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.hosts import Host, missing
from tests.cluster.onprem import MLFLOW, POSTGRES, STORAGE, OnPrem, local_table, onprem

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.timeout(1500),
    pytest.mark.xdist_group("cluster"),
]


@contextmanager
def faulty(host: Host, mount: str) -> Iterator[None]:
    """The host with another disk over a shared folder, which its last word names."""
    host.run(mount)
    try:
        yield
    finally:
        host.run(f"umount {mount.split()[-1]}")


def spread(site: OnPrem, storage: Path) -> set[str]:
    """The hosts of two runs. The first is held until the second has begun: it may end before that, and Ray then gives
    its process to the second."""

    def begun() -> list[tuple[str, int]]:
        claims = [json.loads(file.read_text())["worker"] for file in storage.glob("runs/*/attempts/0/claim.json")]
        return [(str(claim["host"]).split("/")[0], int(claim["pid"])) for claim in claims]

    ((name, pid), *_) = until(begun, "a run begins")
    (first,) = [host for host in site.workers if host.name == name]
    first.run(f"kill -STOP {pid}")
    try:
        until(lambda: len(begun()) == 2, "another begins")
        return {host for host, _ in begun()}
    finally:
        first.run(f"kill -CONT {pid}")


def until(call: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if answer := call():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"in vain: {what}")


def test_a_study_on_three_hosts_gives_the_local_table(tmp_path: Path) -> None:
    if POSTGRES is None:
        print("Postgres is not installed (on Debian: postgresql): MLflow keeps its record in sqlite")
    with onprem(tmp_path) as site:
        site.retable(f"cluster up {site.file}", cwd=str(Path(__file__).resolve().parents[2]))
        site.await_nodes(3)

        ask = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8265/api/version"
        assert site.head.run(ask).stdout == "401", "the dashboard wants a token"
        assert site.workers[0].run(f"{ask.replace('127.0.0.1', 'head')} || true").stdout == "000", "and is on loopback"

        said = site.retable(site.submit("--dry-run"))
        assert "ok   machines: 2 that work; 3 runs fit" in said, said
        one, two = site.workers
        with faulty(one, "mount -t tmpfs none /shared/data"), faulty(two, "mount --bind -o ro /shared /shared"):
            said = site.retable(site.submit("--dry-run"), check=False)
        assert "one: dataset motions-ucf101: there is no folder /shared/data/motions-ucf101" in said, said
        assert re.search(rf"two: {STORAGE}\S* is not writable; choose another --storage", said), said
        job = re.search(r"^job (\S+)$", site.retable(site.submit("--rows 's*'")), re.MULTILINE)
        assert job is not None
        hosts = spread(site, tmp_path / "shared" / "runs")
        assert hosts == {"one", "two"}, "a host of one CPU trains one run; the head trains nothing"
        said = site.retable(f"jobs {job[1]} --cluster {site.file} --follow")
        assert "2 runs trained, 0 were done already" in said, said
        said = site.retable(site.submit("--follow"))
        assert "1 runs trained, 2 were done already" in said, said  # two workers on hosts of one CPU each: across both

        cluster = site.table(f"--storage {STORAGE} --offline")
        recorded = site.table(f"--storage /tmp/nothing --tracking-uri {MLFLOW}")

        site.retable(f"cluster down {site.file} --yes")
        assert site.nodes() == 0
        again = site.head.run("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:5000/health").stdout
        assert again == "200", "MLflow outlives the cluster"
    here = local_table(tmp_path, tmp_path / "shared" / "data")
    assert cluster == here
    assert recorded == here, "MLflow alone gives the table too"
