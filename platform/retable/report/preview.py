"""What ``retable run`` would do: a pure document of plan and records, and its printing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from retable.study.identity import PROVISIONAL
from retable.study.plan import Measurement, Plan, RunSpec
from retable.track.records import RunRecord


def preview(
    plan: Plan,
    records: Mapping[str, RunRecord],
    cache: Mapping[str, int | None],
    features: Mapping[str, int | None] | None = None,
) -> dict[str, Any]:
    """The plan as data: every run with its state, cells and measured time; totals; what is shared.

    Times come from recorded runs of the same config, else from recorded step times of the same model, clip and batch;
    where there are none they are null, never guessed.
    """
    runs = [_run(plan, run, records) for run in plan.runs]
    todo = [run for run in runs if run["state"] != "done"]
    known = [run["seconds"] for run in todo if run["seconds"] is not None]
    gpu = [run["seconds"] * run["gpus"] / 3600 for run in todo if run["seconds"] is not None]
    return {
        "schema": 1,
        "study": plan.study.study,
        "profile": plan.profile,
        "seeds": list(plan.seeds),
        "provisional": any(asking.config_id.startswith(PROVISIONAL) for asking in plan.asked),
        "cells": sum(cell.evaluation is not None for cell in plan.cells),
        "evaluations": len(plan.evaluations),
        "trainings": len(plan.trainings),
        "runs": runs,
        "measurements": [_measurement(plan, measurement, records) for measurement in plan.measurements.values()],
        "shared": [
            {"config_id": key, "cells": [_place(c) for c in cells]}
            for key, cells in plan.users.items()
            if len(cells) > 1
        ],
        "unsupported": [
            {"reason": reason, "cells": [_place(c) for c in cells]} for reason, cells in plan.unsupported.items()
        ],
        "totals": {
            "runs": len(runs),
            "done": len(runs) - len(todo),
            "to_run": len(todo),
            "seconds": sum(known) if len(known) == len(todo) else None,
            "seconds_of_known": sum(known),
            "runs_with_known_time": len(known),
            "gpu_hours": sum(gpu) if len(gpu) == len(todo) else None,
            "cache_bytes": dict(cache),
            "feature_bytes": dict(features or {}),
            "checkpoint_bytes": sum(_checkpoint_bytes(run) for run in plan.runs),
        },
    }


def show(seen: Mapping[str, Any], out: Console) -> None:
    """Print a preview for people."""
    totals = seen["totals"]
    out.print(
        f"{seen['study']}, profile {seen['profile']}, seeds {', '.join(map(str, seen['seeds']))}: "
        f"{seen['cells']} cells, {seen['evaluations']} evaluations, {seen['trainings']} trainings, "
        f"{totals['runs']} runs"
    )
    for run in seen["runs"]:
        seconds = "" if run["seconds"] is None else f"  about {_duration(run['seconds'])}"
        cells = ", ".join(run["cells"]) or f"first stage of {', '.join(run['serves'])}"
        after = "".join(f"  after {parent}" for parent in run["parents"])
        out.print(f"  {run['run_id']}  seed {run['seed']}  {run['state']:8}{seconds}  {cells}{after}")
    for timed in seen["measurements"]:
        out.print(f"  {timed['run_id']}  measures {timed['metric']}  {timed['state']}  {', '.join(timed['cells'])}")
    for shared in seen["shared"]:
        out.print(f"  trained once for {len(shared['cells'])} cells: {', '.join(shared['cells'])}")
    for item in seen["unsupported"]:
        out.print(f"  not run, {item['reason']}: {', '.join(item['cells'])}")
    if seen["provisional"]:
        out.print("  ids that begin with ~ are provisional: they become final when the dataset is at hand")
    for key, size in totals["cache_bytes"].items():
        out.print(f"decoded frames of {key}: {'unknown, the dataset is not here' if size is None else _bytes(size)}")
    for run_id, size in totals["feature_bytes"].items():
        out.print(f"features of {run_id}: {'unknown, the dataset is not here' if size is None else _bytes(size)}")
    out.print(f"checkpoints: about {_bytes(totals['checkpoint_bytes'])} while running and after")
    open_ones = sum(timed["state"] == "to measure" for timed in seen["measurements"])
    if seen["measurements"]:
        done = len(seen["measurements"]) - open_ones
        out.print(f"{done} speeds measured on this machine, {open_ones} to measure; nothing is trained for them")
    out.print(f"{totals['done']} runs done, {totals['to_run']} to run; {_time(totals)}")


def _run(plan: Plan, run: RunSpec, records: Mapping[str, RunRecord]) -> dict[str, Any]:
    record = records.get(run.run_id)
    resources, recipe = run.training.resources, run.training.config.recipe
    done = len(record.epochs) if record else 0
    like = _like(run, records)
    seconds = sum(r.cost["seconds"] for r in like) / len(like) if like else None
    if seconds is not None and record is not None and record.status == "partial":
        seconds *= 1 - done / recipe.epochs
    return {
        "run_id": run.run_id,
        "config_id": run.training.config_id,
        "seed": run.seed,
        "state": _state(record),
        "epochs_done": done,
        "epochs": recipe.epochs,
        "seconds": seconds,
        "devices": sorted({r.environment.get("device", "an unknown device") for r in like}),
        "gpus": resources.gpus_per_worker * recipe.workers,
        "cells": [_place(cell) for cell in plan.users[run.training.config_id]],
        "serves": [_place(cell) for cell in plan.served[run.training.config_id]],
        "parents": list(run.parents),
        "use": run.training.use,
    }


def _measurement(plan: Plan, measurement: Measurement, records: Mapping[str, RunRecord]) -> dict[str, Any]:
    record = records.get(measurement.run_id)
    state = "to measure" if record is None or record.status == "partial" else record.status
    return {
        "run_id": measurement.run_id,
        "config_id": measurement.config_id,
        "metric": measurement.metric,
        "state": "unsupported" if measurement.unsupported is not None else state,
        "machine": dict(measurement.machine) if measurement.machine is not None else None,
        "cells": [_place(cell) for cell in plan.timed[measurement.config_id]],
    }


def _state(record: RunRecord | None) -> str:
    if record is None:
        return "to run"
    return {"done": "done", "failed": "failed", "partial": "started"}[record.status]


def _like(run: RunSpec, records: Mapping[str, RunRecord]) -> list[RunRecord]:
    """Timed finished runs of this config, else of the same model, clip, batch and epochs: their mean is its time."""
    timed = [r for r in records.values() if r.status == "done" and r.cost.get("seconds")]
    exact = [r for r in timed if r.config_id == run.training.config_id]
    return exact or [r for r in timed if _shape(r.spec["config"]) == _shape(_config(run))]


def _config(run: RunSpec) -> dict[str, Any]:
    return run.training.config.model_dump(mode="json")


def _shape(config: Mapping[str, Any]) -> tuple[Any, ...]:
    recipe = config["recipe"]
    return config["model"], config["data"]["clip"], recipe["batch_size"], recipe["epochs"], recipe["precision"]


def _checkpoint_bytes(run: RunSpec) -> int:
    """Weights and optimizer state in float32: Adam keeps two moments, SGD one."""
    from retable.study.static import static_counts

    moments = 2 if run.training.config.recipe.optimizer == "adam" else 1
    return round(static_counts(run.training.config, "params") * 4 * (1 + moments))


def _place(cell: Any) -> str:
    return f"{cell.table}.{cell.row}.{cell.column}"


def _time(totals: Mapping[str, Any]) -> str:
    if not totals["to_run"]:
        return "nothing to wait for"
    if totals["seconds"] is not None:
        gpu = f", {totals['gpu_hours']:.1f} GPU-hours" if totals["gpu_hours"] else ""
        return f"about {_duration(totals['seconds'])} of run time{gpu}, from recorded runs"
    if totals["runs_with_known_time"]:
        known = totals["runs_with_known_time"]
        return f"{_duration(totals['seconds_of_known'])} for {known} of them; time of the others unknown"
    return "time unknown: nothing like them has been recorded yet"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
