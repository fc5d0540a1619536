"""The command line as a user types it: output, exit codes, and one clear message for every bad input."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from retable import cli, console
from retable.workspace import Workspace
from tests.execute.small import TEXT


class Shell:
    """Runs commands in-process in a folder of their own."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
        self.capsys, self.monkeypatch = capsys, monkeypatch

    def __call__(self, *words: str | Path) -> tuple[int, str, str]:
        line = [str(w) for w in words]
        self.monkeypatch.setattr(sys, "argv", ["retable", *line])
        for shown in (console.out, console.err):
            shown.width = 200
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = self.capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        assert "Traceback" not in said.err
        return code, said.out, said.err


@pytest.fixture
def retable(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RETABLE_STORAGE", workspace.storage_url)
    monkeypatch.setenv("RETABLE_DATA", str(workspace.data_root))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Shell(capsys, monkeypatch)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(TEXT)
    return path


def bad(study: Path, before: str, after: str) -> Path:
    text = study.read_text()
    assert before in text
    study.write_text(text.replace(before, after, 1))
    return study


def test_plan_needs_no_dataset_and_says_that_ids_are_provisional(
    retable: Shell, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETABLE_DATA", "nowhere")
    code, out, _ = retable("plan", study, "--seeds", "2")
    assert code == 0
    assert "2 trainings, 4 runs" in out
    assert "provisional" in out
    assert "time unknown" in out


def test_plan_as_json_lists_runs_cells_and_totals(retable: Shell, study: Path) -> None:
    code, out, _ = retable("plan", study, "--json")
    doc = json.loads(out)
    assert code == 0
    assert doc["schema"] == 1
    assert [run["cells"] for run in doc["runs"]] == [["table2.s3.top1"], ["table2.s4.top1"]]
    assert doc["totals"]["to_run"] == 2
    assert doc["totals"]["seconds"] is None


def test_a_table_without_runs_counts_and_explains_its_holes(retable: Shell, study: Path) -> None:
    code, out, _ = retable("table", study, "--format", "json")
    cells = json.loads(out)["tables"][0]["rows"][0]["cells"]
    assert code == 0
    assert cells["params"]["status"] == "static"
    assert cells["params"]["mean"] > 0
    assert cells["top1"]["status"] == "missing"
    assert cells["top1"]["notes"]


@pytest.mark.parametrize(
    ("before", "after", "line", "message"),
    [
        ("recipe: {lr", "recipe: {learning_rate: 1, lr", 6, "there is no 'recipe.learning_rate'"),
        ("batch_size: 8", "batch_size: eight", 6, "valid integer"),
        ("model.groups: 3", "model.groups: 6", 18, "split into"),
        ("id: s4", "id: s3", 19, "row id 's3' is used on line 19 already"),
        ("laptop: {}", "laptop: {model: {groups: 5}}", 9, "line 19 varies"),
        ("default_profile: laptop", "default_profile: laptpo", 2, "there is no profile 'laptpo'"),
        ("study: small", "study: small\nstudies: 1", 2, "unknown key 'studies'"),
    ],
)
def test_a_bad_study_is_refused_with_its_place(
    retable: Shell, study: Path, before: str, after: str, line: int, message: str
) -> None:
    code, _, err = retable("plan", bad(study, before, after))
    assert code == 2
    found = [text for text in err.splitlines() if message in text]
    assert found, err
    number = int(found[0].split(":")[1])
    assert abs(number - line) <= 1, found[0]


def test_an_unknown_table_is_refused_with_the_nearest_name(retable: Shell, study: Path) -> None:
    code, _, err = retable("run", study, "--tables", "tabel2")
    assert code == 2
    assert "there is no table 'tabel2'" in err
    assert "did you mean 'table2'" in err


def test_errors_are_json_when_asked(retable: Shell, study: Path) -> None:
    code, out, _ = retable("plan", bad(study, "groups: 4", "gruops: 4"), "--json")
    (error,) = json.loads(out)["errors"]
    assert code == 2
    assert error.keys() == {"file", "line", "column", "path", "value", "message", "hint"}
    assert "groups" in error["hint"]


def test_a_missing_dataset_says_how_to_get_it(retable: Shell, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETABLE_DATA", "nowhere")
    code, _, err = retable("run", study, "--offline")
    assert code == 3
    assert "retable data generate motions-ucf101" in err


def test_an_empty_class_is_named(
    retable: Shell, study: Path, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    shutil.copytree(Path(str(workspace.data_root)) / "motions-ucf101", root / "motions-ucf101")
    for listed in (root / "motions-ucf101" / "ucfTrainTestlist").glob("t*list0*.txt"):
        listed.write_text("".join(x + "\n" for x in listed.read_text().splitlines() if "MoveUp" not in x))
    monkeypatch.setenv("RETABLE_DATA", str(root))
    code, _, err = retable("run", study, "--offline")
    assert code == 3
    assert "MoveUp" in err


def test_a_tracking_server_that_is_not_there_stops_before_training(retable: Shell, study: Path) -> None:
    code, _, err = retable("run", study, "--tracking-uri", "http://127.0.0.1:9")
    assert code == 3
    assert "127.0.0.1:9" in err
    assert "retable sync" in err


def test_set_without_a_value_and_unknown_paths_are_refused(retable: Shell, study: Path) -> None:
    code, _, err = retable("plan", study, "--set", "recipe.lr")
    assert (code, "has no value" in err) == (2, True)
    code, _, err = retable("plan", study, "--set", "recipe.lrr=1")
    assert (code, "there is no 'recipe.lrr'" in err) == (2, True)


def test_models_lists_configurations_with_counts(retable: Shell) -> None:
    code, out, _ = retable("models", "msfnet", "--json")
    assert code == 0
    configs = {c["name"]: c for c in json.loads(out)["models"][0]["configs"]}
    assert configs["msfnet"]["params"] == 21_844_845
    code, _, err = retable("models", "msfnett")
    assert (code, "did you mean" in err) == (2, True)


def test_doctor_says_what_is_wrong_and_what_to_do(retable: Shell) -> None:
    code, out, _ = retable("doctor", "--tracking-uri", "http://127.0.0.1:9")
    assert code == 3
    assert "FAIL mlflow store" in out
    assert "ok   storage" in out


def test_gc_shows_and_frees_superseded_checkpoints(retable: Shell, workspace: Workspace) -> None:
    workspace.storage.put("runs/abc/ckpt/last.0.pt", b"x" * 1000)
    workspace.storage.put("runs/abc/ckpt/last.1.pt", b"y" * 1000)
    _, out, _ = retable("gc")
    assert "checkpoints superseded by a later attempt: 1 items" in out
    assert workspace.storage.exists("runs/abc/ckpt/last.0.pt")
    retable("gc", "--delete")
    assert not workspace.storage.exists("runs/abc/ckpt/last.0.pt")
    assert workspace.storage.exists("runs/abc/ckpt/last.1.pt")


def test_data_show_tells_splits_and_fingerprints(retable: Shell) -> None:
    code, out, _ = retable("data", "show", "motions-ucf101")
    assert code == 0
    assert "split 1: train" in out
    code, out, _ = retable("data", "show")
    assert "ucf101" in out
    code, _, err = retable("data", "show", "ucf-102")
    assert (code, "layout" in err) == (2, True)


@pytest.mark.parametrize("command", ["plan", "run", "table", "ui", "sync", "lint", "models", "doctor", "gc"])
def test_help_teaches_with_an_example(retable: Shell, command: str) -> None:
    code, out, _ = retable(command, "--help")
    assert code == 0
    assert f"retable {command}" in out
    assert "Example:" in out
