"""``retable run`` of tuned rows, whole but for Ray: Optuna's storage, training and MLflow, on miniature datasets."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from retable import cli
from retable.data.errors import DatasetError
from retable.execute import driver
from retable.execute.attempt import carry_out
from retable.execute.order import Order
from retable.execute.searching import best as search_best
from retable.execute.searching import driver as search_driver
from retable.execute.searching import rows as search_rows
from retable.execute.searching.ablation import ablation
from retable.execute.searching.asked import Asked, hunt_of, row_hunt
from retable.execute.searching.best import search_and_train
from retable.execute.searching.driver import read_trials, run_search
from retable.execute.searching.reader import see
from retable.execute.searching.rows import run_tuned, to_tune
from retable.execute.sources import Supply
from retable.execute.tune import Endings, Watcher
from retable.execute.work import train_and_score
from retable.report.render import render
from retable.report.results import document
from retable.report.searching import trials
from retable.study.load import parse
from retable.study.plan import Plan
from retable.study.problems import StudyError
from retable.workspace import Workspace, open_study
from tests.execute.small import TEXT, study

TABLE = """
  - id: tuned
    caption: Channel groups, each with its own learning rate
    tune_rows:
      space: {recipe.lr: {choice: [1.0e-4, 1.0e-3, 1.0e-2]}}
      objective: {maximize: top1, on: VIDEOS}
      holdout: 0.4
      sampler: random
      budget: {trials: 2}
    columns:
      plain: {metric: top1}
      best: {metric: top1, tuned: true}
    rows:
      - {id: s3, label: S = 3, set: {model.groups: 3}}
      - {id: s4, label: S = 4}
"""
SEARCH = """
search:
  space: {recipe.lr: {choice: [1.0e-4, 1.0e-2]}, model.groups: {choice: [3, 4]}}
  objective: {maximize: top1, on: VIDEOS}
  holdout: 0.4
  sampler: random
  budget: {trials: 2}
"""


def small(on: str, more: str = TABLE) -> Any:
    return study((TEXT.replace("epochs: 2", "epochs: 1") + more).replace("VIDEOS", on))


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are carried out here, one after the other, where Ray's workers would."""

    def carried_out(order: Order, watch: Watcher, endings: Endings) -> None:
        def fit(attempt: int) -> None:
            train_and_score(order, attempt, device="cpu", report=lambda line: watch("epoch", order.run_id, line))

        ended = carry_out(order, fit)
        endings.outcome[order.run_id] = ended.status, ended.reason or ""

    def supplied(supply: Supply, watch: Watcher) -> Endings:
        endings = Endings()
        while True:
            try:
                run_id = str(supply.next())
            except StopIteration:
                return endings
            carried_out(supply.order(run_id), watch, endings)
            supply.ended(run_id, ok=True)

    def executed(orders: Sequence[Order], storage: Any, watch: Watcher, *others: Any) -> Endings:
        endings = Endings()
        for order in orders:
            carried_out(order, watch, endings)
        return endings

    for module in (driver, search_driver, search_best, search_rows):
        monkeypatch.setattr(module, "ray_session", lambda *args: nullcontext())
    for module in (driver, search_driver):
        monkeypatch.setattr(module, "refuse_impossible", lambda orders: None)
        monkeypatch.setattr(module, "refuse_unfit", lambda orders: None)
    monkeypatch.setattr(search_driver, "room", lambda order: 1)
    monkeypatch.setattr(search_driver, "execute_supply", supplied)
    monkeypatch.setattr(driver, "execute", executed)


def quiet() -> Console:
    return Console(file=io.StringIO())


