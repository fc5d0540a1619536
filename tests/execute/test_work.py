"""What a trial does, without Ray: claim, train, score, result; and every way in which it can go wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retable.execute import work
from retable.execute.attempt import carry_out
from retable.execute.driver import still_missing
from retable.execute.order import Order, missing_views
from retable.execute.work import train_and_score
from retable.track.claims import Claim, Process
from retable.train.checkpoint import unpack
from retable.workspace import Workspace
from tests.execute.small import TEXT, study


def orders(workspace: Workspace, text: str = TEXT, **kwargs: Any) -> list[Order]:
    return list(still_missing(workspace.plan(study(text), **kwargs), workspace).orders)


def here(order: Order) -> Callable[[int], None]:
    return lambda attempt: train_and_score(order, attempt, device="cpu")


def test_a_run_leaves_its_spec_epochs_scores_checkpoint_and_result(workspace: Workspace) -> None:
    order = orders(workspace)[0]
    outcome = carry_out(order, here(order))
    assert outcome.status == "done", outcome.reason
    record = workspace.storage.record(order.run_id)
    assert record is not None
    assert record.status == "done"
    assert [e["epoch"] for e in record.epochs] == [0, 1]
    assert set(record.evaluations) == {order.views[0].key}
    assert 0 <= record.evaluations[order.views[0].key]["top1"] <= 100
    assert record.cost["seconds"] > 0
    assert record.environment["device"].startswith("cpu")
    assert [n.split("/")[-1] for n in workspace.storage.checkpoints(order.run_id)] == ["last.0.pt"]


def test_a_finished_run_is_not_missing_and_another_protocol_needs_no_training(workspace: Workspace) -> None:
    order = orders(workspace)[0]
    carry_out(order, here(order))
    assert order.run_id not in {o.run_id for o in orders(workspace)}
    again = next(o for o in orders(workspace, TEXT.replace("clips: 1", "clips: 2")) if o.run_id == order.run_id)
    reported: list[Any] = []
    outcome = carry_out(again, lambda n: train_and_score(again, n, device="cpu", report=reported.append))
    assert outcome.status == "done"
    assert reported == []
    assert missing_views(workspace.storage, again) == []
    assert len(workspace.storage.names(f"{order.folder}/scores")) == 4


def test_an_interrupted_run_goes_on_and_repeats_no_finished_epoch(workspace: Workspace) -> None:
    order = orders(workspace)[0]

    class Killed(BaseException):
        pass

    def stop_after_first(line: dict[str, Any]) -> None:
        raise Killed

    with pytest.raises(Killed):
        carry_out(order, lambda n: train_and_score(order, n, device="cpu", report=stop_after_first))
    assert workspace.storage.record(order.run_id).status == "partial"  # type: ignore[union-attr]
    assert carry_out(order, here(order)).status == "done"
    epochs = workspace.storage.names(f"{order.folder}/epochs")
    assert epochs == ["0.0.json", "1.1.json"]


def test_an_epoch_that_died_between_checkpoint_and_metrics_is_completed_not_repeated(workspace: Workspace) -> None:
    order = orders(workspace)[0]
    carry_out(order, here(order))
    whole = list(workspace.storage.epochs(order.run_id))
    for name in ("epochs/1.0.json", "result.json", f"scores/{order.views[0].key}.json"):
        workspace.storage.delete(f"{order.folder}/{name}")
    assert carry_out(order, here(order)).status == "done"
    assert list(workspace.storage.epochs(order.run_id)) == whole


def test_a_failing_run_is_recorded_with_its_reason(workspace: Workspace) -> None:
    order = orders(workspace, settings={"recipe.lr": 1e30})[0]
    outcome = carry_out(order, here(order))
    assert outcome.status == "failed"
    record = workspace.storage.record(order.run_id)
    assert record is not None
    assert record.status == "failed"
    assert "NonFiniteLoss" in str(record.reason)
    assert "Traceback" in (workspace.storage.get(f"{order.folder}/log.txt") or b"").decode()


def test_a_failed_run_is_not_tried_again_unless_asked(workspace: Workspace) -> None:
    plan = workspace.plan(study(), settings={"recipe.lr": 1e30})
    for order in still_missing(plan, workspace).orders:
        carry_out(order, here(order))
    missing = still_missing(plan, workspace)
    assert missing.orders == ()
    assert len(missing.failed) == 2
    assert len(still_missing(plan, workspace, retry_failed=True).orders) == 2


def test_a_run_that_somebody_trains_is_left_alone(workspace: Workspace) -> None:
    order = orders(workspace)[0]
    with Claim(workspace.storage, order.run_id, Process.this()):
        missing = still_missing(workspace.plan(study()), workspace)
        assert order.run_id in missing.claimed
        assert order.run_id not in {o.run_id for o in missing.orders}
        outcome = carry_out(order, here(order))
    assert outcome.status == "claimed"
    assert "being trained already" in str(outcome.reason)


def test_a_checkpoint_of_another_config_is_refused_and_nothing_is_lost(workspace: Workspace) -> None:
    first, second = orders(workspace)
    carry_out(first, here(first))
    theirs = workspace.storage.get(workspace.storage.checkpoints(first.run_id)[0])
    assert theirs is not None
    workspace.storage.put(f"{second.folder}/ckpt/last.0.pt", theirs)
    outcome = carry_out(second, here(second))
    assert outcome.status == "environment"
    assert "checkpoint is of" in str(outcome.reason)
    assert not workspace.storage.exists(f"{second.folder}/result.json")


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it(workspace: Workspace) -> None:
    order = orders(workspace)[0]
    carry_out(order, here(order))
    name = workspace.storage.checkpoints(order.run_id)[0]
    data = workspace.storage.get(name)
    assert data is not None
    workspace.storage.put(f"{order.folder}/ckpt/last.7.pt", data[: len(data) // 2])
    assert work.newest_state(workspace.storage, order) == data


def test_a_late_writer_is_fenced(workspace: Workspace) -> None:
    order = orders(workspace)[0]
    storage = workspace.storage

    def superseded(line: dict[str, Any]) -> None:
        storage.put_json(f"{order.folder}/attempts/9/claim.json", {"worker": {}, "driver": {}, "since": "", "time": 0})

    outcome = carry_out(order, lambda n: train_and_score(order, n, device="cpu", report=superseded))
    assert outcome.status == "environment"
    assert "superseded" in str(outcome.reason)
    assert not storage.exists(f"{order.folder}/result.json")


def test_the_result_does_not_depend_on_where_a_run_was_interrupted(workspace: Workspace, tmp_path: Path) -> None:
    order = orders(workspace)[0]
    carry_out(order, here(order))
    elsewhere = replace(order, places=replace(order.places, storage=str(tmp_path / "other")))

    class Killed(BaseException):
        pass

    def stop(line: dict[str, Any]) -> None:
        raise Killed

    with pytest.raises(Killed):
        carry_out(elsewhere, lambda n: train_and_score(elsewhere, n, device="cpu", report=stop))
    carry_out(elsewhere, here(elsewhere))
    other = Workspace(str(tmp_path / "other"), workspace.data_root)
    a, b = workspace.storage.record(order.run_id), other.storage.record(order.run_id)
    assert a is not None
    assert b is not None
    assert a.evaluations == b.evaluations
    scores = f"{order.folder}/scores/{order.views[0].key}.parquet"
    assert workspace.storage.get(scores) == other.storage.get(scores)
    weights = [unpack(s.get(s.checkpoints(order.run_id)[0]) or b"").model for s in (workspace.storage, other.storage)]
    assert all((weights[0][k] == weights[1][k]).all() for k in weights[0])


def test_a_missing_dataset_is_said_before_anything_starts(workspace: Workspace, tmp_path: Path) -> None:
    empty = Workspace(workspace.storage_url, str(tmp_path / "nothing"))
    with pytest.raises(Exception, match="retable data generate motions-ucf101"):
        still_missing(empty.plan(study()), empty)


def test_a_video_that_does_not_decode_stops_the_run_with_its_name(workspace: Workspace, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(Path(str(workspace.data_root)) / "motions-ucf101", root / "motions-ucf101")
    video = sorted((root / "motions-ucf101").rglob("*.avi"))[0]
    video.write_bytes(b"RIFF" + b"\0" * 500)
    damaged = Workspace(workspace.storage_url, str(root))
    order = orders(damaged)[0]
    outcome = carry_out(order, here(order))
    assert outcome.status == "environment"
    assert video.name in str(outcome.reason)


def test_spec_json_holds_what_determines_the_run(workspace: Workspace) -> None:
    order = orders(workspace)[0]
    carry_out(order, here(order))
    spec = json.loads(workspace.storage.get(f"{order.folder}/spec.json") or b"")
    assert spec["config"]["model"]["groups"] == 3
    assert spec["semantics"].keys() == {"model", "pipeline", "loop"}
    assert spec["dataset"]["fingerprint"]
