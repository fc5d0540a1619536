"""``retable data index``, ``pack``, ``verify``: one clear line each, exit codes, and a pack that runs read."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from retable import cli, console

Retable = Callable[..., tuple[int, str, str]]
NAME = "motions-ucf101"


@pytest.fixture
def retable(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Retable:
    """Runs a command on a copy of the miniature dataset; exit code, output, errors."""
    shutil.copytree(data_root / NAME, tmp_path / "data" / NAME, ignore=shutil.ignore_patterns(".retable"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RETABLE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("RETABLE_STORAGE", str(tmp_path / "store"))

    def run(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["retable", *map(str, words)])
        for where in (console.out, console.err):
            where.width = 200
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    return run


def test_index_then_pack_then_verify(retable: Retable, tmp_path: Path) -> None:
    code, said, _ = retable("data", "index", NAME, "--processes", "0")
    assert code == 0
    assert f"{NAME}: 36 videos, " in said
    assert "0 damaged" in said
    code, said, _ = retable("data", "pack", NAME, "--processes", "0")
    assert code == 0
    assert f"{NAME}: 36 videos in 1 files" in said
    assert (tmp_path / "data" / NAME / ".retable" / "pack" / "pack.json").is_file()
    _, said, _ = retable("data", "verify", NAME, "--json")
    kinds = {finding["kind"] for finding in json.loads(said)["findings"]}
    assert "damaged" not in kinds
    assert "stale" not in kinds


def test_a_damaged_and_a_changed_video_are_a_line_each(retable: Retable, tmp_path: Path) -> None:
    first, second = sorted((tmp_path / "data" / NAME).rglob("*.avi"))[:2]
    first.write_bytes(b"")
    code, said, _ = retable("data", "index", NAME, "--processes", "0")
    assert code == 0
    assert f"  damaged: {first.relative_to(tmp_path / 'data' / NAME)}: " in said
    second.write_bytes(second.read_bytes() + b"\0")
    code, said, _ = retable("data", "verify", NAME)
    assert code == 3
    lines = said.splitlines()
    assert sum(line.startswith("damaged: ") and first.name in line for line in lines) == 1
    assert sum(line.startswith("stale: ") and second.name in line for line in lines) == 1


def test_a_pack_elsewhere_has_the_same_fingerprint_and_is_verified(
    retable: Retable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = retable("data", "show", NAME)[1]
    assert retable("data", "pack", NAME, "--processes", "0", "--out", tmp_path / "there" / NAME)[0] == 0
    monkeypatch.setenv("RETABLE_DATA", str(tmp_path / "there"))
    there = retable("data", "show", NAME)[1]
    assert there.replace(str(tmp_path / "there"), "") == shown.replace(str(tmp_path / "data"), "")
    assert retable("data", "verify", NAME)[:2] == (0, f"{NAME}: nothing is wrong\n")
    code, _, said = retable("data", "index", NAME)
    assert code == 3
    assert "is a pack: it has its index, but no video file" in said


def test_no_dataset_and_no_room_are_exit_code_3(retable: Retable, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, said = retable("data", "index", "ucf101")
    assert code == 3
    assert "there is no folder" in said
    monkeypatch.setattr("shutil.disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, 10))
    code, _, said = retable("data", "pack", NAME, "--processes", "0")
    assert code == 3
    assert "no space left in" in said


def test_a_proxy_is_a_dataset_that_verify_and_tables_know(retable: Retable, tmp_path: Path) -> None:
    code, said, _ = retable("data", "proxy", NAME, "--short-side", "32", "--gop", "12", "--processes", "0")
    name = f"{NAME}-proxy32-gop12"
    assert code == 0
    assert f"{name}: 36 videos, " in said
    assert f"Use it as data.dataset={name}. Tables made from it say so." in said
    assert (tmp_path / "data" / name / "pack.json").is_file()
    code, said, _ = retable("data", "verify", name)
    assert (code, said) == (0, f"{name}: nothing is wrong\n")
    _, said, _ = retable("table", "quickstart", "--set", f"data.dataset={name}", "--offline")
    assert f"From the proxy {name}: the videos of {NAME} encoded again with loss" in " ".join(said.split())
    _, said, _ = retable("table", "quickstart", "--offline")
    assert "proxy" not in said
