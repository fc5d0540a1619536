"""Whole searches: through Ray and a real Optuna storage, on the miniature datasets."""

from __future__ import annotations

import fcntl
import io
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from retable.execute.driver import run_study
from retable.execute.searching import optuna_storage
from retable.execute.searching.asha import Decisions
from retable.execute.searching.asked import Asked, hunt_of
from retable.execute.searching.driver import SearchSummary, read_trials, run_search
from retable.execute.searching.optuna_storage import SearchStorageError, default_url, open_search
from retable.execute.tune import ImpossibleError
from retable.report.searching import trials as report
from retable.study.problems import StudyError
from retable.track import trial_record
from retable.track.storage import Storage
from retable.workspace import Workspace
from tests.execute.small import TEXT, study

SEARCH = """
search:
  space:
    model.groups: {choice: [3, 4]}
    recipe.lr: {log_uniform: [1.0e-4, 1.0e-2]}
  objective: {maximize: top1, on: test}
  first: [table2.s4]
"""
THREE = TEXT.replace("epochs: 2", "epochs: 3") + SEARCH


def search(workspace: Workspace, text: str = TEXT + SEARCH, **asked: Any) -> tuple[SearchSummary, str]:
    said = io.StringIO()
    options = Asked(**{"trials": 3, "sampler": "random", **asked})
    hunt = hunt_of(study(text), None, {}, options)
    return run_search(hunt, workspace, Console(file=said, width=200), options, record=False), said.getvalue()


@pytest.mark.usefixtures("ray_local")
def test_trials_are_runs_that_tables_share_and_the_search_goes_on_where_it_was(workspace: Workspace) -> None:
    loaded = study(TEXT + SEARCH)
    run_study(loaded, workspace.plan(loaded, rows=("s4",)), workspace, Console(file=io.StringIO()), record=False)
    summary, said = search(workspace)
    assert summary.exit_code == 0
    assert [t.state for t in summary.trials] == ["recorded", "complete", "complete", "complete"]
    assert len(workspace.storage.run_ids()) == 4, "the table's run was trained again"
    assert "trial 1: done" in said
    more, _ = search(workspace, trials=4)
    assert more.trials[:4] == summary.trials
    assert len(more.trials) == 5
    name, seen = read_trials(summary.hunt, workspace)
    assert (name, seen) == (more.name, more.trials)
    for trial in more.trials:
        record = workspace.storage.record(trial.run_id)
        assert record is not None
        (scores,) = record.evaluations.values()
        assert trial.values == (scores["top1"],)
    (best,) = report.best(more.hunt.search, more.trials)
    assert best.values[0] == max(t.values[0] for t in more.trials)
    done = trial_record.publish_trials(workspace.tracking_uri, more.hunt, name, seen, workspace.storage)
    assert done.created == 5
    assert trial_record.read_trials(workspace.tracking_uri, "small", name) == seen
    again = trial_record.publish_trials(workspace.tracking_uri, more.hunt, name, seen, workspace.storage)
    assert (again.created, again.updated) == (0, 0)


@pytest.mark.usefixtures("ray_local")
def test_a_trial_that_is_stopped_leaves_a_checkpoint_and_a_table_finishes_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Decisions, "_goes", lambda self, trial, epochs, value: trial != 1)
    text = THREE.replace("[table2.s4]", "[{model.groups: 4, recipe.lr: 0.001}, {model.groups: 3, recipe.lr: 0.01}]")
    summary, said = search(workspace, text, trials=2, scheduler="asha")
    assert [(t.state, t.epochs) for t in summary.trials] == [("complete", 3), ("pruned", 1)]
    assert "trial 1: pruned: stopped by" in said
    trial = summary.trials[1]
    record = workspace.storage.record(trial.run_id)
    assert record is not None
    assert record.status == "partial"
    assert len(record.epochs) == 1
    assert workspace.storage.checkpoints(trial.run_id) != []
    row = "{id: found, label: Found, set: " + str(trial.point).replace("'", "") + "}"
    loaded = study(text.replace("    rows:\n", f"    rows:\n      - {row}\n"))
    finished = run_study(
        loaded, workspace.plan(loaded, rows=("found",)), workspace, Console(file=io.StringIO()), record=False
    )
    assert list(finished.endings.outcome) == [trial.run_id]
    names = workspace.storage.names(f"runs/{trial.run_id}/epochs")
    assert names == ["0.0.json", "1.1.json", "2.1.json"]


@pytest.mark.usefixtures("ray_local")
def test_more_than_the_machine_has_is_refused_before_anything_trains(workspace: Workspace) -> None:
    text = (TEXT + SEARCH).replace("laptop: {}", "laptop: {resources: {gpus_per_worker: 4}}")
    with pytest.raises(ImpossibleError, match="4 GPUs"):
        search(workspace, text)
    assert workspace.storage.run_ids() == []


def test_what_the_command_line_asks_must_fit_the_search() -> None:
    loaded = study(TEXT + SEARCH)
    for asked, settings, says in (
        (Asked(sampler="cmaes"), {}, "model.groups is a choice"),
        (Asked(sampler="grid"), {}, "recipe.lr has not"),
        (Asked(), {"recipe.lr": 1e-3}, "leaves nothing to search"),
        (Asked(hours=0.0), {}, "--hours.*must be above 0"),
    ):
        with pytest.raises(StudyError, match=says):
            hunt_of(loaded, None, settings, asked)
    with pytest.raises(StudyError, match="has no search"):
        hunt_of(study(TEXT), None, {}, Asked())


def test_a_search_that_another_driver_is_at_is_refused(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with (
        open_search(storage, None, "s", [True], {}),
        pytest.raises(SearchStorageError, match=r"another driver \(pid \d+\)"),
        open_search(storage, None, "s", [True], {}),
    ):
        pass
    with open_search(storage, None, "s", [True], {}) as again:
        assert again.trials == []


def test_a_journal_keeps_a_search_as_a_database_does(tmp_path: Path) -> None:
    storage, place = Storage(tmp_path), str(tmp_path / "s.journal")
    with open_search(storage, place, "s", [True], {"study": "one"}) as search:
        search.tell(search.ask(), 1.0)
    with open_search(storage, place, "s", [True], {"study": "one"}) as again:
        assert [t.value for t in again.trials] == [1.0]
    with pytest.raises(SearchStorageError, match="not this one"), open_search(storage, place, "s", [True], {}):
        pass


def test_foreign_and_locked_storages_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(tmp_path)
    with open_search(storage, None, "s", [True], {"study": "one"}):
        pass
    with pytest.raises(SearchStorageError, match="not this one"), open_search(storage, None, "s", [True], {"study": 2}):
        pass
    text = tmp_path / "notes.txt"
    text.write_text("not a database at all, but long enough to be read as one" * 20)
    with pytest.raises(SearchStorageError, match="cannot be used"), open_search(storage, str(text), "s", [True], {}):
        pass
    monkeypatch.setattr(optuna_storage, "LOCKED_SECONDS", 0.05)
    other = sqlite3.connect(default_url(storage))
    other.execute("begin exclusive")
    with pytest.raises(SearchStorageError, match="locked"), open_search(storage, None, "t", [True], {}):
        pass
    other.close()
    with pytest.raises(SearchStorageError, match="no place for a database"):
        default_url(Storage("memory://x"))


def test_the_lock_is_the_systems_and_ends_with_the_process(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with (
        open_search(storage, None, "s", [True], {}),
        (tmp_path / "search" / "s.lock").open() as file,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
