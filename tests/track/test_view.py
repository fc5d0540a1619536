"""Saved views: what they filter, sort and show, in the UI's own encoding; and the picture of a confusion matrix."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from retable.track import confusion, view
from retable.track.record import session
from retable.track.writer import found_runs

BY_HAND = (
    "deflate;eJxlkstOKzEMhl+lyoZNVWBbicXQw020ILXAQUKIponbscgko9gpHVDfHWcGKJdlfvtz/Nt+UwQ6mvIUHUNUQ8V6RYN5"
    "BNYLB4Nn9HbeO+rtxfCyp/oqRAvxuLmE5k9qG5rvcgoyasgxQV8R68g3WIFAxXgsOQ6XYBrj4OvfwjCuQUJWsyZg+ow8PPZVFSy4"
    "O4iEwe8I53rT5EkYAgeGwY6CS5UowwelmSMuEoO0OAspGsi9fVcnuSj9Vv9132f5pz+LVDvdDDjUhzlagUBGErKwX6eFQyrB/gXX"
    "EC0aqShGTNvgdZ5Q56wT/qPlUtp+2/ZVFEvnaC343KD4PL2Yzm6eDg+eprdXM6m+RniZ6A1W+ApWDZfaEbTYGIk78ktFKoyRhcjc"
    "ptAu5huSCM5iSDXYO+0S0IUflbIo+lxbiRZOqpqbn/IqM8dyAD459/Gkk02tvc3Fs4eVCwvtxuihRUfBL3ElIbUpNkjd9RBD3V6C"
    "h1kVApceSP442G3zPidP2jF3iNpu3wFQsvTa"
)


def saved(uri: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """The experiment's views by key."""
    with session(uri) as mlflow:
        tags = mlflow.client.get_experiment_by_name("toy").tags
    return {k.removeprefix(view.TAG): view.decode(v) for k, v in tags.items() if k.startswith(view.TAG)}


def found(uri: str, state: dict[str, Any]) -> list[str]:
    """Names of the runs that the view shows, in its order."""
    order = f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"
    with session(uri) as mlflow:
        experiment = mlflow.client.get_experiment_by_name("toy")
        runs = mlflow.client.search_runs([experiment.experiment_id], state["searchFilter"], order_by=[order])
    return [run.info.run_name for run in runs]


def test_the_table_view_shows_the_papers_rows_and_columns_in_its_order(publish: Callable[..., Any], uri: str) -> None:
    publish()
    name, state = saved(uri)["laptop-table2-table"]
    assert name == "Table 2 as printed"
    assert state["orderByKey"] == "tags.`retable.order`"
    assert found(uri, state) == ["S = 3", "S = 4"]
    assert state["selectedColumns"] == [
        "tags.`params/ours`",
        "metrics.`params/published`",
        "tags.`top1/ours`",
        "metrics.`top1/published`",
        "metrics.`top1/vs_baseline`",
        "metrics.`top1/n`",
        "tags.`retable.verdict`",
        "metrics.`cost/seconds`",
    ]
    assert state["columnOrder"][1:-2] == state["selectedColumns"]
    assert set(state["columnWidths"]) == set(state["columnOrder"])  # the UI uses no other widths


def test_the_table_view_shows_the_paper_difference_only_where_it_may(
    publish: Callable[..., Any], toy: Any, uri: str
) -> None:
    publish(
        plan=toy.make_plan("paper"), document=toy.make_document(toy.make_plan("paper"), toy.records, comparable=True)
    )
    name, state = saved(uri)["paper-table2-table"]
    assert name == "Table 2 as printed (paper)"
    assert "metrics.`top1/difference`" in state["selectedColumns"]


def test_the_seed_runs_view_shows_every_run_of_the_table_also_those_named_after_another(
    publish: Callable[..., Any], uri: str
) -> None:
    publish()
    _, two = saved(uri)["laptop-table2-runs"]
    _, five = saved(uri)["laptop-table5-runs"]
    assert found(uri, two) == ["S = 3 · seed 0", "S = 3 · seed 1", "S = 4 · seed 0", "S = 4 · seed 1"]
    assert found(uri, five) == ["S = 4 · seed 0", "S = 4 · seed 1"]
    assert two["selectedColumns"][:2] == ["params.`model.groups`", "metrics.`final/top1`"]
    assert "params.`model.groups`" not in five["selectedColumns"]  # nothing varies there


