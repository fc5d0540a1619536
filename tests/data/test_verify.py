"""``verify`` finds what is missing, extra, twice, broken or of another number than published; and nothing else."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from retable.data.check import check_pack
from retable.data.indexing import build_index
from retable.data.layouts import Layout
from retable.data.manifest import Manifest, open_dataset
from retable.data.pack import build_pack
from retable.data.packed import open_pack
from retable.data.verify import Finding
from retable.data.verify import verify as verify_in_processes
from retable.data.workers import Lost

verify = partial(verify_in_processes, processes=0)
JUMP = "UCF-101/Jump/v_Jump_g01_c01.avi"
RUN = "UCF-101/Run/v_Run_g02_c01.avi"


@pytest.fixture
def small(ucf_tree: Path) -> Manifest:
    """A variant of UCF101: its counts are its own, its number of classes is UCF101's."""
    manifest = open_dataset("ucf101-small", ucf_tree)
    module = ModuleType("two_classes")
    module.__dict__.update(manifest.layout.module.__dict__, NUM_CLASSES=2)
    return Manifest(manifest.name, manifest.root, Layout("ucf101", module))


def kinds(findings: list[Finding]) -> list[str]:
    return [finding.kind for finding in findings]


def test_a_sound_dataset_has_no_findings_and_progress_reaches_the_end(small: Manifest) -> None:
    told: list[tuple[int, int]] = []
    assert verify_in_processes(small, progress=lambda done, of: told.append((done, of)), processes=1) == []
    assert told == [(done, 6) for done in range(1, 7)]


def test_numbers_are_compared_with_the_published_ones(ucf_tree: Path) -> None:
    messages = [finding.message for finding in verify(open_dataset("ucf101", ucf_tree)) if finding.kind == "count"]
    assert messages[:3] == [
        "2 classes, but ucf101 has 101",
        "split 1: 4 train videos on disk, 9,537 published",
        "split 1: 2 test videos on disk, 3,783 published",
    ]
    assert messages[-1] == "6 listed videos on disk, 13,320 published"


def test_missing_and_extra_videos_are_named(small: Manifest) -> None:
    (small.root / JUMP).rename(small.root / "UCF-101/Jump/renamed.avi")
    assert verify(small) == [
        Finding("missing", "UCF-101/Jump: v_Jump_g01_c01.avi: listed but not on disk", (JUMP,)),
        Finding("extra", "UCF-101/Jump: renamed.avi: on disk but in no list", ("UCF-101/Jump/renamed.avi",)),
    ]


def test_many_extra_videos_are_one_finding_with_all_names(small: Manifest) -> None:
    for k in range(5):
        shutil.copy(small.root / JUMP, small.root / f"UCF-101/Jump/{k}.avi")
    (found,) = verify(small)
    assert found.message == "UCF-101/Jump: 0.avi, 1.avi, 2.avi and 2 more: on disk but in no list"
    assert len(found.paths) == 5


def test_the_same_content_twice_is_told_with_what_it_spoils(small: Manifest) -> None:
    shutil.copy(small.root / JUMP, small.root / RUN)
    (found,) = verify(small)
    assert found.kind == "duplicate"
    assert found.paths == (JUMP, RUN)
    assert "on both sides of split 1, 2" in found.message  # split 3 trains on both
    assert "with different labels: Jump, Run" in found.message


@pytest.mark.parametrize("content", [b"", b"garbage" * 200], ids=["zero bytes", "garbage"])
def test_every_damaged_video_is_named_once(small: Manifest, content: bytes) -> None:
    for path in (JUMP, RUN):
        (small.root / path).write_bytes(content)
    found = verify(small)
    assert kinds(found) == ["damaged", "damaged"]  # equal content of broken files is no duplicate
    assert [finding.paths for finding in found] == [(JUMP,), (RUN,)]


def test_a_video_over_which_a_process_hangs_is_damaged(small: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    def each(work: Any, tasks: Any, **settings: Any) -> Any:
        assert settings["limit"] == 5.0
        return ((task, Lost("no end after 5 s: given up") if task == RUN else work(task)) for task in tasks)

    monkeypatch.setattr("retable.data.verify.each", each)
    (found,) = verify(small, limit=5.0)
    assert (found.kind, found.message) == ("damaged", f"{RUN}: no end after 5 s: given up")


def test_a_pack_with_a_flipped_bit_is_found_out(small: Manifest, tmp_path: Path) -> None:
    pack = build_pack(small, build_index(small, processes=0), tmp_path / "p")
    assert check_pack(pack, processes=0) == []
    shard = tmp_path / "p" / "videos-00000.bin"
    content = shard.read_bytes()
    shard.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    messages = [finding.message for finding in check_pack(open_pack(tmp_path / "p"), processes=0)]
    assert messages[0].startswith("videos-00000.bin: it is not what was packed (SHA-256 ")


def test_a_list_that_cannot_be_read_is_a_finding_and_the_rest_is_still_checked(small: Manifest) -> None:
    (small.root / "ucfTrainTestlist/trainlist02.txt").unlink()
    (small.root / JUMP).write_bytes(b"")
    found = verify(small)
    assert kinds(found) == ["lists", "damaged"]
    assert "trainlist02.txt" in found[0].message


def test_a_tree_of_another_dataset_is_one_finding(tmp_path: Path) -> None:
    (found,) = verify(open_dataset("hmdb51", tmp_path))
    assert found.kind == "lists"
    assert "none of hmdb51_org, videos is a folder" in found.message


def test_folders_of_images_are_verified_as_videos(folder_set: Manifest, write_images: Any) -> None:
    assert verify(folder_set) == []
    (folder_set.root / "train/a/1/00002.jpg").unlink()
    write_images(folder_set.root / "unsorted/x/deep", range(3))
    assert [(finding.kind, finding.paths) for finding in verify(open_dataset("folder-mine", folder_set.root))] == [
        ("extra", ("unsorted/x/deep",)),
        ("damaged", ("train/a/1",)),
    ]


def test_what_a_list_calls_unused_is_neither_extra_nor_decoded(tmp_path: Path, write_video: Any) -> None:
    codes = {"a_wave_u_0.avi": 1, "b_wave_u_0.avi": 2, "c_wave_u_0.avi": 0}
    for k, name in enumerate(codes):
        write_video(tmp_path / "videos/wave" / name, frames=3, first=10 * k)
    (tmp_path / "videos/wave/c_wave_u_0.avi").write_bytes(b"")
    (tmp_path / "splits").mkdir()
    for split in (1, 2, 3):
        lines = [f"{name} {code}" for name, code in codes.items()]
        (tmp_path / f"splits/wave_test_split{split}.txt").write_text("\n".join(lines))
    findings = verify(open_dataset("hmdb51", tmp_path))
    assert set(kinds(findings)) == {"count"}
    assert findings[-1].message == "3 listed videos on disk, 6,766 published"
