"""Faults of a cluster, struck for real on hosts in namespaces while a study trains; what it cost is written as data.

Run: make drill (root). Each drill asserts that the study finishes, that no finished epoch is repeated
and that the table equals the one of an undisturbed run. Writes benchmarks/results/drills.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from tests.cluster import onprem as sites
from tests.cluster.hosts import ROOT, missing
from tests.cluster.onprem import OnPrem, onprem
from tests.execute.small import TEXT

RESULT = ROOT / "benchmarks" / "results" / "drills.json"
EPOCHS = 60
PATIENCE = 420.0
"""Seconds until a drill is given up."""
sites.STUDY = TEXT.replace("epochs: 2", f"epochs: {EPOCHS}")


@dataclass
class Drill:
    """A study under way on a site, watched through the shared disk."""

    site: OnPrem
    shared: Path
    name: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def runs(self) -> Path:
        return self.shared / f"runs-{self.name}" / "runs"

    def submit(self) -> None:
        """Send the study; it goes on by itself."""
        said = self.site.retable(
            f"submit small.yaml --cluster {self.site.file} --storage /shared/runs-{self.name}"
            f" --data {sites.DATA} --tracking-uri {sites.MLFLOW}"
        )
        self.job = next(line.split()[1] for line in said.splitlines() if line.startswith("job "))

    def epochs(self) -> dict[str, list[tuple[int, int]]]:
        """(epoch, attempt) of every finished epoch, by run."""
        names = {run.name: [f.stem.split(".") for f in run.glob("epochs/*.json")] for run in self.runs.glob("*")}
        return {run: [(int(epoch), int(attempt)) for epoch, attempt in found] for run, found in names.items()}

    def host(self, run: str) -> str | None:
        """Where the newest attempt at a run trains."""
        claims = sorted((self.runs / run).glob("attempts/*/claim.json"), key=lambda f: int(f.parent.name))
        return str(json.loads(claims[-1].read_text())["worker"]["host"]).split("/")[0] if claims else None

    def finished(self) -> bool:
        return len(list(self.runs.glob("*/result.json"))) == 2

    def await_(self, what: Callable[[], Any], why: str) -> float:
        """Wait until ``what()`` is true; seconds."""
        start = time.monotonic()
        while not what():
            if time.monotonic() - start > PATIENCE:
                raise AssertionError(f"{self.name}: {why} did not come to pass in {PATIENCE:.0f} s")
            time.sleep(0.2)
        return time.monotonic() - start

    def run_on(self, host: str) -> str:
        """A run that trains on a host and has finished some epochs."""

        def found() -> list[str]:
            return [run for run, done in self.epochs().items() if len(done) > 3 and self.host(run) == host]

        self.await_(found, f"training on {host}")
        return found()[0]

    def went_on(self, run: str, attempt: int = 0) -> bool:
        """Whether a later attempt has finished an epoch."""
        return any(a > attempt for _, a in self.epochs()[run])

    def end(self, table: list[Any]) -> dict[str, Any]:
        """Wait for the end and check what is promised."""
        self.await_(self.finished, "the end of both runs")
        for run, done in self.epochs().items():
            assert Counter(epoch for epoch, _ in done) == Counter(range(EPOCHS)), f"{run} repeated or lost an epoch"
        self.site.retable(f"jobs {self.job} --cluster {self.site.file} --follow", check=False)
        found = self.site.table(f"--storage /shared/runs-{self.name} --offline")
        assert found == table, f"{self.name}: the table differs from an undisturbed run's"
        attempts = {run: 1 + max(a for _, a in done) for run, done in self.epochs().items()}
        return {**self.facts, "attempts": sorted(attempts.values()), "repeated_epochs": 0, "table_equal": True}


def worker_cut_off(site: OnPrem, shared: Path, table: list[Any]) -> dict[str, Any]:
    """The link of a worker goes down: nothing is closed, it just falls silent."""
    return _worker_lost(Drill(site, shared, "worker-cut-off"), lambda worker: worker.cut(), table)


def worker_powered_off(site: OnPrem, shared: Path, table: list[Any]) -> dict[str, Any]:
    """A worker dies with all its processes."""
    return _worker_lost(Drill(site, shared, "worker-powered-off"), lambda worker: worker.off(), table)


def _worker_lost(drill: Drill, strike: Callable[[Any], None], table: list[Any]) -> dict[str, Any]:
    site, victim = drill.site, drill.site.workers[-1]
    drill.submit()
    run = drill.run_on(victim.name)
    strike(victim)
    struck = time.monotonic()
    drill.await_(lambda: site.nodes() < 1 + len(site.workers), "Ray's knowing of it")
    drill.facts["detected_s"] = round(time.monotonic() - struck, 1)
    drill.await_(lambda: drill.went_on(run), "training on another host")
    drill.facts["trains_again_s"] = round(time.monotonic() - struck, 1)
    site.workers.pop()
    return drill.end(table)


def head_powered_off(site: OnPrem, shared: Path, table: list[Any]) -> dict[str, Any]:
    """The head dies and comes back; the cluster is started again and the study submitted again."""
    drill = Drill(site, shared, "head-powered-off")
    drill.submit()
    run = drill.run_on(site.workers[0].name)
    site.head.off()
    struck = time.monotonic()
    (site.head,) = site.network.boot({"head": "4"})
    site.prepare(site.head)
    site.retable(f"cluster up {site.file}", cwd=str(ROOT))
    site.await_nodes(1 + len(site.workers))
    drill.facts["up_again_s"] = round(time.monotonic() - struck, 1)
    drill.submit()
    drill.await_(lambda: drill.went_on(run), "training after the second submission")
    drill.facts["trains_again_s"] = round(time.monotonic() - struck, 1)
    return drill.end(table)


def mlflow_killed(site: OnPrem, shared: Path, table: list[Any]) -> dict[str, Any]:
    """The tracking server is killed while runs train, and started again."""
    drill = Drill(site, shared, "mlflow-killed")
    drill.submit()
    drill.run_on(site.workers[0].name)
    site.head.run("kill -9 -- -$(cat ~/mlflow/server.pid)")
    time.sleep(5)
    start = time.monotonic()
    site.head.run(". ~/retable/clusters/env.sh; bash ~/retable/clusters/mlflow/serve.sh ensure")
    drill.facts["answers_again_s"] = round(time.monotonic() - start, 1)
    return _recorded(drill, table)


def postgres_restarted(site: OnPrem, shared: Path, table: list[Any]) -> dict[str, Any]:
    """The database below the tracking server is restarted while runs train."""
    drill = Drill(site, shared, "postgres-restarted")
    drill.submit()
    drill.run_on(site.workers[0].name)
    start = time.monotonic()
    site.stop_postgres()
    site.start_postgres()
    drill.facts["database_away_s"] = round(time.monotonic() - start, 1)
    return _recorded(drill, table)


def _recorded(drill: Drill, table: list[Any]) -> dict[str, Any]:
    found = drill.end(table)
    assert drill.site.table(f"--storage /tmp/nothing --tracking-uri {sites.MLFLOW}") == table, "MLflow lacks something"
    return {**found, "recorded_in_mlflow": True}


PLAN: dict[str, list[Callable[[OnPrem, Path, list[Any]], dict[str, Any]]]] = {
    "first cluster": [mlflow_killed, postgres_restarted, worker_cut_off],
    "second cluster": [worker_powered_off, head_powered_off],
}
"""Which drills share a cluster: one that takes a worker away comes late."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", help="only this drill; may be repeated")
    only = parser.parse_args().only
    if (why := missing()) is not None:
        raise SystemExit(f"no drill here: {why}")
    known = json.loads(RESULT.read_text())["drills"] if RESULT.exists() and only else {}
    with tempfile.TemporaryDirectory(prefix="drill-") as folder:
        reference = Path(folder, "reference")
        reference.mkdir()
        sites.miniature(reference / "motions-ucf101")
        table = sites.local_table(reference, reference)
        for title, drills in PLAN.items():
            chosen = [d for d in drills if not only or d.__name__ in only]
            if chosen:
                print(title, flush=True)
                _on_one_cluster(Path(folder, title.split()[0]), chosen, table, known)


