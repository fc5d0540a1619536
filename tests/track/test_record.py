"""Publishing to MLflow: what stands there, that repeating and interrupting change nothing, and the way back."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from retable.track.connection import BOUNDS, TrackingUnavailable, default_uri, shown
from retable.track.entries import NAME_LENGTH, run_name
from retable.track.reader import read
from retable.track.record import publish as publish_to
from retable.track.record import session
from retable.track.storage import StorageError
from retable.track.writer import Writer, found_runs

Publish = Callable[..., Any]


def runs_of(uri: str, search: str = "") -> dict[str, Any]:
    """The experiment's MLflow runs by their key."""
    with session(uri) as mlflow:
        experiment = mlflow.client.get_experiment_by_name("toy")
        found = list(found_runs(mlflow.client, experiment.experiment_id, search))
    assert len({run.data.tags["retable.key"] for run in found}) == len(found)
    return {run.data.tags["retable.key"]: run for run in found}


def everything(uri: str) -> dict[str, Any]:
    """All that the store holds of the experiment, as far as people see it."""
    with session(uri) as mlflow:
        client = mlflow.client
        experiment = client.get_experiment_by_name("toy")
        seen: dict[str, Any] = {"tags": experiment.tags}
        for run in found_runs(client, experiment.experiment_id):
            history = {
                k: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, k)] for k in run.data.metrics
            }
            files = {str(p): p.read_bytes() for p in Path(run.info.artifact_uri).rglob("*") if p.is_file()}
            seen[run.info.run_id] = (run.info.status, run.info.end_time, run.data.tags, run.data.params, history, files)
    return seen


def a_run(toy: Any, groups: int = 3, seed: int = 0) -> str:
    return str(toy.plan.trainings[f"c{groups}"].run(seed).run_id)


def test_one_run_per_run_id_one_per_row_and_one_per_table(publish: Publish, uri: str, toy: Any) -> None:
    done = publish()
    keys = set(runs_of(uri))
    assert {key for key in keys if key.startswith("run:")} == {f"run:{run_id}" for run_id in toy.records}
    rows = {"table2:s3", "table2:s4", "table5:other", "table5:ours"}
    assert {key for key in keys if key.startswith("row:")} == {f"row:laptop:{row}" for row in rows}
    assert {key for key in keys if key.startswith("table:")} == {"table:laptop:table2", "table:laptop:table5"}
    assert (done.created, done.updated, done.unchanged) == (10, 0, 0)


def test_a_seed_run_shows_its_cell_its_varied_params_its_curves_and_rounded_results(
    publish: Publish, uri: str, toy: Any
) -> None:
    publish()
    run_id = a_run(toy, groups=4, seed=1)
    run, record = runs_of(uri)[f"run:{run_id}"], toy.records[run_id]
    assert (run.info.run_name, run.info.status) == ("S = 4 · seed 1", "FINISHED")
    assert run.data.params == {"model.groups": "4"}
    assert run.data.tags["retable.in.laptop.table2"] == "002-01 · S = 4"
    assert run.data.tags["retable.in.laptop.table5"] == "002-01 · MSF-R3D"
    assert run.data.metrics["final/top1"] == round(record.evaluations[toy.view]["top1"], 2)
    assert run.data.metrics["paper/top1"] == 49.5
    assert run.data.metrics["cost/params"] == 21.845
    assert [(d.dataset.name, d.dataset.digest) for d in run.inputs.dataset_inputs] == [("motions", ("ab" * 32)[:36])]
    with session(uri) as mlflow:
        history = mlflow.client.get_metric_history(run.info.run_id, "test/top1")
    assert [(m.step, m.value) for m in history] == [(e["epoch"], e["test/top1"]) for e in record.epochs]


def test_a_row_run_holds_the_cell_as_numbers_and_as_text(publish: Publish, uri: str, toy: Any) -> None:
    publish()
    run, cell = runs_of(uri)["row:laptop:table2:s4"], toy.document["tables"][0]["rows"][1]["cells"]["top1"]
    assert (run.info.run_name, run.data.tags["retable.order"]) == ("S = 4", "002")
    assert run.data.metrics["top1/mean"] == round(cell["mean"], 2)
    assert {k: run.data.metrics[f"top1/{k}"] for k in ("half_width", "n", "published")} == {
        "half_width": 1.25,
        "n": 2,
        "published": 49.5,
    }
    low, high = (f"{v['value']:.1f}" for v in cell["values"])
    assert run.data.tags["top1/ours"] == f"{cell['mean']:.1f} ± 1.2 ({low}, {high})"
    assert run.data.tags["retable.display"].startswith("params 21.84 · Accuracy ")
    assert run.data.tags["retable.verdict"] == "close enough"
    quoted = runs_of(uri)["row:laptop:table5:other"]
    assert (quoted.info.run_name, quoted.data.metrics) == ("Other [7]", {"top1/published": 44.0})


