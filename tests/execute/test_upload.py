"""What goes to a cluster with a study: what somebody wrote. Not data, not results, not what git ignores."""

from __future__ import annotations

from pathlib import Path

import pytest

from retable.execute import upload
from retable.execute.upload import UploadRefused, files, stage


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def test_data_results_and_caches_stay_here(tmp_path: Path) -> None:
    junk = (".git/HEAD", ".retable/runs/r/spec.json", "data/a.avi", "mlflow.db", ".venv/bin/python", "m/__pycache__/x")
    folder = tree(tmp_path, "study.yaml", "models/own.py", "models/data/table.csv", *junk)
    assert [str(f) for f in files(folder)] == ["models/data/table.csv", "models/own.py", "study.yaml"]


def test_what_git_ignores_stays_here_and_the_innermost_rule_counts(tmp_path: Path) -> None:
    folder = tree(tmp_path, "a.pt", "keep.pt", "deep/b.pt", "deep/out/x", "deep/y.log", "out.txt", "kept/z.log")
    (folder / ".gitignore").write_text("*.pt\n!keep.pt\n*.log\n")
    (folder / "deep/.gitignore").write_text("/out/\n")
    (folder / "kept/.gitignore").write_text("!z.log\n")
    found = [str(f) for f in files(folder) if f.name != ".gitignore"]
    assert found == ["keep.pt", "kept/z.log", "out.txt"]


def test_a_dataset_folder_of_another_name_and_links_to_folders_stay_here(tmp_path: Path) -> None:
    folder = tree(tmp_path / "project", "study.yaml", "videos/a.avi")
    tree(tmp_path, "elsewhere/large.bin")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    assert files(folder, leave_out=(folder / "videos",)) == [Path("study.yaml")]


def test_what_is_sent_is_the_same_files(tmp_path: Path) -> None:
    folder, target = tree(tmp_path / "project", "study.yaml", "models/own.py"), tmp_path / "staged"
    target.mkdir()
    assert stage(folder, target) == len("study.yaml") + len("models/own.py")
    assert (target / "models/own.py").read_text() == "models/own.py"


def test_a_folder_that_is_too_large_is_refused_and_its_large_files_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "LIMIT_BYTES", 2**20)
    folder = tree(tmp_path / "project", "study.yaml")
    (folder / "weights.bin").write_bytes(bytes(2**20))
    with pytest.raises(UploadRefused, match=r"at most 1 MiB .*\.gitignore.*\n +1\.0 MiB  weights\.bin"):
        stage(folder, tmp_path)
