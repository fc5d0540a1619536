"""Every dataset, from its own tree on disk to a cell of a table: index, verify, pack, train, score, print.

Once function by function, the pack on another machine; once by the commands that a user types, all in one study.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retable import cli
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
  data: {{dataset: ucf101, clip: {{frames: 4, size: 8}}}}
  recipe: {{lr: 1.0e-3, epochs: 1, batch_size: 2}}
profiles:
  laptop: {{}}
tables:
  - id: table1
    caption: One row
    columns:
      top1: {{metric: top1, unit: "%"}}
    rows:
"""
ROW = """
      - id: "{name}"
        label: "{name}"
        set: {{data: {{dataset: {name}, split: {split}, num_classes: {classes}}}}}
"""
SMALL = {"count", "vanished", "lists", "duplicate"}
"""Findings about miniatures: other numbers than published, a vanished video, splits without lists, pictures twice."""
SPLIT = {"thumos14": 2}
"""Split 1 of the others."""
MODEL = Path(__file__).parents[1] / "train" / "tiny_model.py"


@pytest.mark.parametrize("name", MINIATURES)
def test_a_miniature_becomes_a_cell(miniature: Callable[[str], Manifest], tmp_path: Path, name: str) -> None:
    videos, split = miniature(name), SPLIT.get(name, 1)
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
    text = STUDY.format(model=MODEL) + ROW.format(name=name, split=split, classes=classes)
    plan = workspace.plan(parse(text, "miniatures.yaml"))
    (order,) = still_missing(plan, workspace).orders
    outcome = carry_out(order, lambda attempt: train_and_score(order, attempt, device="cpu"))
    assert outcome.status == "done", outcome.reason
    (table,) = document(plan, workspace.storage.records())["tables"]
    return float(table["rows"][0]["cells"]["top1"]["mean"])


@pytest.mark.usefixtures("ray_local")
def test_the_commands_make_a_table_of_every_miniature(
    miniature: Callable[[str], Manifest],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def retable(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["retable", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr().out

    monkeypatch.setenv("RETABLE_DATA", str(tmp_path))
    monkeypatch.setenv("RETABLE_STORAGE", str(tmp_path / "store"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'record.db'}")
    text = STUDY.format(model=MODEL)
    for name in MINIATURES:
        videos = miniature(name)
        assert retable("data", "index", name, "--processes", "0")[0] == 0
        assert retable("data", "pack", name, "--processes", "0")[0] == 0
        found = json.loads(retable("data", "verify", name, "--json")[1])["findings"]
        assert {finding["kind"] for finding in found} <= SMALL
        text += ROW.format(name=name, split=SPLIT.get(name, 1), classes=len(videos.classes))
    study = tmp_path / "miniatures.yaml"
    study.write_text(text)
    assert retable("run", str(study))[0] == 0
    shutil.rmtree(tmp_path / "store")
    (told,) = json.loads(retable("table", str(study), "--format", "json")[1])["tables"]  # of MLflow's record alone
    cells = {row["id"]: row["cells"]["top1"] for row in told["rows"]}
    assert {name: cell["status"] for name, cell in cells.items()} == dict.fromkeys(MINIATURES, "done")
    printed = retable("table", str(study), "--format", "md")[1]
    for name, cell in cells.items():
        assert 0 <= cell["mean"] <= 100
        (row,) = (line for line in printed.splitlines() if line.startswith(f"| {name}".replace("_", r"\_") + " "))
        assert f"{cell['mean']:.1f}" in row