def test_the_table_run_holds_the_document_and_the_pages_given(publish: Publish, uri: str, toy: Any) -> None:
    publish(table_files=lambda table: {"table.md": f"# {table}\n".encode()})
    folder = Path(runs_of(uri)["table:laptop:table5"].info.artifact_uri)
    assert json.loads((folder / "table.json").read_bytes())["tables"] == [toy.document["tables"][1]]
    assert (folder / "table.md").read_text() == "# table5\n"


def test_artifacts_hold_config_scores_and_a_confusion_matrix(publish: Publish, uri: str, toy: Any) -> None:
    publish(artifacts=lambda run_id: {f"scores/{toy.view}.parquet": toy.scores(), "log.txt": run_id.encode()})
    run_id = a_run(toy)
    folder = Path(runs_of(uri)[f"run:{run_id}"].info.artifact_uri)
    assert (folder / "log.txt").read_text() == run_id
    assert (folder / f"scores/{toy.view}.parquet").read_bytes() == toy.scores()
    assert (folder / f"confusion/{toy.view}.csv").read_text() == "true \\ predicted,up,down\nup,1,0\ndown,1,1\n"
    assert (folder / f"per_class/{toy.view}.csv").read_text().splitlines()[1].startswith("up,1,1,100.0,")
    assert ">down</text>" in (folder / f"confusion/{toy.view}.svg").read_text()
    assert "groups: 3" in (folder / "config.yaml").read_text()


def test_publishing_again_changes_nothing(publish: Publish, uri: str, toy: Any) -> None:
    publish(artifacts=lambda run_id: {"log.txt": b"x"})
    before = everything(uri)
    again = publish(artifacts=lambda run_id: pytest.fail(f"{run_id} is complete, its files need not be read"))
    assert (again.created, again.updated, again.removed) == (0, 0, 0)
    assert everything(uri) == before
    assert publish().updated == 0  # also where the files are not at hand


