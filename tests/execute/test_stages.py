"""Runs that start from other runs: in order, once, from the right weights and features, whatever is killed or fails."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from retable.data.errors import DataError
from retable.data.loader import open_run_data
from retable.data.manifest import Manifest
from retable.execute.attempt import carry_out
from retable.execute.driver import still_missing
from retable.execute.order import Order
from retable.execute.refusals import refuse, refuse_caches, refuse_misfits
from retable.execute.work import features_of, newest_state, train_and_score
from retable.report.dag import show
from retable.report.preview import preview
from retable.report.results import document
from retable.study.check import check
from retable.track.runs import run_entries
from retable.train import stages
from retable.train.checkpoint import unpack
from retable.train.evaluate import load_model
from retable.train.model import inputs
from retable.train.stages import StageError, embedded
from retable.workspace import Workspace
from tests.execute.small import study
from tests.execute.staged import FEATURES, WEIGHTS


class Killed(BaseException):
    """Stands for kill -9: nothing handles it."""


def orders(workspace: Workspace, text: str, **kwargs: Any) -> list[Order]:
    return list(still_missing(workspace.plan(study(text), **kwargs), workspace).orders)


def here(order: Order, report: Callable[[dict[str, Any]], None] | None = None) -> Callable[[int], None]:
    return lambda attempt: train_and_score(order, attempt, device="cpu", report=report)


def run_all(workspace: Workspace, text: str) -> None:
    for order in orders(workspace, text):
        outcome = carry_out(order, here(order))
        assert outcome.status == "done", outcome.reason


def table(workspace: Workspace, text: str) -> list[Any]:
    plan = workspace.plan(study(text))
    rows = document(plan, workspace.records(plan, offline=True))["tables"][0]["rows"]
    return [row["cells"]["top1"] for row in rows]


def weights(workspace: Workspace, run_id: str) -> dict[str, torch.Tensor]:
    return unpack(workspace.storage.get(workspace.storage.checkpoints(run_id)[0]) or b"").model


def test_a_second_training_starts_from_the_firsts_final_weights(workspace: Workspace) -> None:
    first, second = orders(workspace, WEIGHTS)
    assert second.parents == (first.run_id,)
    run_all(workspace, WEIGHTS)
    before, after = weights(workspace, first.run_id), weights(workspace, second.run_id)
    moved = [(after[k] - before[k]).abs().max() for k in before if "running" not in k and "num_batches" not in k]
    assert 0 < float(max(moved)) < 1e-4  # a few updates at 1e-6
    assert orders(workspace, WEIGHTS) == []


def test_heads_share_the_features_of_one_frozen_network(workspace: Workspace) -> None:
    parent, *heads = orders(workspace, FEATURES)
    assert {head.parents for head in heads} == {(parent.run_id,)}
    run_all(workspace, FEATURES)
    told = [list(workspace.storage.epochs(head.run_id))[-1] for head in heads]
    assert 0.0 < told[0]["train/judged_false"] == told[1]["train/judged_false"] < 1.0
    assert ["train/loss.attention" in line for line in told] == [True, False]
    assert {name.split(".")[0] for name in weights(workspace, heads[0].run_id)} == {"key_frames", "fc"}
    assert [cell["status"] for cell in table(workspace, FEATURES)] == ["done", "done"]


def test_a_head_begins_with_the_classifier_of_the_frozen_network(workspace: Workspace) -> None:
    text = FEATURES.replace("recipe: {lr: 1.0e-3, epochs: 2,", "recipe: {lr: 1.0e-7, epochs: 2,")
    parent, head, _ = orders(workspace, text)
    for order in (parent, head):
        carry_out(order, here(order))
    before, after = weights(workspace, parent.run_id), weights(workspace, head.run_id)
    torch.testing.assert_close(after["fc.weight"], before["fc.weight"], atol=1e-5, rtol=0)


def test_features_are_those_that_the_network_gives_in_evaluation(workspace: Workspace) -> None:
    parent, head, _ = orders(workspace, FEATURES)
    carry_out(parent, here(parent))
    data = features_of(head, "cpu")
    batch = next(data.eval_batches("test", head.views[0].protocol, 4))
    again = next(features_of(head, "cpu").eval_batches("test", head.views[0].protocol, 4))
    assert batch.clips["features"].shape == (4, 6, 64, 1, 1)
    assert batch.clips["features"].dtype == torch.float32
    assert torch.equal(batch.clips["features"], again.clips["features"])


def test_kept_random_views_are_those_of_training_clips(workspace: Workspace) -> None:
    text = FEATURES.replace("recipe: {lr: 1.0e-3,", "recipe: {feature_views: 3, lr: 1.0e-3,")
    parent, head, _ = orders(workspace, text)
    carry_out(parent, here(parent))
    data = features_of(head, "cpu")
    videos = open_run_data(
        workspace.dataset("motions-ucf101"),
        head.config.data,
        augment=head.config.recipe,
        cache_dir=Path(head.places.cache),
        inputs=inputs(parent.config),
    )
    network = load_model(parent.config, newest_state(workspace.storage, parent) or b"")
    with torch.no_grad():
        kept = torch.cat([embedded(network, b.clips, torch.device("cpu")) for b in videos.drawn_batches(3, 10)])
    labels = [label for batch in videos.drawn_batches(3, 10) for label in batch.labels.tolist()]
    assert videos.drawn_labels(3).reshape(-1).tolist() == labels
    seen = set()
    for epoch in range(3):
        for batch in data.train_batches(epoch, 8, seed=0):
            for row, label, features in zip(batch.videos, batch.labels, batch.clips["features"], strict=True):
                same = [torch.allclose(features[..., 0, 0], kept[3 * int(row) + view], atol=1e-5) for view in range(3)]
                assert any(same)
                assert int(label) == labels[3 * int(row) + same.index(True)]
                seen.add(same.index(True))
    assert seen == {0, 1, 2}
    sizes = workspace.feature_bytes(workspace.plan(study(text)))
    plain = workspace.feature_bytes(workspace.plan(study(FEATURES)))
    assert sum(v or 0 for v in sizes.values()) > sum(v or 0 for v in plain.values())


def test_a_failed_parent_marks_its_children_and_nothing_else(workspace: Workspace) -> None:
    text = WEIGHTS.replace("lr: 1.0e-3, recipe.epochs: 1}}}", "lr: 1.0e+30, recipe.epochs: 1}}}")
    once, parent, _ = orders(workspace, text)
    carry_out(once, here(once))
    assert carry_out(parent, here(parent)).status == "failed"
    missing = still_missing(workspace.plan(study(text)), workspace)
    assert missing.orders == ()
    assert list(missing.blocked.values()) == [f"not run: parent failed ({parent.run_id})"]
    done, child = table(workspace, text)
    assert (done["status"], child["status"]) == ("done", "missing")
    again = still_missing(workspace.plan(study(text)), workspace, retry_failed=True)
    assert len(again.orders) == 2
    assert again.blocked == {}


@pytest.mark.parametrize("text", [WEIGHTS, FEATURES])
def test_a_kill_between_and_within_stages_changes_nothing(text: str, workspace: Workspace, tmp_path: Path) -> None:
    run_all(workspace, text)
    killed = Workspace(str(tmp_path / "killed"), workspace.data_root)

    def stop(line: dict[str, Any]) -> None:
        raise Killed

    while todo := orders(killed, text):  # every run is killed after its first epoch, and every driver after a run
        with pytest.raises(Killed):
            carry_out(todo[0], here(todo[0], stop))
        assert carry_out(orders(killed, text)[0], here(todo[0])).status == "done"
    assert table(killed, text) == table(workspace, text)


def test_an_interrupted_feature_computation_leaves_nothing_and_is_repeated(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, head, _ = orders(workspace, FEATURES)
    carry_out(parent, here(parent))
    cache = tmp_path / "cache"
    head = replace(head, places=replace(head.places, cache=str(cache)))
    calls: list[int] = []

    def stop(*args: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise Killed
        return whole(*args)

    whole = stages.embedded
    monkeypatch.setattr(stages, "embedded", stop)
    with pytest.raises(Killed):
        features_of(head, "cpu")
    monkeypatch.setattr(stages, "embedded", whole)
    assert not [f for f in cache.glob("features-*") if f.is_dir()]
    features_of(head, "cpu")
    assert len([f for f in cache.glob("features-*") if f.is_dir()]) == 2  # training and test views


def test_a_plan_says_how_large_the_features_get(workspace: Workspace) -> None:
    parent, head, _ = orders(workspace, FEATURES)
    carry_out(parent, here(parent))
    features_of(replace(head, places=replace(head.places, cache=str(Path(workspace.storage.root) / "c"))), "cpu")
    arrays = (Path(workspace.storage.root) / "c").glob("features-*/array.bin")
    plan = workspace.plan(study(FEATURES))
    assert workspace.feature_bytes(plan) == {parent.run_id: sum(file.stat().st_size for file in arrays)}
    said = preview(plan, {}, {}, workspace.feature_bytes(plan))
    out = io.StringIO()
    show(said, Console(file=out, width=200))
    first, given, *children = out.getvalue().splitlines()[1:5]
    assert first.startswith(f"  {parent.run_id}  seed 0  to run  first stage of t.with-loss.top1, t.without.top1")
    assert "its features (" in given
    assert given.endswith("go to 2 runs that start from it")
    assert [line.split("  ")[-1] for line in children] == ["t.with-loss.top1", "t.without.top1"]
    assert all(line.startswith("    └ ") for line in children)


def test_an_earlier_stage_is_recorded_in_mlflow_under_its_childs_row(workspace: Workspace) -> None:
    text = WEIGHTS.replace("init_from: {set: {recipe.lr: 1.0e-3", "init_from: {set: {recipe.lr: 2.0e-3")
    run_all(workspace, text)
    plan = workspace.plan(study(text))
    records = workspace.records(plan, offline=True)
    entries = run_entries(plan, records, document(plan, records))
    assert [entry.name for entry in entries] == ["once · seed 0", "stage 1: twice · seed 0", "twice · seed 0"]
    assert not any(name.startswith("final/") for name in entries[1].finals)


def test_a_damaged_or_foreign_feature_cache_is_refused_by_name(workspace: Workspace, tmp_path: Path) -> None:
    parent, head, _ = orders(workspace, FEATURES)
    carry_out(parent, here(parent))
    head = replace(head, places=replace(head.places, cache=str(tmp_path)))
    features_of(head, "cpu")
    folder = next(f for f in tmp_path.glob("features-*") if f.is_dir())
    with (folder / "array.bin").open("ab") as file:
        file.truncate(100)
    with pytest.raises(DataError, match="is damaged: 100 bytes instead of"):
        features_of(head, "cpu")
    with pytest.raises(DataError, match="is damaged: 100 bytes instead of"):
        refuse_caches([parent, head])  # before anything trains
    index = folder / "index.json"
    index.write_text(index.read_text().replace(parent.run_id, "0" * 24))
    with pytest.raises(DataError, match=f"holds features of run {'0' * 24}, not of {parent.run_id}"):
        features_of(head, "cpu")
    index.write_text("{")
    with pytest.raises(DataError, match=r"index\.json is damaged .* remove"):
        refuse_caches([head])


def test_a_child_whose_parents_checkpoint_is_gone_says_so(workspace: Workspace) -> None:
    first, second = orders(workspace, WEIGHTS)
    carry_out(first, here(first))
    for name in workspace.storage.checkpoints(first.run_id):
        workspace.storage.delete(name)
    outcome = carry_out(second, here(second))
    assert outcome.status == "environment"
    assert f"earlier stage {first.run_id} has no final checkpoint" in str(outcome.reason)


def test_weights_of_another_network_are_refused_before_anything_trains(workspace: Workspace) -> None:
    text = WEIGHTS.replace("twice, init_from: {set: {", "twice, init_from: {set: {model.width: 16, ")
    with pytest.raises(StageError, match=r"t\.twice\.top1: weights do not fit: of .*, the earlier stage has"):
        refuse_misfits(workspace.plan(study(text)))


def test_features_of_another_width_are_refused_before_anything_trains(workspace: Workspace) -> None:
    text = FEATURES.replace("model.tsn: false,", "model.tsn: false, model.backbone: resnet18,")
    text = text.replace("segments: 2,", "segments: 2, spatial_attention: false,")
    with pytest.raises(StageError, match="gives 512 features for 1 frames at a time, but the model takes 64 for 6"):
        refuse_misfits(workspace.plan(study(text)))


def test_mirrored_crops_of_a_dataset_that_must_not_be_mirrored_are_refused_before_anything_trains(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = WEIGHTS.replace("profiles:", "  protocol: {crops: ten}\nprofiles:", 1)
    plan = workspace.plan(study(text))
    refuse(plan, workspace, ())
    monkeypatch.setattr(Manifest, "flip", "never")
    with pytest.raises(DataError, match=r"t\.once\.top1: dataset motions-ucf101 must not be mirrored"):
        refuse(plan, workspace, ())


def test_the_best_epoch_of_no_held_out_videos_is_refused_at_load() -> None:
    text = WEIGHTS.replace("profiles:", "  protocol: {checkpoint: best_val}\nprofiles:", 1)
    problems = check(study(text))
    assert "best_val chooses among epochs on held-out videos, and there are none" in problems[0].message
    assert check(study(text.replace("clip: {frames: 8, size: 32}", "clip: {frames: 8, size: 32}, holdout: 0.2"))) == []
