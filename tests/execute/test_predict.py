"""A finished run names the class of a video, shows its maps, and is handed on in one folder."""

from __future__ import annotations

import io
import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from retable import cli
from retable.execute.attempt import carry_out
from retable.execute.driver import still_missing
from retable.execute.export import export
from retable.execute.predict import maps_of, predict
from retable.execute.trained import Fused, NotAvailable, Trained, find_cell, find_run
from retable.execute.work import train_and_score
from retable.study.config import Config
from retable.train.evaluate import load_model
from retable.workspace import Workspace
from tests.execute.small import TEXT, study
from tests.execute.staged import FEATURES

ROW = TEXT.replace("protocol: {clips: 1}", "protocol: {clips: 2, crops: ten}").replace(
    "set: {model.groups: 3}", "set: {model.groups: 3, model.attention: fsam}"
)


@pytest.fixture
def cell(workspace: Workspace) -> Fused:
    plan = workspace.plan(study(ROW), rows=["s3"])
    (order,) = still_missing(plan, workspace).orders
    assert carry_out(order, lambda n: train_and_score(order, n, device="cpu")).status == "done"
    return find_cell(workspace.storage, plan, "table2", "s3", None, 0)


@pytest.fixture
def trained(cell: Fused) -> Trained:
    (part,) = cell.parts
    return part


def test_a_test_video_gets_the_scores_that_were_recorded_for_it(
    workspace: Workspace, cell: Fused, trained: Trained
) -> None:
    (view,) = trained.record.evaluations
    scores = trained.record.scores(view)
    assert scores is not None
    for row in (0, len(scores.videos) - 1):
        found = predict(cell, Path(str(workspace.data_root)) / "motions-ucf101" / scores.videos[row])
        assert [p for _, p in found] == sorted((p for _, p in found), reverse=True)
        assert [dict(found)[name] for name in scores.classes] == pytest.approx(scores.probs[row].tolist(), abs=1e-6)


def test_a_run_on_features_predicts_through_the_network_that_gave_them(workspace: Workspace, tmp_path: Path) -> None:
    plan = workspace.plan(study(FEATURES), rows=["without"])
    for order in still_missing(plan, workspace).orders:
        outcome = carry_out(order, partial(train_and_score, order, device="cpu"))
        assert outcome.status == "done", outcome.reason
    head = find_cell(workspace.storage, plan, "t", "without", None, 0)
    (view,) = head.parts[0].record.evaluations
    scores = head.parts[0].record.scores(view)
    assert scores is not None
    found = predict(head, Path(str(workspace.data_root)) / "motions-ucf101" / scores.videos[3])
    assert [dict(found)[name] for name in scores.classes] == pytest.approx(scores.probs[3].tolist(), abs=1e-6)
    assert {"frozen.pt", "frozen.yaml"} <= {path.name for path in export(head, tmp_path / "out")}
    maps = maps_of(head.parts[0], Path(str(workspace.data_root)) / "motions-ucf101" / scores.videos[3])
    assert maps["input.rgb"].shape == (1, 1, 6, 32, 32, 3)
    assert maps["maps.alpha"].shape == (1, 1, 6, 4, 4)  # of the frozen network
    assert maps["maps.beta"].shape == (1, 1, 2, 3)