def test_a_view_follows_the_table(publish: Callable[..., Any], toy: Any, uri: str) -> None:
    publish()
    toy.document["tables"][0]["columns"].pop(0)
    publish(document=toy.document)
    _, state = saved(uri)["laptop-table2-table"]
    assert state["selectedColumns"][0] == "tags.`top1/ours`"


def test_every_column_and_chart_of_the_views_has_data(publish: Callable[..., Any], uri: str) -> None:
    done = publish()
    with session(uri) as mlflow:
        runs = list(found_runs(mlflow.client, done.experiment_id))
    known: dict[str, set[str]] = {"metrics": set(), "tags": set(), "params": set()}
    for run in runs:
        for kind, names in known.items():
            names |= set(getattr(run.data, kind))
    empty = {"top1/vs_baseline", "val/top1"}  # no baseline difference in the document, no validation set in the runs
    for _, state in saved(uri).values():
        for column in state["selectedColumns"]:
            kind, _, name = column.partition(".")
            assert name.strip("`") in known[kind] | empty
        for chart in state.get("compareRunCharts", []):
            assert set(chart.get("selectedMetrics", [chart.get("metricKey")])) <= known["metrics"] | empty


def test_curves_are_overlaid_by_epoch(publish: Callable[..., Any], uri: str) -> None:
    publish()
    _, state = saved(uri)["laptop-table2-runs"]
    charts = {chart["metricKey"]: chart for chart in state["compareRunCharts"] if "metricKey" in chart}
    assert charts["final/top1"]["type"] == "BAR"
    assert {charts[m]["type"] for m in ("test/top1", "train/loss")} == {"LINE"}
    assert {chart["xAxisKey"] for chart in charts.values() if chart["type"] == "LINE"} == {"step"}
    assert {chart["metricSectionId"] for chart in charts.values()} == {s["uuid"] for s in state["compareRunSections"]}


def test_a_view_as_the_ui_saves_it_is_read_and_ours_has_the_same_fields() -> None:
    """Saved by hand in the UI of mlflow 3.17.2: filter, sorting and three more columns chosen."""
    value = {"name": "by hand", "createdAt": 1795174040914, "updatedAt": 1795174040914, "state": BY_HAND}
    name, state = view.decode(json.dumps(value))
    assert (name, state["searchFilter"]) == ("by hand", "tags.`retable.kind` = 'row'")
    table = {"id": "t", "columns": [], "rows": [{"label": "A", "quoted": None}]}
    ours = view.table_state(table, "laptop", comparable=False)
    assert {k: type(v) for k, v in ours.items()} == {k: type(v) for k, v in state.items()}


def test_what_is_no_view_is_refused() -> None:
    with pytest.raises(ValueError, match="deflate;"):
        view.decode('{"name": "x", "state": "{}"}')


@pytest.mark.parametrize("columns", [1, 20])
def test_a_wide_table_fits_into_a_tag(columns: int) -> None:
    names = [{"id": f"dataset-{i}", "kind": "metric", "metric": "top1"} for i in range(columns)]
    table = {"id": "wide", "cite": None, "baseline": "a", "columns": names, "rows": [{"label": "A", "quoted": None}]}
    tags = view.views(table, "laptop", ["model.groups"], comparable=True, default=True)
    assert all(len(value) < 20_000 for value in tags.values())
    assert view.decode(tags[view.TAG + "laptop-wide-table"])[0] == "wide as printed"


def test_links_lead_to_the_views_and_to_a_plain_filter() -> None:
    links = view.links("http://127.0.0.1:5000/", "7", "table2", "laptop")
    page = "http://127.0.0.1:5000/#/experiments/7/runs?workflowType=machine_learning"
    assert links["table"] == f"{page}&viewStateShareKey=laptop-table2-table"
    assert links["runs"] == f"{page}&viewStateShareKey=laptop-table2-runs&compareRunsMode=CHART"
    assert links["filter"].startswith(f"{page}&searchFilter=tags.%60retable.kind%60%20%3D%20%27row%27")


@pytest.mark.parametrize("classes", [2, 101])
def test_a_confusion_matrix_is_drawn_for_few_and_for_many_classes(classes: int) -> None:
    names = tuple(f"<{i}>" for i in range(classes))
    picture = ElementTree.fromstring(confusion.to_svg(np.eye(classes, dtype=np.int64) * 3, names))
    squares = [e for e in picture.iter() if e.tag.endswith("rect") and "stroke" in e.attrib]
    texts = [e.text for e in picture.iter() if e.tag.endswith("text")]
    assert len(squares) == classes**2
    assert texts.count("3") == (classes if classes == 2 else 0)
