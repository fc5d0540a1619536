"""Whether the papers' models learn at laptop scale: top-1 on held-out groups of generated videos against chance.

Run: python benchmarks/laptop.py [--seeds 3] [--study statsn] [--storage FOLDER]. Writes benchmarks/results/laptop.json;
studies that are not asked for stay in it as they were. A model passes when the lower end of the 95 % t-interval over
seeds 0, 1 and 2 is at least three times chance; with more seeds the interval over all of them is written too. STA-TSN
on RGB does not see the order of frames, so it is judged on pairs of classes that differ by order only.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from retable.data.generate import generate
from retable.data.manifest import dataset_folder
from retable.data.variants import PAIRS
from retable.execute.driver import run_study
from retable.report.verdict import summary
from retable.study.load import LoadedStudy
from retable.study.plan import Plan, RunSpec, Training
from retable.track.scores import Scores
from retable.workspace import Workspace, open_study

RESULTS = Path(__file__).parent / "results" / "laptop.json"
ROWS = (
    ("msfnet", "table2", "s4", "top1"),
    ("mast", "table6", "both", "top1"),
    ("maagn", "table3b", "agm", "top1"),
    ("statsn", "table2", "sta", "ucf101-rgb"),
)
BY_PAIR = "statsn"
TIMES_CHANCE = 3.0


@dataclass(frozen=True)
class Learned:
    """One row's result: percentages by seed, and what a run and the earlier stages that it starts from cost.

    ``lower_of_three`` is the interval's lower end over the first three seeds, ``lower`` over all.
    """

    study: str
    cell: str
    dataset: str
    judged_on: str
    chance: float
    values: list[float]
    mean: float
    lower: float | None
    lower_of_three: float | None
    passes: bool | None
    cpu_seconds: list[float]
    cpu_seconds_before: list[float]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--study", action="append", choices=[row[0] for row in ROWS])
    options.add_argument("--storage", default=None)
    options.add_argument("--data", default=None)
    asked = options.parse_args()
    workspace = Workspace.open(asked.storage, asked.data)
    asked_for = [row for row in ROWS if row[0] in (asked.study or [r[0] for r in ROWS])]
    found = {row[0]: asdict(learned(workspace, *row, seeds=range(asked.seeds))) for row in asked_for}
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"] if RESULTS.is_file() else []
    rows = {row["study"]: row for row in kept} | found
    document = {
        "schema": 1,
        "machine": {"processor": processor(), "cores": os.cpu_count(), "torch": str(torch.__version__)},
        "python": platform.python_version(),
        "rows": [rows[study] for study, *_ in ROWS if study in rows],
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for row in found.values():
        print(row)


def learned(workspace: Workspace, study: str, table: str, row: str, column: str, *, seeds: Iterable[int]) -> Learned:
    """Train one cell with every seed, as ``retable run`` does, and judge its recorded scores."""
    loaded = open_study(study)
    name = one_cell(workspace, loaded, table, row, column, seeds)[1].config.data.dataset
    generate(name, dataset_folder(name, workspace.data_root))
    workspace = Workspace(workspace.storage_url, workspace.data_root)  # its fingerprints are known now
    whole, training = one_cell(workspace, loaded, table, row, column, seeds)
    config_id = training.config_id
    runs = [run for run in whole.runs if run.training.config_id == config_id]
    run_study(loaded, whole, workspace, Console(file=sys.stderr), record=False)
    values = [judge(workspace, run, by_pair=study == BY_PAIR) for run in runs]
    classes = len(workspace.dataset(name).classes)
    chance = 100.0 / (classes / 2 if study == BY_PAIR else classes)
    told = summary(values)
    assert told is not None
    three = lower_end(values[:3])
    return Learned(
        study,
        f"{table}.{row}.{column}",
        name,
        "pair of classes" if study == BY_PAIR else "class",
        chance,
        values,
        told.mean,
        lower_end(values),
        three,
        None if three is None else three >= TIMES_CHANCE * chance,
        [cpu_seconds(workspace, run.run_id) for run in runs],
        [sum(cpu_seconds(workspace, parent) for parent in run.parents) for run in runs],
    )


def lower_end(values: list[float]) -> float | None:
    """Of the 95 % t-interval of the mean; None for one value."""
    told = summary(values)
    assert told is not None
    return None if told.half_width is None else told.mean - told.half_width


def cpu_seconds(workspace: Workspace, run_id: str) -> float:
    """What a finished run has cost."""
    record = workspace.storage.record(run_id)
    assert record is not None, f"run {run_id} is not in {workspace.storage_url}"
    return float(record.cost["cpu_seconds"])


def one_cell(
    workspace: Workspace, loaded: LoadedStudy, table: str, row: str, column: str, seeds: Iterable[int]
) -> tuple[Plan, Training]:
    """The plan of one cell alone, and the training that fills it."""
    whole = workspace.plan(loaded, seeds=tuple(seeds), tables=(table,), rows=(row,))
    (cell,) = [c for c in whole.cells if c.column == column]
    (config_id,) = whole.trainings_of(str(cell.evaluation))
    needed: dict[str, Training] = {}
    open_ids = [config_id]
    while open_ids:
        key = open_ids.pop()
        needed = {key: whole.trainings[key], **needed}
        open_ids += whole.trainings[key].parents
    return replace(whole, cells=(cell,), trainings=needed), whole.trainings[config_id]


def judge(workspace: Workspace, run: RunSpec, *, by_pair: bool) -> float:
    """Top-1 in percent, of classes or of pairs of classes, from the run's recorded scores."""
    (view,) = run.training.views[:1]
    data = workspace.storage.get(f"runs/{run.run_id}/scores/{view.key}.parquet")
    assert data is not None, f"run {run.run_id} has no scores: {workspace.storage.record(run.run_id)}"
    scores = Scores.from_parquet(io.BytesIO(data))
    pair = {name: k for k, names in enumerate(PAIRS) for name in names}
    groups = np.array([pair[name] if by_pair else k for k, name in enumerate(scores.classes)])
    return float(100 * (groups[scores.probs.argmax(axis=1)] == groups[scores.labels]).mean())


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