def test_a_fused_cell_predicts_what_its_runs_do_together(workspace: Workspace, tmp_path: Path) -> None:
    columns = "a: {metric: top1, set: {model.groups: 3}}\n      b: {metric: top1, set: {model.groups: 4}}"
    text = TEXT.replace('top1: {metric: top1, unit: "%"}', f"{columns}\n      c: {{fuse: [a, b], weights: [1, 3]}}")
    text = text.replace(", set: {model.groups: 3}, published: {params: 21.18, top1: 46.0}", "").replace(
        "epochs: 2", "epochs: 1"
    )
    text = "\n".join(line for line in text.splitlines() if "id: s4" not in line)
    plan = workspace.plan(study(text))
    for order in still_missing(plan, workspace).orders:
        assert carry_out(order, partial(train_and_score, order, device="cpu")).status == "done"
    video = next((Path(str(workspace.data_root)) / "motions-ucf101").rglob("*.avi"))
    a, b, fused = (find_cell(workspace.storage, plan, "table2", "s3", name, 0) for name in "abc")
    assert fused.weights == (0.25, 0.75)
    assert find_cell(workspace.storage, plan, "table2", "s3", None, 0) == a
    ours, theirs = dict(predict(a, video)), dict(predict(b, video))
    expected = {name: 0.25 * ours[name] + 0.75 * theirs[name] for name in ours}
    assert dict(predict(fused, video)) == pytest.approx(expected)
    export(fused, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["1-rgb", "2-rgb", "card.md"]
    assert "2-rgb: weight 0.75" in (tmp_path / "out" / "card.md").read_text()


def test_maps_are_the_models_and_come_with_the_pixels_that_it_saw(workspace: Workspace, trained: Trained) -> None:
    video = next((Path(str(workspace.data_root)) / "motions-ucf101").rglob("*.avi"))
    maps = maps_of(trained, video)
    assert maps["input.rgb"].shape == (2, 10, 8, 32, 32, 3)
    assert all(value.shape[:2] == (2, 10) for value in maps.values())
    assert sum(name.startswith("maps.") for name in maps) > 5  # one for each stage, and the weights of its attention


def test_an_exported_folder_is_enough_to_build_the_model(cell: Fused, trained: Trained, tmp_path: Path) -> None:
    folder = tmp_path / "handed" / "on"
    assert {path.name for path in export(cell, folder)} == {"checkpoint.pt", "config.yaml", "classes.txt", "card.md"}
    config = Config.model_validate(YAML(typ="safe", pure=True).load(folder / "config.yaml"))
    again = load_model(config, (folder / "checkpoint.pt").read_bytes())
    weights = torch.load(io.BytesIO(trained.state), weights_only=True)["model"]
    assert all(torch.equal(value, weights[name]) for name, value in again.state_dict().items())
    assert tuple((folder / "classes.txt").read_text().splitlines()) == trained.classes
    card = (folder / "card.md").read_text()
    assert trained.record.run_id in card
    assert "table2.s3.top1" in card
    with pytest.raises(NotAvailable, match="is not empty"):
        export(cell, folder)


def test_what_is_not_there_is_said(workspace: Workspace, trained: Trained) -> None:
    storage = workspace.storage
    with pytest.raises(NotAvailable, match=r"no run in .* begins with 'zz'"):
        find_run(storage, "zz")
    assert find_run(storage, trained.record.run_id[:6]).record == trained.record
    other = workspace.plan(study(ROW))
    with pytest.raises(NotAvailable, match="no run in"):
        find_cell(storage, other, "table2", "s4", None, 0)
    with pytest.raises(NotAvailable, match=r"table2\.s3\.params cannot be asked: no cell of it is filled by runs"):
        find_cell(storage, other, "table2", "s3", "params", 0)
    for name in storage.checkpoints(trained.record.run_id):
        storage.delete(name)
    with pytest.raises(NotAvailable, match="has no last checkpoint"):
        find_run(storage, trained.record.run_id)


def test_the_commands_say_the_same(
    workspace: Workspace,
    cell: Fused,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "small.yaml").write_text(ROW)
    video = next((Path(str(workspace.data_root)) / "motions-ucf101").rglob("*.avi"))
    places = ["--storage", workspace.storage_url, "--data", str(workspace.data_root)]

    def said(*words: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["retable", *words, *places])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, capsys.readouterr().out

    asked = ["--study", str(tmp_path / "small.yaml"), "--row", "table2.s3"]
    code, text = said("predict", str(video), *asked, "--top", "2", "--json", "--maps", str(tmp_path / "maps"))
    assert code == 0
    best = [{"class": name, "probability": p} for name, p in predict(cell, video)[:2]]
    assert json.loads(text)["classes"] == best
    with np.load(tmp_path / "maps" / "maps.npz") as maps:
        assert "input.rgb" in maps
    assert sorted(p.name for p in (tmp_path / "maps").glob("*.png")) == ["clip0.png", "clip1.png"]
    assert said("export", *asked, "--out", str(tmp_path / "out"))[0] == 0
    assert (tmp_path / "out" / "card.md").is_file()
    code, text = said("classes", *asked, "--json")
    assert code == 0
    assert {c["name"] for c in json.loads(text)["classes"]} == set(cell.classes)
    assert json.loads(said("classes", "--run", cell.parts[0].record.run_id, "--json")[1])["run_ids"] == [
        cell.parts[0].record.run_id
    ]
    assert "mostly taken for" in said("classes", *asked)[1]
    assert said("classes", "--run", "zz")[0] == 2
    assert said("predict", str(video))[0] == 2
    assert said("predict", str(video), "--run", "zz")[0] == 2
