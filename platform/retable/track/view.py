"""Saved views of MLflow's run page, written as the UI writes them: a table as printed, and its seed runs with curves.

The format is the UI's own (mlflow 3.17): an experiment tag with JSON whose ``state`` is the page's state, deflated.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

from retable.track.entries import KIND, in_table
from retable.track.rows import VERDICT, VS_BASELINE, is_text, ours, row_name, title

TAG = "mlflow.sharedViewState."
_HEADER = "deflate;"
COMPARE = "result and curves"  # the charts' section
Which = Literal["table", "runs"]


def encode(name: str, state: Mapping[str, Any]) -> str:
    """The tag's value for a view of this name and page state."""
    packed = base64.b64encode(zlib.compress(json.dumps(state, sort_keys=True).encode(), 9)).decode()
    return json.dumps({"name": name, "createdAt": 0, "updatedAt": 0, "state": _HEADER + packed})


def decode(value: str) -> tuple[str, dict[str, Any]]:
    """Name and page state of a tag's value (ValueError if it is none)."""
    outer = json.loads(value)
    packed = str(outer["state"])
    if not packed.startswith(_HEADER):
        raise ValueError(f"a saved view starts with {_HEADER!r}, not {packed[:12]!r}")
    return outer["name"], json.loads(zlib.decompress(base64.b64decode(packed.removeprefix(_HEADER))))


def key(table: str, profile: str, which: Which) -> str:
    """What names the view in links; the same at every publish."""
    return f"{profile}-{table}-{which}"


def views(
    table: Mapping[str, Any], profile: str, params: Sequence[str], *, comparable: bool, default: bool
) -> dict[str, str]:
    """Both views of a document's table as experiment tags; ``params`` are those that vary between its runs.

    ``comparable``: with differences to the published values. ``default``: the views' names leave the profile out.
    """
    suffix = "" if default else f" ({profile})"
    both: dict[Which, tuple[str, dict[str, Any]]] = {
        "table": (f"{title(table)} as printed{suffix}", table_state(table, profile, comparable)),
        "runs": (f"{title(table)}: seed runs{suffix}", runs_state(table, profile, params)),
    }
    return {TAG + key(table["id"], profile, which): encode(name, state) for which, (name, state) in both.items()}


def table_filter(table: str, profile: str) -> str:
    """MLflow's search for the row runs of a table."""
    return f"tags.`{KIND}` = 'row' and tags.`retable.table` = '{table}' and tags.`retable.profile` = '{profile}'"


def table_state(table: Mapping[str, Any], profile: str, comparable: bool) -> dict[str, Any]:
    """The table as printed: a line per row, the paper's columns in its order, ours and published side by side."""
    columns: list[tuple[str, int]] = []
    for column in table["columns"]:
        name, static = column["id"], column["kind"] in ("static", "speed")
        if is_text(column):
            columns.append((_tag(name), 110))
            continue
        columns += [
            (_tag(ours(name)), 90 if static else 150),
            (_metric(f"{name}/published"), _wide(f"{name}/published")),
        ]
        if not static:
            more = ["difference"] if comparable else []
            more += [VS_BASELINE] if table.get("baseline") else []
            columns += [(_metric(f"{name}/{m}"), _wide(f"{name}/{m}")) for m in (*more, "n")]
    longest = 70 + 7 * max(len(row_name(row)) for row in table["rows"])
    columns += [(_tag(VERDICT), 400), (_metric("cost/seconds"), 100)]
    return _state(table_filter(table["id"], profile), "tags.`retable.order`", columns, name_width=min(longest, 320))


def runs_state(table: Mapping[str, Any], profile: str, params: Sequence[str]) -> dict[str, Any]:
    """The table's seed runs: varied params and finals as columns; as charts the finals, and the curves overlaid."""
    metrics = _metrics(table)
    at = in_table(profile, table["id"])
    columns = [(f"params.`{p}`", 130) for p in params]
    columns += [(_metric(f"final/{m}"), 100) for m in metrics] + [(_metric(f"paper/{m}"), 100) for m in metrics]
    columns += [(_metric("cost/seconds"), 110), (_tag(at), 240)]
    state = _state(f"tags.`{KIND}` = 'run' and tags.`{at}` != ''", f"tags.`{at}`", columns, name_width=220)
    charts = [_bar(f"final/{m}", COMPARE) for m in metrics]
    charts += [_line(f"{subset}/{m}", COMPARE) for m in metrics for subset in ("test", "val")]
    charts.append(_line("train/loss", COMPARE))
    if params:
        charts.append(_parallel(params, metrics, COMPARE))
    sections = [_section(COMPARE)]
    return {**state, "compareRunCharts": charts, "compareRunSections": sections, "isAccordionReordered": True}


def links(base: str, experiment_id: str, table: str, profile: str) -> dict[str, str]:
    """URLs below the UI's ``base``: ``table`` and ``runs`` are saved views, ``filter`` needs none of them."""
    page = f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    return {
        "table": f"{page}&viewStateShareKey={quote(key(table, profile, 'table'))}",
        "runs": f"{page}&viewStateShareKey={quote(key(table, profile, 'runs'))}&compareRunsMode=CHART",
        "filter": f"{page}&searchFilter={quote(table_filter(table, profile))}"
        f"&orderByKey={quote('tags.`retable.order`')}&orderByAsc=true",
    }


def _state(search: str, order: str, columns: list[tuple[str, int]], *, name_width: int) -> dict[str, Any]:
    widths = {"attributes.`Run Name`": name_width, **dict(columns), "runDateAndNestInfo": 95, "duration": 80}
    return {
        "searchFilter": search,
        "orderByKey": order,
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [name for name, _ in columns],
        "columnOrder": list(widths),
        "columnWidths": widths,
        "runsHiddenMode": "SHOW_ALL",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


def _metrics(table: Mapping[str, Any]) -> list[str]:
    kinds = [c["metric"] for c in table["columns"] if c["kind"] not in ("static", "text") and c.get("metric")]
    return list(dict.fromkeys(kinds))


def _wide(metric: str) -> int:
    """Pixels for a metric's column: its heading, or six digits."""
    return max(60, 18 + round(6.2 * len(metric)))


def _tag(name: str) -> str:
    return f"tags.`{name}`"


def _metric(name: str) -> str:
    return f"metrics.`{name}`"


def _card(kind: str, name: str, section: str) -> dict[str, Any]:
    return {
        "uuid": f"retable-{kind}-{name}",
        "type": kind,
        "runsCountToCompare": 100,
        "metricSectionId": f"retable-{section}",
        "deleted": False,
        "isGenerated": False,
        "displayName": name,
    }


def _bar(metric: str, section: str) -> dict[str, Any]:
    return {**_card("BAR", metric, section), "metricKey": metric}


def _line(metric: str, section: str) -> dict[str, Any]:
    return {
        **_card("LINE", metric, section),
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }


def _parallel(params: Sequence[str], metrics: Sequence[str], section: str) -> dict[str, Any]:
    finals = [f"final/{m}" for m in metrics]
    card = _card("PARALLEL", "params and result", section)
    return {**card, "selectedParams": list(params), "selectedMetrics": finals, "showAllRuns": False}


def _section(name: str) -> dict[str, Any]:
    return {
        "uuid": f"retable-{name}",
        "name": name,
        "display": True,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
    }
