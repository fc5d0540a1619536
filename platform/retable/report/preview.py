"""What ``retable run`` would do: a pure document of plan and records. :mod:`retable.report.dag` prints it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retable.report.searching.tuning import tuning
from retable.study.identity import PROVISIONAL
from retable.study.plan import Measurement, Plan, RunSpec
from retable.study.schema import Table
from retable.track.records import RunRecord


def preview(
    plan: Plan,
    records: Mapping[str, RunRecord],
    cache: Mapping[str, int | None],
    features: Mapping[str, int | None] | None = None,
    best: Plan | None = None,
) -> dict[str, Any]:
    """The plan as data: every run with its state, cells and measured time; totals; what is shared and what is tuned.

    ``best``: the plan of the study's search's best trial, trained on all of train, when there is one.

    Times come from recorded runs of the same config, else from recorded step times of the same model, clip and batch;
    where there are none they are null, never guessed.
    """
    runs = [_run(plan, run, records) for run in plan.runs]
    return {
        "schema": 1,
        "study": plan.study.study,
        "profile": plan.profile,
        "seeds": list(plan.seeds),
        "provisional": any(asking.config_id.startswith(PROVISIONAL) for asking in plan.asked),
        "cells": sum(cell.evaluation is not None or cell.measurement is not None for cell in plan.cells),
        "evaluations": len(plan.evaluations),
        "trainings": len(plan.trainings),
        "runs": runs,
        "measurements": [_measurement(plan, measurement, records) for measurement in plan.measurements.values()],
        "tuning": [found for table in plan.study.tables if (found := _tuning(plan, table)) is not None],
        "search": _search(plan, best, records),
        "shared": [
            {"config_id": key, "cells": [_place(c) for c in cells]}
            for key, cells in plan.users.items()
            if len(cells) > 1
        ],
        "unsupported": [
            {"reason": reason, "cells": [_place(c) for c in cells]} for reason, cells in plan.unsupported.items()
        ],
        "totals": _totals(runs)
        | {
            "cache_bytes": dict(cache),
            "feature_bytes": dict(features or {}),
            "checkpoint_bytes": sum(_checkpoint_bytes(run) for run in plan.runs),
        },
    }


def _totals(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many runs, and the time of those that are left."""
    todo = [run for run in runs if run["state"] != "done"]
    known = [run["seconds"] for run in todo if run["seconds"] is not None]
    gpu = [run["seconds"] * run["gpus"] / 3600 for run in todo if run["seconds"] is not None]
    return {
        "runs": len(runs),
        "done": len(runs) - len(todo),
        "to_run": len(todo),
        "seconds": sum(known) if len(known) == len(todo) else None,
        "seconds_of_known": sum(known),
        "runs_with_known_time": len(known),
        "gpu_hours": sum(gpu) if len(gpu) == len(todo) else None,
    }


def _tuning(plan: Plan, table: Table) -> dict[str, Any] | None:
    found = tuning(plan, table)
    if found is None or not found["rows"]:
        return None
    return {"table": table.id, "words": table.tune_rows.budget.words if table.tune_rows else "", **found}


def _search(plan: Plan, best: Plan | None, records: Mapping[str, RunRecord]) -> dict[str, Any] | None:
    search = plan.study.search
    if search is None or len(search.goals) > 1:  # a Pareto front does not say what to train
        return None
    runs = [_run(best, run, records) for run in best.runs] if best is not None else []
    (end,) = best.tuned.values() if best is not None else (None,)
    return {"words": search.budget.words, "on": search.on, "end": end.to_json() if end else None, "runs": runs}


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