@pytest.mark.usefixtures("in_process")
def test_rows_are_tuned_alike_then_trained_on_all_of_train_and_all_of_it_is_recorded(
    workspace: Workspace, tmp_path: Path
) -> None:
    loaded = small("val")

    def plan() -> Plan:
        return workspace.plan(loaded, tables=("tuned",), seeds=(0, 1))

    before = plan()
    assert [".".join(hunt.row or ()) for hunt in to_tune(before)] == ["tuned.s3", "tuned.s4"]
    printed = render(document(before, {}), "md")
    assert "Not tuned yet." in printed
    done = run_tuned(loaded, plan, workspace, quiet())
    assert done.exit_code == 0
    assert to_tune(done.plan) == []
    ends = [done.plan.tuned["tuned", row] for row in ("s3", "s4")]
    assert [(sum(end.trials.values()), end.epochs, end.on) for end in ends] == [(2, 2, "val")] * 2
    for end, hunt in zip(ends, done.searches, strict=True):
        best = max(hunt.trials, key=lambda t: t.values)
        assert (end.point, end.value) == (best.point, best.values[0])
    doc = document(done.plan, workspace.records(done.plan, offline=True))
    cells = [row["cells"]["best"] for row in doc["tables"][0]["rows"]]
    assert [(cell["status"], cell["n"]) for cell in cells] == [("done", 2)] * 2
    text = render(doc, "md")
    assert "for each row 2 trials, sampler random" in text
    assert "2 trials (2 whole), 2 epochs" in text
    for cell, end in zip(cells, ends, strict=True):
        record = workspace.storage.record(cell["values"][0]["run_id"])
        assert record is not None
        assert record.spec["config"]["data"]["holdout"] == 0
        assert record.spec["config"]["recipe"]["lr"] == (end.point or {})["recipe.lr"]
        assert record.run_id != end.run_id

    runs = workspace.storage.run_ids()
    again = run_tuned(loaded, plan, workspace, quiet())
    assert (again.searches, again.trainings.missing.orders, workspace.storage.run_ids()) == ([], (), runs)
    elsewhere = Workspace(str(tmp_path / "empty"), workspace.data_root, workspace.tracking_uri)
    read = elsewhere.plan(loaded, tables=("tuned",), seeds=(0, 1), recorded=True)
    assert document(read, elsewhere.records(read)) == doc
    assert not elsewhere.plan(loaded).tuned

    _, found = read_trials(row_hunt(loaded, None, {}, Asked(), "tuned.s3"), workspace)
    assert [t.values for t in found] == [t.values for t in done.searches[0].trials]
    with pytest.raises(StudyError, match="all are tuned alike"):
        row_hunt(loaded, None, {}, Asked(trials=9), "tuned.s3")
    with pytest.raises(StudyError, match="not tuned in this study"):
        row_hunt(loaded, None, {}, Asked(), "table2.s3")


OTHER = """
  - id: other
    caption: The same on videos that are not here
    set: {data.dataset: hmdb51}
    columns:
      plain: {metric: top1}
    rows:
      - {id: s4, label: S = 4}
"""


@pytest.mark.usefixtures("in_process")
def test_a_dataset_that_is_not_here_is_told_before_any_row_is_tuned(workspace: Workspace) -> None:
    loaded = small("val", TABLE + OTHER)
    with pytest.raises(DatasetError, match="hmdb51"):
        run_tuned(loaded, lambda: workspace.plan(loaded, tables=("tuned", "other")), workspace, quiet(), record=False)
    assert workspace.storage.run_ids() == []


@pytest.mark.usefixtures("in_process")
def test_the_searchs_best_trial_is_trained_on_all_of_train_with_the_seeds_and_scored_on_test(
    workspace: Workspace,
) -> None:
    loaded = small("val", SEARCH)
    hunt = hunt_of(loaded, None, {}, Asked())
    summary, best = search_and_train(loaded, hunt, workspace, quiet(), Asked(), seeds=(0, 1), record=False)
    assert best is not None
    assert best.exit_code == 0
    (row,) = document(best.plan, workspace.records(best.plan, offline=True))["tables"][0]["rows"]
    assert row["cells"]["top1"]["n"] == 2
    assert {t.run_id for t in summary.trials}.isdisjoint(run.run_id for run in best.plan.runs)
    assert len(workspace.storage.run_ids()) == 4
    shown = workspace.best_of(loaded, workspace.plan(loaded))
    assert shown is not None
    assert shown.runs[0].run_id == best.plan.runs[0].run_id


