"""A small study with its plan, records and table document, made by hand: two tables that share one training."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retable.study.config import Config, Data, Protocol, Recipe, Resources
from retable.study.load import parse
from retable.study.plan import Cell, Evaluation, Plan, RunSpec, Training, View
from retable.study.schema import Study
from retable.track.records import RunRecord

VIEW = "f00dfeed"
STUDY = """
study: toy
question: Does S matter?
default_profile: laptop
base: {model: {name: toy}, data: {dataset: motions}}
profiles: {laptop: {}, paper: {}}
tables:
  - id: table2
    cite: Table 2
    caption: Number of groups
    baseline: s4
    columns: {params: {metric: params, unit: M}, top1: {metric: top1, unit: "%", label: Accuracy}}
    rows:
      - {id: s3, label: S = 3, set: {model.groups: 3}, published: {params: 21.18, top1: 46.0}}
      - {id: s4, label: S = 4, set: {model.groups: 4}, published: {params: 21.84, top1: 49.5}}
  - id: table5
    cite: Table 5
    caption: Against others
    columns: {top1: {metric: top1}}
    rows:
      - {id: other, label: Other, quoted: "[7]", published: {top1: 44.0}}
      - {id: ours, label: MSF-R3D, set: {model.groups: 4}, published: {top1: 49.5}}
