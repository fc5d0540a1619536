"""What MLflow shows of a study's seed runs: tags, params, curves and files. Pure: plain data, no mlflow.

:mod:`retable.track.record` makes the store hold these entries.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML

from retable.study import cells
from retable.study.plan import Cell, Measurement, Plan, Training, View
from retable.study.resolve import leaves
from retable.study.schema import Study
from retable.track.entries import (
    COLOR,
    KIND,
    NAME_LENGTH,
    NOTE,
    REASON,
    VALUE_LENGTH,
    Dataset,
    Entry,
    Files,
    Point,
    Status,
    color,
    in_table,
    run_name,
    significant,
    variant,
)
from retable.track.records import RunRecord

_STATUS: dict[str, Status] = {"done": "FINISHED", "failed": "FAILED", "partial": "RUNNING"}


def varied(study: Study) -> tuple[str, ...]:
    """Config paths worth a param: those that some table, column, row or cell sets, or a fusion or mean runs over."""
    paths = dict.fromkeys(cells.varied_paths(study))
    for table in study.tables:
        paths |= dict.fromkeys([*leaves(table.set, ()), *(table.tune_rows.space if table.tune_rows else ())])
        for row in table.rows:
            overs = [over.path for over in (row.fuse_over, row.mean_over) if over is not None]
            paths |= dict.fromkeys([*overs, *(p for cell in row.cells.values() for p in leaves(cell.set, ()))])
    return tuple(p for p in paths if p.split(".")[0] in ("model", "data", "recipe"))


def varied_in(study: Study, plan: Plan, table: str) -> list[str]:
    """The varied params that differ between the runs of one table."""
    users = plan.users
    shown = [t for key, t in plan.trainings.items() if any(cell.table == table for cell in users[key])]
    params = [_params(study, training.config.model_dump(mode="json")) for training in shown]
    return [path for path in varied(study) if len({p.get(path) for p in params}) > 1]


def run_entries(
    plan: Plan,
    records: Mapping[str, RunRecord],
    document: Mapping[str, Any],
    artifacts: Callable[[str], Files] | None = None,
) -> list[Entry]:
    """One entry per recorded run of the plan, in the order in which the tables ask for them."""
    by_id: dict[str, list[RunRecord]] = {}
    for record in records.values():
        for key in {record.config_id, str(record.spec.get("provisional_id"))}:
            by_id.setdefault(key, []).append(record)
    maker = _Maker(plan, document, artifacts)
    found = []
    for training in plan.trainings.values():
        for record in sorted(by_id.get(training.config_id, []), key=lambda r: r.seed):
            found.append(maker.entry(training, record))
    for measurement in plan.measurements.values():
        for record in sorted(by_id.get(measurement.config_id, []), key=lambda r: r.run_id):  # of every machine
            found.append(maker.measured(measurement, record))
    return found


def record_files(record: RunRecord) -> Files:
    """``spec.json`` and ``result.json``: the whole record, every float exact."""
    rest = {
        "schema": 1,
        "status": record.status,
        "reason": record.reason,
        "epochs": record.epochs,
        "evaluations": record.evaluations,
        "cost": record.cost,
        "environment": record.environment,
        "attempts": record.attempts,
    }
    return {"spec.json": _json(record.spec), "result.json": _json(rest)}


def read_record(files: Mapping[str, bytes]) -> RunRecord:
    """The record that :func:`record_files` wrote."""
    rest = json.loads(files["result.json"])
    del rest["schema"]
    return RunRecord(json.loads(files["spec.json"]), **{**rest, "epochs": tuple(rest["epochs"])})


def curve_points(epochs: tuple[dict[str, float], ...]) -> tuple[Point, ...]:
    """The epochs' metrics with step = epoch."""
    points, after = [], 0.0
    for epoch in epochs:
        step = int(epoch["epoch"])
        after += epoch.get("seconds", 1.0)
        for metric, value in epoch.items():
            if metric not in ("epoch", "seconds") and value is not None:
                points.append(Point(metric if "/" in metric else f"train/{metric}", float(value), step, after))
    return tuple(points)


