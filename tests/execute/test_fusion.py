"""Fused cells from real runs: without training or scoring anything more, and from MLflow alone."""

from __future__ import annotations

import io
import shutil
from functools import partial
from typing import get_args

import numpy as np
import pytest
from rich.console import Console

from retable.execute.attempt import carry_out
from retable.execute.driver import still_missing
from retable.execute.publisher import Publisher
from retable.execute.work import train_and_score
from retable.report import classes
from retable.report.render import Format, render
from retable.report.results import document
from retable.study.load import parse
from retable.track import reader
from retable.workspace import Workspace

TEXT = """
study: two
default_profile: laptop
base:
  model: {name: msfnet, width: 8, reduction: 4}
  data: {dataset: motions-ucf101, clip: {frames: 8, size: 32}}
  recipe: {lr: 1.0e-3, epochs: 1, batch_size: 8}
profiles: {laptop: {}}
tables:
  - id: t
    caption: Two networks
    columns:
      three: {metric: top1, set: {model.groups: 3}}
      four: {metric: top1, set: {model.groups: 4}}
      both: {fuse: [three, four], weights: [1, 2]}
      precision: {fuse: [three, four], metric: map}
    rows: [{id: row, label: row}]
"""


def test_fused_cells_are_those_by_hand_and_come_out_of_mlflow_alone(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = parse(TEXT, "two.yaml")
    plan = workspace.plan(loaded)
    orders = still_missing(plan, workspace).orders
    assert len(orders) == 2
    for order in orders:
        carry_out(order, partial(train_and_score, order, device="cpu"))

    def printed() -> dict[str, str]:
        doc = document(plan, workspace.records(plan))
        return {name: render(doc, name) for name in get_args(Format)}

    doc = document(plan, workspace.records(plan, offline=True))
    cells = doc["tables"][0]["rows"][0]["cells"]
    three, four = (workspace.storage.scores(o.run_id, o.views[0].key) for o in orders)
    assert three is not None
    assert four is not None
    assert three.videos == four.videos
    right = (three.probs + 2 * four.probs).argmax(axis=1) == three.labels
    assert cells["both"]["mean"] == 100 * int(right.sum()) / right.size
    assert cells["precision"]["status"] == "done"
    by_class = classes.of_cell(plan, workspace.records(plan, offline=True), "t", "row", "both", 0)
    assert by_class["run_ids"] == [o.run_id for o in orders]
    assert by_class["metrics"]["top1"] == cells["both"]["mean"]
    counts = np.array(by_class["confusion"])
    assert 100 * np.trace(counts) / counts.sum() == pytest.approx(cells["both"]["mean"])
    assert [c["right"] for c in by_class["classes"]] == np.diagonal(counts).tolist()
    with pytest.raises(classes.NoScores, match=r"t\.row\.both, seed 7: not run yet"):
        classes.of_cell(plan, workspace.records(plan, offline=True), "t", "row", "both", 7)

    before = printed()
    Publisher(loaded, plan, workspace, Console(file=io.StringIO())).publish()
    shutil.rmtree(f"{workspace.storage.root}/runs")
    assert printed() == before
    assert document(plan, reader.read(workspace.tracking_uri, "two")) == doc
    monkeypatch.setattr(reader, "_local_folder", lambda uri: None)  # as of a server: files are downloaded
    assert document(plan, reader.read(workspace.tracking_uri, "two")) == doc
    (record, *_) = reader.read(workspace.tracking_uri, "two").values()
    assert record.scores("another view") is None