def _on_one_cluster(
    folder: Path, drills: list[Callable[..., dict[str, Any]]], table: list[Any], known: dict[str, Any]
) -> None:
    folder.mkdir()
    with onprem(folder) as site:
        start = time.monotonic()
        site.retable(f"cluster up {site.file}", cwd=str(ROOT))
        site.await_nodes(1 + len(site.workers))
        print(f"  up in {time.monotonic() - start:.0f} s", flush=True)
        for drill in drills:
            if drill is postgres_restarted and sites.POSTGRES is None:
                print(f"  {drill.__name__}: left out, Postgres is not installed")
                continue
            load = round(os.getloadavg()[0], 1)  # what else the machine did makes everything slower
            known[drill.__name__] = {
                "what": drill.__doc__,
                "load_before": load,
                **drill(site, folder / "shared", table),
            }
            print(f"  {drill.__name__}: {known[drill.__name__]}", flush=True)
            body = {"schema": 1, "machine": _machine(), "epochs": EPOCHS, "drills": known}
            RESULT.write_text(json.dumps(body, indent=1) + "\n")


def _machine() -> dict[str, Any]:
    model = (
        line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model n" in line
    )
    return {
        "processor": next(model, platform.processor()),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "hosts": "namespaces of this one machine: a head, two workers of one CPU each, a laptop",
        "python": platform.python_version(),
        "ray": version("ray"),
        "mlflow": version("mlflow"),
    }


if __name__ == "__main__":
    main()