@pytest.mark.parametrize("step", ["_write_files", "_write_status", "_write_batch", "_write_dataset"])
@pytest.mark.parametrize("calls", [0, 2])
def test_an_interrupted_publish_is_finished_by_the_next(
    publish: Publish, uri: str, toy: Any, monkeypatch: pytest.MonkeyPatch, step: str, calls: int
) -> None:
    real, left = getattr(Writer, step), [calls]

    def interrupted(*args: Any, **named: Any) -> Any:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return real(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Writer, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            publish()
    assert len(read(uri, "toy")) == calls  # only complete runs are read back
    publish()
    assert read(uri, "toy") == toy.records
    assert len(runs_of(uri)) == 10
    for key, run in runs_of(uri, "tags.`retable.kind` = 'run'").items():
        assert (key, run.info.status, len(run.inputs.dataset_inputs)) == (key, "FINISHED", 1)


def test_records_come_back_exactly(publish: Publish, uri: str, toy: Any) -> None:
    odd, short = a_run(toy, 3, 1), a_run(toy, 4, 0)
    toy.records[odd] = toy.failed(toy.records[odd], "loss is NaN at epoch 1\nsecond line ±")
    toy.records[short] = toy.partial(toy.records[short], 1)
    publish(records=toy.records)
    back = read(uri, "toy")
    assert back == toy.records
    assert json.dumps(back[odd].epochs) == json.dumps(toy.records[odd].epochs)  # 1 stays 1 and 1.0 stays 1.0


def test_nothing_published_reads_as_nothing_and_makes_no_store(tmp_path: Path, uri: str) -> None:
    assert read(uri, "toy") == {}
    assert read(default_uri(tmp_path / "none"), "toy") == {}
    assert not (tmp_path / "none").exists()


def test_a_failed_run_says_why_until_it_is_repaired(publish: Publish, uri: str, toy: Any) -> None:
    run_id = a_run(toy)
    whole = toy.records[run_id]
    publish(records={**toy.records, run_id: toy.failed(whole, "loss is NaN at epoch 1")})
    run = runs_of(uri)[f"run:{run_id}"]
    assert run.info.status == "FAILED"
    assert run.data.tags["retable.reason"] == "loss is NaN at epoch 1"
    assert "loss is NaN" in run.data.tags["mlflow.note.content"]
    publish()
    repaired = runs_of(uri)[f"run:{run_id}"]
    assert (repaired.info.run_id, repaired.info.status) == (run.info.run_id, "FINISHED")
    assert not {"retable.reason", "mlflow.note.content"} & set(repaired.data.tags)


def test_a_run_in_progress_grows_in_place(publish: Publish, uri: str, toy: Any) -> None:
    run_id = a_run(toy)
    whole = toy.records[run_id]
    ids = set()
    for epochs in (1, 2):
        publish(records={**toy.records, run_id: toy.partial(whole, epochs)})
        run = runs_of(uri)[f"run:{run_id}"]
        ids.add(run.info.run_id)
        assert run.info.status == "RUNNING"
    publish()
    ids.add(runs_of(uri)[f"run:{run_id}"].info.run_id)
    assert len(ids) == 1
    with session(uri) as mlflow:
        steps = [m.step for m in mlflow.client.get_metric_history(ids.pop(), "test/top1")]
    assert sorted(steps) == [0, 1]


def test_a_run_trained_again_with_other_curves_replaces_the_old_one(publish: Publish, uri: str, toy: Any) -> None:
    publish()
    run_id = a_run(toy)
    other = tuple({**e, "test/top1": e["test/top1"] + 1} for e in toy.records[run_id].epochs)
    toy.records[run_id] = replace(toy.records[run_id], epochs=other)
    assert publish(records=toy.records).removed == 1
    assert read(uri, "toy") == toy.records
    run = runs_of(uri)[f"run:{run_id}"]
    with session(uri) as mlflow:
        history = mlflow.client.get_metric_history(run.info.run_id, "test/top1")
    assert [m.value for m in history] == [e["test/top1"] for e in other]


def test_a_new_mean_updates_the_row_in_place(publish: Publish, uri: str, toy: Any) -> None:
    publish()
    before = runs_of(uri)["row:laptop:table2:s4"]
    toy.document["tables"][0]["rows"][1]["cells"]["top1"]["mean"] = 77.777
    publish(document=toy.document)
    after = runs_of(uri)["row:laptop:table2:s4"]
    assert (after.info.run_id, after.data.metrics["top1/mean"]) == (before.info.run_id, 77.78)


def test_a_row_that_left_the_study_leaves_the_record_but_its_runs_stay(publish: Publish, uri: str, toy: Any) -> None:
    publish()
    study, gone = toy.plan.study, a_run(toy, 3)
    table = study.tables[0].model_copy(update={"rows": study.tables[0].rows[1:]})
    plan = replace(
        toy.plan,
        study=study.model_copy(update={"tables": (table, study.tables[1])}),
        cells=tuple(c for c in toy.plan.cells if c.row != "s3"),
        trainings={"c4": toy.plan.trainings["c4"]},
    )
    toy.document["tables"][0]["rows"].pop(0)
    publish(plan=plan, document=toy.document)
    left = runs_of(uri)
    assert "row:laptop:table2:s3" not in left
    assert "retable.in.laptop.table2" not in left[f"run:{gone}"].data.tags
    assert left[f"run:{gone}"].data.tags["retable.run_id"] == gone


def test_a_part_of_the_plan_renames_and_removes_nothing(publish: Publish, uri: str, toy: Any) -> None:
    publish()
    before = everything(uri)
    part = replace(toy.plan, cells=toy.plan.cells[-1:], trainings={"c4": toy.plan.trainings["c4"]})
    publish(plan=part, document={**toy.document, "tables": toy.document["tables"][1:]})
    after = everything(uri)
    assert {k: v[2].get("mlflow.runName") for k, v in after.items() if k != "tags"} == {
        k: v[2].get("mlflow.runName") for k, v in before.items() if k != "tags"
    }


def test_the_users_own_settings_make_rows_of_their_own(publish: Publish, uri: str, toy: Any) -> None:
    publish()
    publish(plan=toy.make_plan(**{"recipe.lr": 0.01}))
    rows = [key for key in runs_of(uri) if key.startswith("row:") and key.endswith(":table2:s4")]
    assert len(rows) == 2


def test_a_provisional_plan_finds_the_records_of_the_real_one(publish: Publish, uri: str, toy: Any) -> None:
    trainings = {f"~{k}": replace(t, config_id=f"~{k}") for k, t in toy.plan.trainings.items()}
    evaluations = {k: replace(e, config_id=f"~{e.config_id}") for k, e in toy.plan.evaluations.items()}
    plan = replace(toy.plan, trainings=trainings, evaluations=evaluations)
    publish(plan=plan, document=toy.document)
    assert read(uri, "toy") == toy.records
    assert "final/top1" in runs_of(uri)[f"run:{a_run(toy)}"].data.metrics


@pytest.mark.parametrize("first", ["complete", "incomplete"])
def test_of_two_runs_of_one_key_the_complete_one_stays(publish: Publish, uri: str, toy: Any, first: str) -> None:
    key = f"run:{a_run(toy)}"
    with session(uri) as mlflow:
        experiment = mlflow.client.create_experiment("toy", artifact_location=f"{uri.removeprefix('sqlite:///')}.files")
        ids = [mlflow.client.create_run(experiment, tags={"retable.key": key}).info.run_id for _ in range(2)]
    publish()
    kept = runs_of(uri)[key].info.run_id
    assert kept in ids
    with session(uri) as mlflow:
        start = int(time.time() * 1000) + (60_000 if first == "incomplete" else -60_000)  # the newest is found first
        mlflow.client.create_run(experiment, start_time=start, tags={"retable.key": key, "retable.kind": "run"})
    publish()
    assert runs_of(uri)[key].info.run_id == kept
    assert read(uri, "toy") == toy.records


def test_an_experiment_deleted_in_the_ui_comes_back(publish: Publish, uri: str, toy: Any) -> None:
    done = publish()
    with session(uri) as mlflow:
        mlflow.client.delete_experiment(done.experiment_id)
    publish()
    assert read(uri, "toy") == toy.records


def test_a_server_that_is_not_there_is_said_at_once(toy: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"http://user:secret@127.0.0.1:{taken.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(TrackingUnavailable, match=r"retable sync") as caught:
            publish_to(uri, toy.study(), toy.plan, toy.records, toy.document)
    assert time.monotonic() - start < 4
    assert "secret" not in str(caught.value)


@pytest.fixture
def another_server() -> Iterator[str]:
    """A web server that is not MLflow."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404, "no such page")

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_server_that_is_not_mlflow_is_one_clear_error(another_server: str, toy: Any) -> None:
    with pytest.raises(TrackingUnavailable, match=r"404"):
        publish_to(another_server, toy.study(), toy.plan, toy.records, toy.document)


@pytest.mark.parametrize("content", [b"not a database at all, but some text"])
def test_a_file_that_is_no_store_is_left_as_it_is(tmp_path: Path, toy: Any, content: bytes) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(content)
    with pytest.raises(TrackingUnavailable, match="not a sqlite database"):
        publish_to(f"sqlite:///{path}", toy.study(), toy.plan, toy.records, toy.document)
    assert path.read_bytes() == content


def test_trouble_with_the_storage_is_not_blamed_on_mlflow(publish: Publish) -> None:
    def unreadable(run_id: str) -> dict[str, bytes]:
        raise StorageError(5, "cannot read runs")

    with pytest.raises(StorageError, match="cannot read runs"):
        publish(artifacts=unreadable)


def test_nothing_global_is_left_behind(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    before = mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    publish()
    assert mlflow.get_tracking_uri() == before
    assert {name: os.environ.get(name) for name in BOUNDS} == {
        **dict.fromkeys(BOUNDS),
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "77",
    }


def test_publishing_says_nothing_but_the_one_line(publish: Publish, capfd: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    publish(log=lines.append)
    assert lines == ["MLflow: 10 runs recorded, 0 updated, 0 as they were"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("label", ["S = 4", "Spatiotemporal attention after every residual block"])
def test_names_keep_the_seed_in_sight(label: str) -> None:
    assert run_name(label, 12).endswith(" · seed 12")
    assert len(run_name(label, 12)) <= NAME_LENGTH


def test_passwords_are_not_printed() -> None:
    assert shown("postgresql://me:pa55@db:5432/x") == "postgresql://me:***@db:5432/x"
