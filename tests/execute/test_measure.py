"""Speeds of networks from plan to table, without Ray: measured once on a machine, and told from MLflow alone."""

from __future__ import annotations

import io
import shutil
from functools import partial

import pytest
from rich.console import Console

from retable.execute import measure
from retable.execute.attempt import carry_out
from retable.execute.driver import still_missing
from retable.execute.order import Order
from retable.execute.publisher import Publisher
from retable.report.dag import show
from retable.report.preview import preview
from retable.report.render import render
from retable.report.results import document
from retable.train import machine
from retable.workspace import Workspace
from tests.execute.small import TEXT, study

SPEED = TEXT.replace('top1: {metric: top1, unit: "%"}', "speed: {metric: videos_per_second, label: Speed}").replace(
    "published: {params: 21.18, top1: 46.0}", "published: {params: 21.18, speed: 10.0}"
).replace("published: {params: 21.84, top1: 49.5}", "published: {params: 21.84}")  # fmt: skip


def orders(workspace: Workspace, **kwargs: bool) -> list[Order]:
    return list(still_missing(workspace.plan(study(SPEED)), workspace, **kwargs).orders)


def run(order: Order) -> str:
    here = measure.on(order, measure.machine_of(order))
    outcome = carry_out(here, partial(measure.measure_and_keep, here, device="cpu"))
    return outcome.reason or outcome.status


def test_a_speed_is_measured_once_on_a_machine_and_again_on_another(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = orders(workspace)
    assert (first.measures, first.parents, first.workers) == ("videos_per_second", (), 1)
    assert [run(first), run(second)] == ["done", "done"]
    assert orders(workspace) == []
    assert measure.is_done(measure.on(first, measure.machine_of(first)))
    assert len(orders(workspace, elsewhere=True)) == 2  # on a cluster its workers know
    here = machine.describe(gpu=False)
    assert here is not None
    monkeypatch.setattr(machine, "describe", lambda gpu: {**here, "torch": "3.0"})
    assert len(orders(Workspace(workspace.storage_url, workspace.data_root))) == 2


def test_the_table_shows_it_with_its_machine_and_sets_it_against_nothing(workspace: Workspace) -> None:
    for order in orders(workspace):
        run(order)
    plan = workspace.plan(study(SPEED))
    doc = document(plan, workspace.records(plan, offline=True))
    (table,) = doc["tables"]
    cell = table["rows"][0]["cells"]["speed"]
    (one,) = cell["values"]
    assert cell["status"] == "done"
    assert 0 < one["low"] <= one["value"] <= one["high"]
    assert (cell["difference"], cell["verdict"], cell["half_width"], one["seed"]) == (None, None, None, None)
    (note,) = [f["text"] for f in table["footnotes"] if f["n"] in cell["notes"]]
    assert "Median of 5 passes" in note
    assert "random weights" in note
    assert measure.machine_of(orders(workspace, elsewhere=True)[0])["machine"] in note
    assert f"{one['value']:.1f} ({one['low']:.1f} to {one['high']:.1f})" in render(doc, "md")

    said = io.StringIO()
    show(preview(plan, workspace.storage.records(), {}), Console(file=said, width=200))
    assert "0 trainings, 0 runs" in said.getvalue()
    assert "measures videos_per_second  done  table2.s3.speed" in said.getvalue()
    assert "2 speeds measured on this machine, 0 to measure" in said.getvalue()


def test_mlflow_alone_gives_the_same_table(workspace: Workspace) -> None:
    for order in orders(workspace):
        run(order)
    loaded = study(SPEED)
    plan = workspace.plan(loaded)
    before = document(plan, workspace.records(plan, offline=True))
    publisher = Publisher(loaded, plan, workspace, Console(file=io.StringIO()))
    publisher.publish()
    assert publisher.publish().created == 0
    shutil.rmtree(f"{workspace.storage.root}/runs")
    assert document(plan, workspace.records(plan)) == before


def test_speeds_of_one_table_are_of_one_machine(workspace: Workspace) -> None:
    first, second = orders(workspace)
    for order, version in ((first, "3.0"), (second, "3.0"), (first, "4.0")):
        there = measure.on(order, {**measure.machine_of(order), "torch": version})
        assert carry_out(there, partial(measure.measure_and_keep, there, device="cpu")).status == "done"
    plan = workspace.plan(study(SPEED))
    (table,) = document(plan, workspace.records(plan, offline=True))["tables"]
    notes = {f["n"]: f["text"] for f in table["footnotes"]}
    told = [notes[n] for row in table["rows"] for n in row["cells"]["speed"]["notes"]]
    assert all("torch 3.0" in text and "Measured on 2 machines" in text for text in told)
    run(first)  # this machine's own come first, even if they are fewer
    (table,) = document(plan, workspace.records(plan, offline=True))["tables"]
    assert [row["cells"]["speed"]["status"] for row in table["rows"]] == ["done", "missing"]


def test_a_measurement_that_fails_says_why(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> dict[str, float]:
        raise MemoryError("host memory")

    monkeypatch.setattr(measure, "measure", broken)
    first, _ = orders(workspace)
    assert "out of memory" in run(first)
    missing = still_missing(workspace.plan(study(SPEED)), workspace)
    assert list(missing.failed.values()) == ["out of memory: host memory"]
    assert len(missing.orders) == 1
