"""Every dataset, from its own tree on disk to a cell of a table: index, verify, pack, train, score, print."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retable.data.check import check_derived, check_pack
from retable.data.clips import open_clips, pack_folder
from retable.data.decode import read_frames
from retable.data.indexing import build_index
from retable.data.manifest import Manifest, fingerprint, open_dataset
from retable.data.pack import build_pack
from retable.data.packed import open_pack
from retable.data.verify import verify
from retable.execute.attempt import carry_out
from retable.execute.driver import still_missing
from retable.execute.work import train_and_score
from retable.report.results import document
from retable.study.load import parse
from retable.workspace import Workspace
from tests.data.test_layouts_pipeline import MINIATURES, miniature

__all__ = ["miniature"]

STUDY = """
study: miniatures
default_profile: laptop
base:
  model: {{name: {model}}}
  data: {{dataset: {name}, split: {split}, num_classes: {classes}, clip: {{frames: 4, size: 8}}}}
  recipe: {{lr: 1.0e-3, epochs: 1, batch_size: 2}}
profiles:
  laptop: {{}}
tables:
  - id: table1
    caption: One row
    columns:
      top1: {{metric: top1, unit: "%"}}
    rows:
      - {{id: only, label: only}}
"""
SMALL = {"count", "vanished", "lists", "duplicate"}
"""Findings about miniatures: other numbers than published, a vanished video, splits without lists, pictures twice."""
MODEL = Path(__file__).parents[1] / "train" / "tiny_model.py"


@pytest.mark.parametrize("name", MINIATURES)
def test_a_miniature_becomes_a_cell(miniature: Callable[[str], Manifest], tmp_path: Path, name: str) -> None:
    videos, split = miniature(name), 2 if name == "thumos14" else 1
    index = build_index(videos, processes=0)
    assert index.damaged == {}
    assert {finding.kind for finding in verify(videos, processes=0)} <= SMALL
    build_pack(videos, index, pack_folder(videos))
    assert list(check_derived(videos)) == []
    mark, paths = fingerprint(videos, split), [item.path for item in videos.items(split)]
    expected = {path: read_frames(videos.root / path, [3, 0], 16) for path in paths}
    for clips in (open_clips(videos), open_pack(pack_folder(videos))):
        assert all(np.array_equal(clips.read(path, [3, 0], 16), expected[path]) for path in paths)
    shutil.move(pack_folder(videos), tmp_path / "there" / name)  # the rest without a video file
    shutil.rmtree(videos.root)
    packed = open_dataset(name, tmp_path / "there" / name)
    assert check_pack(open_pack(packed.root), processes=0) == []
    assert fingerprint(packed, split) == mark
    assert 0 <= trained(tmp_path, name, split, len(packed.classes)) <= 100


def trained(folder: Path, name: str, split: int, classes: int) -> float:
    """The one cell of a study of this dataset, run in ``folder``."""
    workspace = Workspace(str(folder / "store"), str(folder / "there"))
    text = STUDY.format(model=MODEL, name=name, split=split, classes=classes)
    plan = workspace.plan(parse(text, "miniatures.yaml"))
    (order,) = still_missing(plan, workspace).orders
    outcome = carry_out(order, lambda attempt: train_and_score(order, attempt, device="cpu"))
    assert outcome.status == "done", outcome.reason
    (table,) = document(plan, workspace.storage.records())["tables"]
    return float(table["rows"][0]["cells"]["top1"]["mean"])
