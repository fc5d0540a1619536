"""An on-prem cluster of hosts in namespaces, started from the shipped file: head, two workers, a laptop, a shared disk.

The head runs MLflow, over Postgres where it is installed and else over sqlite; their files are on the shared disk.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.cluster.hosts import HOME, ROOT, Host, Lan, lan
from tests.execute.small import TEXT

STUDY = TEXT.replace(
    "      - {id: s4, label: S = 4,",
    "      - {id: both, label: two hosts, set: {recipe.workers: 2}}\n      - {id: s4, label: S = 4,",
)
"""The miniature study with a third row, whose runs train with two workers."""
STORAGE, DATA = "/shared/runs", "/shared/data"
MLFLOW = "http://127.0.0.1:5000"
POSTGRES = next((str(p.parent) for p in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)), None)
"""Where Debian keeps Postgres, None where it is not installed."""
_AS_POSTGRES = "setpriv --reuid 100 --regid 65534 --clear-groups"  # the user of sshd: Postgres does not run as root


@dataclass
class OnPrem:
    """The hosts, and what a user of the laptop does with the cluster."""

    network: Lan
    laptop: Host
    head: Host
    workers: list[Host]
    study: str = f"{HOME}/project/small.yaml"
    file: str = f"{HOME}/onprem.yaml"

    def retable(self, words: str, *, cwd: str = f"{HOME}/project", timeout: float = 900, check: bool = True) -> str:
        """What a ``retable`` command on the laptop prints."""
        env = {"PYTHONPATH": f"{ROOT}/platform", "RAY_USAGE_STATS_ENABLED": "0"}
        done = self.laptop.run(f"python -m retable.cli {words}", env=env, cwd=cwd, timeout=timeout, check=check)
        return done.stdout

    def submit(self, words: str = "--seeds 1") -> str:
        """The words of ``retable submit`` for this cluster and its shared disk."""
        places = f"--storage {STORAGE} --data {DATA} --tracking-uri {MLFLOW}"
        return f"submit small.yaml --cluster {self.file} {places} {words}"

    def table(self, words: str) -> list[Any]:
        """The cells of the table as ``retable table`` gives them on the head."""
        command = f". ~/retable/clusters/env.sh; retable table ~/small.yaml --data {DATA} --format json {words}"
        self.head.write("~/small.yaml", STUDY)
        return cells(self.head.run(command).stdout)

    def nodes(self) -> int:
        """How many machines Ray counts as alive; 0 if it does not answer."""
        ask = f"curl -sf -H \"Authorization: Bearer $(cat ~/.ray/auth_token)\" '{DASHBOARD}/nodes?view=summary'"
        said = self.head.run(ask, check=False)
        if said.returncode != 0:
            return 0
        return sum(n["raylet"].get("state") == "ALIVE" for n in json.loads(said.stdout)["data"]["summary"])

    def await_nodes(self, count: int, seconds: float = 300.0) -> float:
        """Wait until Ray counts so many machines; how long it took, seconds."""
        start = time.monotonic()
        while (found := self.nodes()) != count:
            assert time.monotonic() - start < seconds, f"{found} machines instead of {count}"
            time.sleep(0.3)
        return time.monotonic() - start

    def prepare(self, host: Host) -> None:
        """What an administrator has put on a machine: the environment and, on the head, where MLflow keeps what."""
        host.run(f"ln -sfn {sys.prefix} ~/retable-venv")
        if host.name == "head":
            store = "postgresql+psycopg2://retable@127.0.0.1/retable" if POSTGRES else "sqlite:////shared/mlflow.db"
            host.write("~/retable-mlflow.env", f"MLFLOW_STORE={store}\nMLFLOW_ARTIFACTS=/shared/mlflow\n", 0o600)
            self.start_postgres()

    def start_postgres(self) -> None:
        """Postgres on the head, its files on the shared disk; the first time they are made."""
        if POSTGRES is None:
            return
        self.head.run(
            f"mkdir -p /shared/pg /run/postgresql && chown 100 /shared/pg /run/postgresql && cd /shared/pg\n"
            f"[ -f data/PG_VERSION ] || {_AS_POSTGRES} {POSTGRES}/initdb -D data -U retable -A trust -N >init.log\n"
            f"{_AS_POSTGRES} {POSTGRES}/pg_ctl -D data -w -l log -o '-k /run/postgresql' start >/dev/null\n"
            f"{POSTGRES}/createdb -h 127.0.0.1 -U retable retable 2>/dev/null || true"
        )

    def stop_postgres(self) -> None:
        """End it as a restart would."""
        self.head.run(f"{_AS_POSTGRES} {POSTGRES}/pg_ctl -D /shared/pg/data -m fast -w stop")


DASHBOARD = "http://127.0.0.1:8265"


def cells(document: str) -> list[Any]:
    """The cells of the first table of a document, without the ids of runs' places."""
    return [row["cells"] for row in json.loads(document[document.index("{") :])["tables"][0]["rows"]]


