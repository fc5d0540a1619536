"""Runs that read optical flow, from plan to scores: one stream of STA-TSN, and STIDF with both inputs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from rich.console import Console

from retable.data import FLOW_SEMANTICS
from retable.data.errors import FlowUnavailable
from retable.data.flow_file import BYTES_PER_CODE
from retable.execute.attempt import carry_out
from retable.execute.driver import run_study, still_missing
from retable.execute.order import Order
from retable.execute.work import train_and_score
from retable.workspace import Workspace
from tests.execute.small import study

TEXT = """
study: flows
default_profile: laptop
base:
  model: {name: statsn, backbone: tiny, segments: 2, frames_per_segment: 2, flow_length: 3}
  data:
    {dataset: motions-jhmdb, clip: {frames: 4, size: 16, sampling: segments}, flow: {method: dis, bound: 4}}
  recipe: {lr: 1.0e-3, epochs: 1, batch_size: 8}
profiles:
  laptop: {}
tables:
  - id: t
    caption: Streams
    columns: {top1: {metric: top1, unit: "%"}}
    rows:
      - {id: rgb, label: RGB}
      - {id: flow, label: Flow, set: {data.stream: flow}}
      - id: both
        label: Both
        set: {model: {name: stidf, width: 1, pools: [1], fc6_width: 8, hidden: 4, flow_length: 2}}
"""


def orders(workspace: Workspace, text: str = TEXT) -> dict[str, Order]:
    plan = workspace.plan(study(text))
    found = {order.run_id: order for order in still_missing(plan, workspace).orders}
    return {plan.users[run.training.config_id][0].row: found[run.run_id] for run in plan.runs}


@pytest.mark.parametrize("row", ["flow", "both"])
def test_a_run_that_reads_flow_trains_and_is_scored(workspace: Workspace, row: str) -> None:
    order = orders(workspace)[row]
    outcome = carry_out(order, lambda attempt: train_and_score(order, attempt, device="cpu"))
    assert outcome.status == "done", outcome.reason
    record = workspace.storage.record(order.run_id)
    assert record is not None
    assert 0 <= record.evaluations[order.views[0].key]["top1"] <= 100
    assert record.spec["config"]["data"]["flow"] == {"method": "dis", "bound": 4.0, "weights": None}
    assert record.spec["semantics"]["flow"] == FLOW_SEMANTICS
    assert record.environment["opencv-contrib-python-headless"]


def test_how_flow_is_computed_is_part_of_the_identity_of_runs_that_read_it_only(workspace: Workspace) -> None:
    dis, tvl1 = (orders(workspace, TEXT.replace("dis", method)) for method in ("dis", "tvl1"))
    without = orders(workspace, TEXT.replace(", flow: {method: dis, bound: 4}", ""))
    assert dis["rgb"].run_id == tvl1["rgb"].run_id == without["rgb"].run_id
    for row in ("flow", "both"):
        assert len({dis[row].run_id, tvl1[row].run_id, without[row].run_id}) == 3
    assert "flow" not in dis["rgb"].spec["config"]["data"]
    assert "flow" not in dis["rgb"].spec["semantics"]
    assert without["flow"].spec["config"]["data"]["flow"] == {"method": "tvl1", "bound": 20.0, "weights": None}


def test_a_plan_says_how_large_the_flow_is(workspace: Workspace) -> None:
    sizes = workspace.cache_bytes(workspace.plan(study(TEXT)))
    frames = sizes["motions-jhmdb@18"]
    assert frames
    assert sizes == {"motions-jhmdb@18": frames, "motions-jhmdb@18, dis flow": round(frames * 2 / 3 * BYTES_PER_CODE)}


def test_a_run_whose_flow_cannot_be_computed_is_refused_by_name_before_training(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETABLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "cv2", None)
    loaded = study(TEXT)
    plan = workspace.plan(loaded, rows=["flow"])
    with pytest.raises(FlowUnavailable, match=r"^statsn \(run .*\): flow by dis needs OpenCV"):
        run_study(loaded, plan, workspace, Console(quiet=True), record=False)
    assert workspace.storage.run_ids() == []
    order = orders(workspace)["flow"]
    outcome = carry_out(order, lambda attempt: train_and_score(order, attempt, device="cpu"))
    assert outcome.status == "environment"
    assert "pip install" in str(outcome.reason)