@pytest.mark.usefixtures("in_process")
def test_the_tables_of_trials_are_rebuilt_from_mlflow_alone(workspace: Workspace, tmp_path: Path) -> None:
    loaded = small("val", TABLE + SEARCH)
    hunts = [hunt_of(loaded, None, {}, Asked()), row_hunt(loaded, None, {}, Asked(), "tuned.s3")]
    for hunt in hunts:
        run_search(hunt, workspace, quiet(), Asked())
    elsewhere = Workspace(str(tmp_path / "empty"), str(tmp_path / "no-data"), workspace.tracking_uri)
    for hunt in hunts:
        here, there = see(hunt, workspace), see(hunt, elsewhere)
        assert (here.source, there.source) == ("optuna", "mlflow")
        assert trials.document(here.name, hunt, here.trials) == trials.document(there.name, hunt, there.trials)
        assert [t.state for t in there.trials] == ["complete", "complete"]
    with pytest.raises(StudyError, match="no trials yet"):
        see(row_hunt(loaded, None, {}, Asked(), "tuned.s4"), workspace)


@pytest.mark.usefixtures("in_process")
def test_show_reads_mlflow_only_where_the_storage_lacks_the_trials(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.yaml"
    file.write_text((TEXT.replace("epochs: 2", "epochs: 1") + SEARCH).replace("VIDEOS", "val"))
    loaded = open_study(str(file))
    search_and_train(loaded, hunt_of(loaded, None, {}, Asked()), workspace, quiet(), Asked(), seeds=(0,))
    monkeypatch.setattr(sys, "argv", ["retable", "search", str(file), "--show", "--json"])

    def shown(storage: str, data: str, tracking: str) -> Any:
        monkeypatch.setenv("RETABLE_STORAGE", storage)
        monkeypatch.setenv("RETABLE_DATA", data)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert ended.value.code == 0, said.err
        return json.loads(said.out)

    def value(doc: Any) -> Any:
        return doc["trained"]["tables"][0]["rows"][0]["cells"]["top1"]["mean"]

    here = shown(workspace.storage.root, str(workspace.data_root), "http://127.0.0.1:9")
    there = shown(str(tmp_path / "empty"), str(tmp_path / "no-data"), workspace.tracking_uri)
    assert there["trials"] == here["trials"]
    assert value(there) == value(here) is not None
    for end in workspace.storage.names("search"):
        if end.endswith(".json"):  # as before the search was over
            workspace.storage.delete(f"search/{end}")
    assert shown(workspace.storage.root, str(workspace.data_root), "http://127.0.0.1:9")["trials"] == here["trials"]


@pytest.mark.usefixtures("in_process")
def test_what_was_chosen_on_test_says_so_wherever_it_is_printed(workspace: Workspace) -> None:
    loaded = small("test", TABLE + SEARCH)
    hunt = hunt_of(loaded, None, {}, Asked())
    summary, best = search_and_train(loaded, hunt, workspace, quiet(), Asked(), seeds=(0,), record=False)
    assert best is not None
    assert {run.run_id for run in best.plan.runs} <= {t.run_id for t in summary.trials}, "it was trained already"
    assert "biased upwards" in render(document(best.plan, workspace.records(best.plan, offline=True)), "md")
    for origin in ("best", summary.trials[0].run_id):
        made = ablation(loaded, workspace, origin, knobs=None)
        assert made.text.count("biased upwards") == len(parse(made.text).study.tables)
    rows = run_tuned(loaded, lambda: workspace.plan(loaded, tables=("tuned",)), workspace, quiet(), record=False)
    text = render(document(rows.plan, workspace.records(rows.plan, offline=True)), "md")
    assert "(on: test). Chosen on the test videos, as the papers do" in text
