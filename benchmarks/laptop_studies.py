"""What a whole study costs at laptop scale: runs, processor time, wall time and holes, read from a storage folder.

Run: retable run studies/stidf.yaml --cpus 1 (and so on for each study), then
     python benchmarks/laptop_studies.py [--storage FOLDER] [--data FOLDER], which writes
     benchmarks/results/laptop_studies.json.
Trains nothing: a study that has not been run whole says how many of its runs are missing. ``wall_minutes`` are those
in which at least one of its runs was carried out; generating datasets, optical flow, tuning rows and attempts that were
broken off do not count.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

import torch
from laptop import processor

from retable.data.config import Protocol
from retable.data.transforms import MIRRORED_VIEWS
from retable.report.results import document
from retable.study.plan import Plan
from retable.track.records import RunRecord
from retable.track.storage import Storage
from retable.workspace import Workspace, open_study

RESULTS = Path(__file__).parent / "results" / "laptop_studies.json"
STUDIES = ("maagn", "mast", "msfnet", "statsn", "stidf")
FULL = ("done", "quoted", "static", "text", "not in the paper")
CPU_LIMIT = 55.0
"""Seconds of processor time that a run may take."""


@dataclass(frozen=True)
class Cost:
    """One study with the given seeds.

    ``cpu_seconds`` are of training and its scores after each epoch; ``seconds`` are from the claim of a run's last
    attempt to its result: reading, features and the final scores too. ``most_views``: clips x crops of a video.
    ``cells``: how many have which status; ``holes``: the status of those that lack a value.
    """

    study: str
    runs: int
    done: int
    failed: int
    most_views: int
    cpu_seconds_median: float | None
    cpu_seconds_max: float | None
    slowest: str | None
    over_limit: int
    seconds_max: float | None
    cpu_minutes: float
    wall_minutes: float | None
    cells: dict[str, int]
    holes: dict[str, str]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--storage", default=None)
    options.add_argument("--data", default=None)
    options.add_argument("--seed", type=int, action="append", default=None)
    asked = options.parse_args()
    workspace = Workspace.open(asked.storage, asked.data)
    found = [cost(workspace, study, seeds=asked.seed or [0]) for study in STUDIES]
    written = {
        "schema": 1,
        "machine": {
            "processor": processor(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count(),
            "torch": str(torch.__version__),
        },
        "cpu_limit": CPU_LIMIT,
        "studies": [asdict(c) for c in found],
    }
    RESULTS.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    for line in found:
        print(line)


def cost(workspace: Workspace, study: str, seeds: Sequence[int]) -> Cost:
    """What a study's laptop profile has cost so far, and what its tables still lack."""
    plan = workspace.plan(open_study(study), profile="laptop", seeds=tuple(seeds))
    recorded = workspace.records(plan, offline=True)
    records = {key: r for key, r in recorded.items() if r.spec.get("seed") in (None, *seeds)}  # others would be partial
    ended = {r.run_id: records[r.run_id] for r in plan.runs if r.run_id in records and records[r.run_id].cost}
    spent = {run_id: record.cost["cpu_seconds"] for run_id, record in ended.items()}
    spans = {run_id: span(workspace.storage, run_id) for run_id in ended}
    status = Counter(record.status for record in ended.values())
    slowest = max(spent, key=lambda run_id: spent[run_id], default=None)
    cells, holes = filled(plan, records)
    return Cost(
        study=study,
        runs=len(plan.runs),
        done=status["done"],
        failed=status["failed"],
        most_views=max(views(view.protocol) for t in plan.trainings.values() for view in t.views),
        cpu_seconds_median=median(spent.values()) if spent else None,
        cpu_seconds_max=max(spent.values(), default=None),
        slowest=None if slowest is None else name(plan, slowest),
        over_limit=sum(seconds > CPU_LIMIT for seconds in spent.values()),
        seconds_max=max((end - start for start, end in spans.values()), default=None),
        cpu_minutes=sum(spent.values()) / 60,
        wall_minutes=covered(spans.values()) / 60 if spans else None,
        cells=cells,
        holes=holes,
    )


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of intervals."""
    total, until = 0.0, -math.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def views(protocol: Protocol) -> int:
    """Clips x crops of a video."""
    return protocol.clips * len(MIRRORED_VIEWS[protocol.crops])


def span(storage: Storage, run_id: str) -> tuple[float, float]:
    """When the attempt that finished a run began and when its result was written, seconds since 1970."""
    result = storage.get_json(f"runs/{run_id}/result.json")
    assert result is not None
    claim = storage.get_json(f"runs/{run_id}/attempts/{result['attempt']}/claim.json")
    assert claim is not None, f"run {run_id} has a result, but no claim"
    return float(claim["time"]), datetime.fromisoformat(result["finished"]).timestamp()


def name(plan: Plan, run_id: str) -> str:
    """The first cell that needs a run."""
    (key,) = [run.training.config_id for run in plan.runs if run.run_id == run_id]
    cell = plan.served[key][0]
    return f"{'' if plan.users[key] else 'first stage of '}{cell.table}.{cell.row}.{cell.column}"


def filled(plan: Plan, records: Mapping[str, RunRecord]) -> tuple[dict[str, int], dict[str, str]]:
    """How many cells have which status, and the cells without a value that should have one."""
    status = {
        f"{table['id']}.{row['id']}.{column}": str(cell["status"])
        for table in document(plan, records)["tables"]
        for row in table["rows"]
        for column, cell in row["cells"].items()
    }
    return dict(Counter(status.values())), {cell: found for cell, found in status.items() if found not in FULL}


if __name__ == "__main__":
    main()