@dataclass(frozen=True)
class _Maker:
    plan: Plan
    document: Mapping[str, Any]
    artifacts: Callable[[str], Files] | None

    def entry(self, training: Training, record: RunRecord) -> Entry:
        users = self.plan.users[training.config_id]
        first = self.plan.served[training.config_id][0]
        t, r = _place(self.plan.study, first)
        row = self.plan.study.tables[t].rows[r]
        tuned = ", tuned" if self.plan.study.tables[t].columns[first.column].tuned else ""
        label = row.label + tuned if users else f"stage 1: {row.label}"
        name = run_name(label, record.seed)
        config = record.spec["config"]
        reason = record.reason if record.status == "failed" else None
        title = self.plan.study.tables[t].cite or first.table
        return Entry(
            key=f"run:{record.run_id}",
            name=name,
            status=_STATUS[record.status],
            tags={
                KIND: "run",
                "retable.run_id": record.run_id,
                "retable.config_id": record.config_id,
                "retable.seed": str(record.seed),
                "retable.profile": variant(self.plan),
                **self._in_tables(users, record.seed),
                **({REASON: reason[:VALUE_LENGTH], NOTE: f"Failed: {reason}"[:VALUE_LENGTH]} if reason else {}),
            },
            first={
                "mlflow.runName": name,
                "retable.table": first.table,
                "retable.row": first.row,
                "retable.order": f"{t + 1:02d}-{r + 1:03d}-{record.seed:02d}",
                "retable.group": f"{title} · {r + 1:02d} · {row.label}",
                COLOR: color(r, record.seed),
            },
            params=_params(self.plan.study, config),
            finals=self._finals(training, users, record),
            curves=curve_points(record.epochs),
            seconds=record.cost.get("seconds", sum(epoch.get("seconds", 0.0) for epoch in record.epochs)),
            files={**record_files(record), "config.yaml": _yaml(config)},
            more_files=self._more_files(record.run_id),
            dataset=_dataset(record),
        )

    def measured(self, measurement: Measurement, record: RunRecord) -> Entry:
        """A speed on one machine, which the tags name."""
        users = self.plan.timed[measurement.config_id]
        first = users[0]
        t, r = _place(self.plan.study, first)
        row = self.plan.study.tables[t].rows[r]
        name = f"{row.label[: NAME_LENGTH - 8]} · speed"
        found = next(iter(record.evaluations.values()), {})
        machine = {f"retable.machine.{key}": value for key, value in record.spec["machine"].items()}
        reason = {REASON: str(record.reason)[:VALUE_LENGTH]} if record.status == "failed" else {}
        tags = {KIND: "run", "retable.run_id": record.run_id, "retable.config_id": record.config_id}
        return Entry(
            key=f"run:{record.run_id}",
            name=name,
            status=_STATUS[record.status],
            tags={**tags, "retable.profile": variant(self.plan), **self._in_tables(users, 0), **machine, **reason},
            first={
                "mlflow.runName": name,
                "retable.table": first.table,
                "retable.row": first.row,
                "retable.order": f"{t + 1:02d}-{r + 1:03d}-00",
                COLOR: color(r, 0),
            },
            params=_params(self.plan.study, record.spec["config"]),
            finals={f"final/{name}": significant(value, 6) for name, value in found.items()},
            files={**record_files(record), "config.yaml": _yaml(record.spec["config"])},
            more_files=self._more_files(record.run_id),
            dataset=_dataset(record),
        )

    def _in_tables(self, users: tuple[Cell, ...], seed: int) -> dict[str, str]:
        """One tag per table that shows the run: what its seed runs are filtered and sorted by there."""
        tags: dict[str, str] = {}
        for cell in users:
            _, r = _place(self.plan.study, cell)
            label = self.plan.study.table(cell.table).row(cell.row).label
            tags.setdefault(in_table(variant(self.plan), cell.table), f"{r + 1:03d}-{seed:02d} · {label}")
        return tags

    def _finals(self, training: Training, users: tuple[Cell, ...], record: RunRecord) -> dict[str, float]:
        """What stands at step 0: scores, the paper's value, costs; the first cell's view goes without suffix."""
        finals = {f"cost/{name}": significant(value) for name, value in record.cost.items()}
        if not users:
            return {name: value for name, value in finals.items() if math.isfinite(value)}
        first = self._view(training, users[0])
        for view in sorted(training.views, key=lambda v: v is not first):
            for metric, value in _scored(view, record).items():
                if metric != "videos":
                    suffix = "" if view is first else f" {view.protocol.clips}x{view.protocol.crops}"
                    finals[f"final/{metric}{suffix}"] = round(value, 2)
        for cell in users:
            printed = self._printed(cell).get(cell.column, {}).get("published")
            if printed is not None and cell.metric is not None:
                finals.setdefault(f"paper/{cell.metric}", printed)
        for column, printed in self._printed(users[0]).items():
            if printed.get("kind") == "static" and printed.get("mean") is not None:
                finals[f"cost/{column}"] = round(printed["mean"], 3)
        return {name: value for name, value in finals.items() if math.isfinite(value)}

    def _view(self, training: Training, cell: Cell) -> View:
        node = self.plan.evaluations.get(cell.evaluation or "")
        return next((v for v in training.views if node is not None and v.key == node.view), training.views[0])

    def _printed(self, cell: Cell) -> dict[str, Any]:
        for table in self.document["tables"]:
            for row in table["rows"]:
                if (table["id"], row["id"]) == (cell.table, cell.row):
                    return dict(row["cells"])
        return {}

    def _more_files(self, run_id: str) -> Callable[[], Files] | None:
        artifacts = self.artifacts
        return None if artifacts is None else lambda: artifacts(run_id)


def _place(study: Study, cell: Cell) -> tuple[int, int]:
    t = next(i for i, table in enumerate(study.tables) if table.id == cell.table)
    return t, next(i for i, row in enumerate(study.tables[t].rows) if row.id == cell.row)


def _scored(view: View, record: RunRecord) -> dict[str, float]:
    """The metrics of a view; under a provisional plan its key is made with the fingerprint that was recorded."""
    fingerprint = record.spec["dataset"]["fingerprint"]
    found = record.evaluations.get(view.key)
    if found is None and fingerprint is not None:
        found = record.evaluations.get(view.under(fingerprint))
    return found or {}


def _params(study: Study, config: Mapping[str, Any]) -> dict[str, str]:
    params = {}
    for path in varied(study):
        node: Any = config
        for part in path.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        if node is not None:
            params[path] = (node if isinstance(node, str) else json.dumps(node))[:VALUE_LENGTH]
    return params


def _dataset(record: RunRecord) -> Dataset:
    dataset = record.spec["dataset"]
    source = json.dumps({"layout": dataset["layout"], "fingerprint": dataset["fingerprint"]})
    return Dataset(dataset["name"], str(dataset["fingerprint"])[:36], source)


def _yaml(value: Any) -> bytes:
    stream = io.BytesIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(value, stream)
    return stream.getvalue()


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"