"""


def study() -> Study:
    return parse(STUDY).study


def training(groups: int) -> Training:
    config = Config(
        model={"name": "toy", "groups": groups, "width": 8},
        data=Data(dataset="motions"),
        recipe=Recipe(epochs=2, lr=1e-4),
    )
    views = (View(VIEW, Protocol(), "test", 1),)
    return Training(f"c{groups}", f"~c{groups}", config, Resources(), "motions", "ab" * 32, {"model": 1}, views)


def plan(profile: str = "laptop", **settings: Any) -> Plan:
    """S = 3 and S = 4 in Table 2, S = 4 again in Table 5; seeds 0 and 1."""
    trainings = {f"c{groups}": training(groups) for groups in (3, 4)}
    evaluations = {f"c{g}/{VIEW}": Evaluation(f"c{g}/{VIEW}", "scores", f"c{g}", VIEW) for g in (3, 4)}
    cells = [
        *(Cell("table2", f"s{g}", "params", "static", "params", static=trainings[f"c{g}"].config) for g in (3, 4)),
        *(Cell("table2", f"s{g}", "top1", "metric", "top1", evaluation=f"c{g}/{VIEW}") for g in (3, 4)),
        Cell("table5", "other", "top1", "metric", "top1", hole="quoted from [7]"),
        Cell("table5", "ours", "top1", "metric", "top1", evaluation=f"c4/{VIEW}"),
    ]
    return Plan(study(), profile, (0, 1), tuple(cells), evaluations, trainings, settings)


def _record(run: RunSpec, top1: float, epochs: int = 2) -> RunRecord:
    """A finished run; its numbers have more digits than people want to read."""
    curves = tuple(
        {"epoch": e, "train/loss": 2 / (e + 1 + run.seed / 3), "test/top1": top1 * (e + 1) / 2, "seconds": 1.5}
        for e in range(epochs)
    )
    return RunRecord(
        json.loads(json.dumps(run.to_json())),
        "done",
        epochs=curves,
        evaluations={VIEW: {"top1": top1, "mean_class": top1 / 3, "videos": 12.0}},
        cost={"seconds": 100 / 3, "steps": 300.0},
        environment={"device": "cpu"},
        attempts=1,
    )


def records(plan: Plan) -> dict[str, RunRecord]:
    return {run.run_id: _record(run, 40 + 200 * i / 7) for i, run in enumerate(plan.runs)}


def failed(one: RunRecord, reason: str) -> RunRecord:
    return replace(one, status="failed", reason=reason, epochs=one.epochs[:1], evaluations={})


def partial(one: RunRecord, epochs: int) -> RunRecord:
    return replace(one, status="partial", epochs=one.epochs[:epochs], evaluations={}, cost={}, environment={})


def cell(kind: str = "metric", status: str = "done", **more: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "published": None,
        "values": [],
        "mean": None,
        "half_width": None,
        "n": 0,
        "difference": None,
    }
    said: dict[str, Any] = {"verdict": None, "to_baseline": None, "notes": []}
    return {**base, **said, "unit": "", "kind": kind, "status": status, **more}


def _measured(plan: Plan, groups: int, found: dict[str, RunRecord], published: float) -> dict[str, Any]:
    ids = {seed: plan.trainings[f"c{groups}"].run(seed).run_id for seed in (0, 1)}
    values: list[dict[str, Any]] = [
        {"seed": seed, "value": found[i].evaluations[VIEW]["top1"], "run_id": i}
        for seed, i in ids.items()
        if i in found and found[i].evaluations
    ]
    if not values:
        return cell(status="missing", published=published, notes=[1])
    mean = sum(v["value"] for v in values) / len(values)
    half = 1.25 if len(values) > 1 else None
    return cell(published=published, values=values, mean=mean, half_width=half, n=len(values), verdict="close enough")


def document(plan: Plan, found: dict[str, RunRecord], *, comparable: bool = False) -> dict[str, Any]:
    def row(row_id: str, label: str, quoted: str | None = None, **cells: Any) -> dict[str, Any]:
        return {"id": row_id, "label": label, "quoted": quoted, "text": {}, "notes": [], "cells": cells}

    def count(value: float, published: float) -> dict[str, Any]:
        values = [{"seed": None, "value": value, "run_id": None}]
        return cell("static", "static", published=published, values=values, mean=value, n=1)

    params = {"id": "params", "label": "params", "unit": "M", "kind": "static", "metric": "params", "decimals": 2}
    top1 = {"id": "top1", "label": "Accuracy", "unit": "%", "kind": "metric", "metric": "top1", "decimals": 1}
    shared = {"footnotes": [{"n": 1, "text": "Not run yet."}], "order": [], "notes": [], "provenance": {}}
    table2 = [
        row("s3", "S = 3", params=count(21.178989, 21.18), top1=_measured(plan, 3, found, 46.0)),
        row("s4", "S = 4", params=count(21.844845, 21.84), top1=_measured(plan, 4, found, 49.5)),
    ]
    table5 = [
        row("other", "Other", "[7]", top1=cell(status="quoted", published=44.0)),
        row("ours", "MSF-R3D", top1=_measured(plan, 4, found, 49.5)),
    ]
    head = {"schema": 1, "study": "toy", "profile": plan.profile, "comparable": comparable, "seeds": [0, 1]}
    tables: list[dict[str, Any]] = [
        {"id": "table2", "cite": "Table 2", "caption": "Number of groups", "baseline": "s4", "columns": [params, top1]},
        {"id": "table5", "cite": "Table 5", "caption": "Against others", "baseline": None, "columns": [top1]},
    ]
    return {**head, "tables": [{**tables[0], "rows": table2, **shared}, {**tables[1], "rows": table5, **shared}]}


def scores() -> bytes:
    """Three videos of two classes; the second is taken for the first class."""
    probs = pa.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]], pa.list_(pa.float32()))
    table = pa.table({"video": ["a", "b", "c"], "label": pa.array([0, 1, 1], pa.int64()), "probs": probs})
    out = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"classes": json.dumps(["up", "down"])}), out)
    return out.getvalue()


class Toy:
    """The toy study for tests: what is above, under one name."""

    view = VIEW
    study = staticmethod(study)
    make_plan = staticmethod(plan)
    make_document = staticmethod(document)
    failed = staticmethod(failed)
    partial = staticmethod(partial)
    scores = staticmethod(scores)

    def __init__(self) -> None:
        self.plan = plan()
        self.records = records(self.plan)
        self.document = document(self.plan, self.records)


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh sqlite store: making one costs a second, copying it nothing."""
    from retable.track.record import session

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with session(f"sqlite:///{path}") as mlflow:
        assert mlflow.client.get_experiment_by_name("toy") is None
    return path


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path) -> str:
    """A store of the test's own."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def publish(uri: str, toy: Toy) -> Callable[..., Any]:
    """Publishes the toy study, or what is given instead of its records, document or plan."""
    from retable.track import record as recorder

    def run(**given: Any) -> Any:
        plan = given.pop("plan", toy.plan)
        found = given.pop("records", toy.records)
        table = given.pop("document", None) or document(plan, found)
        return recorder.publish(uri, plan.study, plan, found, table, **given)

    return run
