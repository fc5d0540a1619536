"""Opening datasets, refusing broken ones, hold-outs by group, and what a fingerprint sees."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from retable.data import manifest as manifest_module
from retable.data.errors import DatasetError
from retable.data.manifest import Manifest, content_key, dataset_folder, fingerprint, open_dataset


def test_a_missing_generated_dataset_names_folder_layout_and_command(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as error:
        open_dataset("motions-ucf101", tmp_path / "nowhere")
    for part in (str(tmp_path / "nowhere"), "layout motions", "retable data generate motions-ucf101 --out"):
        assert part in str(error.value)


def test_a_missing_real_dataset_shows_the_tree_it_should_have(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="ucfTrainTestlist"):
        open_dataset("ucf101", tmp_path / "nowhere")


def test_dataset_folders_follow_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RETABLE_DATA", raising=False)
    assert dataset_folder("ucf101") == Path("data/ucf101")
    monkeypatch.setenv("RETABLE_DATA", str(tmp_path))
    assert dataset_folder("ucf101") == tmp_path / "ucf101"
    assert dataset_folder("ucf101", "elsewhere") == Path("elsewhere/ucf101")


def test_a_class_without_videos_is_refused(ucf_tree: Path) -> None:
    path = ucf_tree / "ucfTrainTestlist" / "classInd.txt"
    path.write_text(path.read_text() + "3 Swim\n")
    with pytest.raises(DatasetError, match="class Swim has no train video"):
        open_dataset("ucf101", ucf_tree).items(1)


def test_a_listed_video_that_is_not_there_is_refused(ucf_tree: Path) -> None:
    (ucf_tree / "UCF-101/Run/v_Run_g03_c01.avi").unlink()
    with pytest.raises(DatasetError, match=r"v_Run_g03_c01\.avi missing"):
        open_dataset("ucf101", ucf_tree).items(1)


def test_a_video_in_train_and_test_is_refused(ucf_tree: Path) -> None:
    with (ucf_tree / "ucfTrainTestlist" / "trainlist01.txt").open("a") as file:
        file.write("\nRun/v_Run_g01_c01.avi 2\n")
    with pytest.raises(DatasetError, match="is listed 2 times"):
        open_dataset("ucf101", ucf_tree).items(1)


def test_a_split_that_does_not_exist_is_refused(ucf_tree: Path) -> None:
    with pytest.raises(DatasetError, match=r"splits \[1, 2, 3, .*\], not 4"):
        open_dataset("ucf101", ucf_tree).items(4)


def test_a_hold_out_never_cuts_a_group_and_leaves_the_test_set_alone(tiny_motions: Manifest) -> None:
    items = tiny_motions.items(1, holdout=0.3)
    train, val = ({(i.label, i.group) for i in items if i.subset == s} for s in ("train", "val"))
    assert not train & val
    assert {label for label, _ in val} == set(range(4)) == {label for label, _ in train}
    test = [i for i in items if i.subset == "test"]
    assert test == [i for i in tiny_motions.items(1) if i.subset == "test"]


def test_a_hold_out_that_would_empty_a_class_is_refused(ucf_tree: Path) -> None:
    for name in ("Jump", "Run"):
        (ucf_tree / f"UCF-101/{name}/v_{name}_g03_c01.avi").unlink()
    (ucf_tree / "ucfTrainTestlist/trainlist01.txt").write_text("Jump/v_Jump_g02_c01.avi 1\nRun/v_Run_g02_c01.avi 2\n")
    with pytest.raises(DatasetError, match="needs two training groups"):
        open_dataset("ucf101", ucf_tree).items(1, holdout=0.5)


def test_a_fingerprint_is_96_bits_or_more_and_stays(ucf_tree: Path) -> None:
    first = fingerprint(open_dataset("ucf101", ucf_tree), 1)
    assert len(first) * 4 >= 96
    assert int(first, 16)
    assert fingerprint(open_dataset("ucf101", ucf_tree), 1) == first


def test_a_fingerprint_ignores_mtimes_and_the_order_of_lists(ucf_tree: Path) -> None:
    before = fingerprint(open_dataset("ucf101", ucf_tree), 1)
    os.utime(ucf_tree / "UCF-101/Run/v_Run_g01_c01.avi", (1, 1))
    path = ucf_tree / "ucfTrainTestlist" / "trainlist01.txt"
    path.write_text("\n".join(reversed(path.read_text().splitlines())))
    assert fingerprint(open_dataset("ucf101", ucf_tree), 1) == before


def test_a_fingerprint_ignores_where_the_dataset_lies(ucf_tree: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(ucf_tree, tmp_path / "copy"))
    assert fingerprint(open_dataset("ucf101", copy), 1) == fingerprint(open_dataset("ucf101", ucf_tree), 1)


def test_a_fingerprint_sees_content_label_split_hold_out_and_damage_policy(ucf_tree: Path) -> None:
    def now(split: int = 1, holdout: float = 0.0, on_damage: str = "error") -> str:
        return fingerprint(open_dataset("ucf101", ucf_tree), split, holdout=holdout, on_damage=on_damage)

    seen = {now(), now(split=2), now(holdout=0.5), now(on_damage="drop")}
    video = ucf_tree / "UCF-101/Run/v_Run_g01_c01.avi"
    changed = bytearray(video.read_bytes())
    changed[-1] ^= 1
    video.write_bytes(changed)
    seen.add(now())
    (ucf_tree / "ucfTrainTestlist" / "classInd.txt").write_text("2 Jump\n1 Run\n")
    seen.add(now())
    assert len(seen) == 6


def test_content_is_hashed_once_per_file(ucf_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fingerprint(open_dataset("ucf101", ucf_tree), 1)
    monkeypatch.setattr(manifest_module, "hash_video", lambda path: pytest.fail(f"hashed {path} again"))
    assert fingerprint(open_dataset("ucf101", ucf_tree), 1) == first


def test_a_dataset_that_cannot_be_written_to_is_fingerprinted_all_the_same(ucf_tree: Path) -> None:
    (ucf_tree / ".retable").write_text("a file where the folder should be")
    first = fingerprint(open_dataset("ucf101", ucf_tree), 1)
    shutil.rmtree(ucf_tree / ".retable", ignore_errors=True)
    (ucf_tree / ".retable").unlink(missing_ok=True)
    assert fingerprint(open_dataset("ucf101", ucf_tree), 1) == first


def test_the_key_of_decoded_frames_is_the_same_for_all_splits(ucf_tree: Path) -> None:
    manifest = open_dataset("ucf101", ucf_tree)
    keys = {content_key(manifest, [i.path for i in manifest.items(split)]) for split in (1, 2, 3)}
    assert len(keys) == 1