@contextmanager
def onprem(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[OnPrem]:
    """Boot the hosts and put on them what ``clusters/onprem.yaml`` asks for; ``settings`` are texts replaced in it."""
    shared = folder / "shared"
    (shared / "data").mkdir(parents=True)
    miniature(shared / "data" / "motions-ucf101")
    with lan(folder, shared={"/shared": shared}) as network:
        laptop, head, *workers = network.boot({"laptop": "2", "head": "4", "one": "5", "two": "6"})
        site = OnPrem(network, laptop, head, workers)
        for host in (head, *workers):
            site.prepare(host)
        laptop.write("~/.ssh/retable-cluster", network.key.read_text(), 0o600)
        laptop.write("~/project/small.yaml", STUDY)
        laptop.write(site.file, cluster_file(head, workers, settings or {}))
        yield site


def cluster_file(head: Host, workers: list[Host], settings: Mapping[str, str]) -> str:
    """The shipped file, filled in as its comments say; a worker counts as one CPU, so that two runs need two hosts."""
    text = (ROOT / "clusters" / "onprem.yaml").read_text()
    filled = {
        "head_ip: CHANGE-ME-HEAD": f"head_ip: {head.ip}",
        "[CHANGE-ME-1, CHANGE-ME-2]": f"[{', '.join(w.ip for w in workers)}]",
        "ssh_user: CHANGE-ME": "ssh_user: ubuntu",
        "ray start --address=$RAY_HEAD_IP:6379": "ray start --address=$RAY_HEAD_IP:6379 --num-cpus=1",
        **settings,
    }
    for old, new in filled.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def miniature(folder: Path) -> None:
    """A small motions-ucf101: all its classes, three groups, one clip each."""
    from retable.data import generate
    from retable.data.variants import VARIANTS

    whole = VARIANTS["motions-ucf101"]
    VARIANTS["motions-ucf101"] = replace(whole, groups=3, clips=1)
    try:
        generate.generate("motions-ucf101", folder, processes=1)
    finally:
        VARIANTS["motions-ucf101"] = whole


def local_table(folder: Path, data: Path) -> list[Any]:
    """The same study run on this machine alone, two workers and all."""
    import os
    import subprocess

    study = folder / "small.yaml"
    study.write_text(STUDY)
    env = {**os.environ, "RETABLE_STORAGE": str(folder / "local"), "RETABLE_DATA": str(data)}
    command = [sys.executable, "-m", "retable.cli"]
    subprocess.run(
        [*command, "run", str(study), "--offline", "--cpus", "2"], env=env, check=True, capture_output=True, timeout=900
    )
    said = subprocess.run(
        [*command, "table", str(study), "--format", "json", "--offline"],
        env=env, check=True, capture_output=True, text=True,
    )  # fmt: skip
    shutil.rmtree(folder / "local")
    return cells(said.stdout)
