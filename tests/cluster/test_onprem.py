"""``clusters/onprem.yaml`` as shipped, on three hosts: up, a study that spreads over them, its record, and down."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.hosts import Host, missing
from tests.cluster.onprem import MLFLOW, POSTGRES, STORAGE, local_table, onprem

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
        said = site.retable(site.submit("--rows 's*' --follow"))
        assert "2 runs trained, 0 were done already" in said, said
        shared = tmp_path / "shared" / "runs"
        hosts = {f.read_text().split('"host": "')[1].split('"')[0] for f in shared.glob("runs/*/attempts/0/env*.json")}
        assert hosts == {"one", "two"}, "a host of one CPU trains one run; the head trains nothing"
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
