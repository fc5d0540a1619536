"""Every layout, on a miniature of its real tree, from the files to a training and an evaluation batch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import scipy.io
import torch

from retable.data import layouts
from retable.data.config import Clip, Data, Protocol
from retable.data.errors import DatasetError
from retable.data.layouts import Listing
from retable.data.loader import Augment, open_run_data
from retable.data.manifest import Manifest, fingerprint, open_dataset

Make = Callable[..., Path]
SPORTS = {
    "Diving-Side": 3,
    "Golf-Swing-Back": 1,
    "Golf-Swing-Front": 2,
    "Kicking-Front": 3,
    "Lifting": 3,
    "Riding-Horse": 3,
    "Run-Side": 3,
    "SkateBoarding-Front": 3,
    "Swing-Bench": 3,
    "Swing-SideAngle": 3,
    "Walk-Front": 5,
}
SOMETHING = ("Pushing something from left to right", "Pushing something from right to left")


def lines(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


def ucf101(root: Path, video: Make, images: Make) -> None:
    names = {c: [f"{c}/v_{c}_g{g:02d}_c01.avi" for g in (1, 2, 3)] for c in ("Jump", "Run")}
    for k, name in enumerate(names["Jump"] + names["Run"]):
        video(root / "UCF-101" / name, frames=4, first=20 * k)
    lines(root / "ucfTrainTestlist/classInd.txt", "1 Jump", "2 Run")
    lines(root / "ucfTrainTestlist/testlist01.txt", *(files[0] for files in names.values()))
    train = [f"{name} {i}" for i, files in enumerate(names.values(), 1) for name in files[1:]]
    lines(root / "ucfTrainTestlist/trainlist01.txt", *train)


def hmdb51(root: Path, video: Make, images: Make, folder: str = "hmdb51_org") -> None:
    for k, name in enumerate(("clap", "wave")):
        files = [f"Film_{i}_{name}_u_cm_np1_fr_med_0.avi" for i in range(3)]
        for i, file in enumerate(files):
            video(root / folder / name / file, frames=4, first=10 * (3 * k + i))
        codes = [f"{file} {code} " for file, code in zip(files, (1, 1, 2), strict=True)]
        lines(root / f"splits/{name}_test_split1.txt", *codes)


def jhmdb(root: Path, video: Make, images: Make) -> None:
    hmdb51(root, video, images, "ReCompressed_Videos")


def kinetics400(root: Path, video: Make, images: Make) -> None:
    header = "label,youtube_id,time_start,time_end,split"
    rows: dict[str, list[str]] = {"train": [header], "val": [header]}
    for k, (subset, label) in enumerate((s, c) for s in ("train", "train", "val") for c in ("eating", "running")):
        rows[subset].append(f"{label},abcdefghij{k},3,13,{subset}")
        video(root / subset / label / f"abcdefghij{k}_000003_000013.mp4", frames=4, first=10 * k)
    for subset, table in rows.items():
        lines(root / f"annotations/{subset}.csv", *table)


def something_v2(root: Path, video: Make, images: Make) -> None:
    lists: dict[str, list[dict[str, str]]] = {"train": [], "validation": []}
    for k in range(6):
        video(root / f"20bn-something-something-v2/{k}.webm", frames=4, first=10 * k, codec="libvpx-vp9")
        template = SOMETHING[k % 2].replace("something", "[something]")
        lists["train" if k < 4 else "validation"].append({"id": str(k), "label": "a cup", "template": template})
    for name, content in {**lists, "labels": {name: str(k) for k, name in enumerate(SOMETHING)}}.items():
        lines(root / f"labels/{name}.json", json.dumps(content))


def something_v1(root: Path, video: Make, images: Make) -> None:
    rows = [f"{k};{SOMETHING[k % 2]}" for k in range(6)]
    for k in range(6):
        images(root / f"20bn-something-something-v1/{k}", range(1, 6))
    lines(root / "something-something-v1-labels.csv", *SOMETHING)
    lines(root / "something-something-v1-train.csv", *rows[:4])
    lines(root / "something-something-v1-validation.csv", *rows[4:])
    lines(root / "something-something-v1-test.csv", "6", "7")


def ucf11(root: Path, video: Make, images: Make) -> None:
    top = root / "UCF11_updated_mpg"
    for k, (name, prefix) in enumerate({"basketball": "shooting", "walking": "walk_dog"}.items()):
        for group in (1, 2, 3):
            place = f"{name}/v_{prefix}_{group:02d}/v_{prefix}_{group:02d}_01.mpg"
            video(top / place, frames=4, first=30 * k + group, codec="mpeg1video")
        lines(top / f"{name}/Annotation/v_{prefix}_01_01.xgtf", "<viper/>")


def ucfsports(root: Path, video: Make, images: Make) -> None:
    for folder, clips in SPORTS.items():
        for clip in range(1, clips + 1):
            place = root / "ucf_sports_actions/ucf action" / folder / f"{clip:03d}"
            if folder == "Golf-Swing-Back":
                video(place / f"3283-8_7007{clip}.avi", frames=4)
            else:
                images(place, range(100 * clip + 8, 100 * clip + 12), name=f"25{clip}-5_70{{}}.jpg", width=48)
                lines(place / f"gt/25{clip}-5_70.txt", "1 2 3 4")


def trimmed(root: Path, video: Make) -> None:
    for k, (name, group) in enumerate((n, g) for n in ("Jump", "Run") for g in (1, 2)):
        video(root / f"UCF-101/{name}/v_{name}_g{group:02d}_c01.avi", frames=4, first=10 * k)


def annotated(root: Path, which: str, labels: dict[int, tuple[str, list[int]]], video: Make) -> Any:
    """The struct array of THUMOS14's annotation files; ``background_video`` is in the test set's only."""
    names = ("video_name", "background_video", "primary_action_index", "secondary_actions_indices")
    kept = [name for name in names if which == "test" or name != "background_video"]
    struct = np.zeros((1, len(labels)), dtype=np.dtype([(name, object) for name in kept]))
    for k, (background, numbers) in labels.items():
        name = f"video_{which}_{k:07d}"
        video(root / f"{which}/{name}.mp4", frames=6, first=10 * k, codec="libx264")
        row = (name, background, numbers[0], np.array(numbers[1:], np.uint8).reshape(-1, 1))
        struct[0, k - 1] = tuple(value for key, value in zip(names, row, strict=True) if key in kept)
    return struct


def thumos14(root: Path, video: Make, images: Make) -> None:
    trimmed(root, video)
    labels: dict[int, tuple[str, list[int]]] = {1: ("NO", [1]), 2: ("NO", [2, 1]), 3: ("YES", [1]), 4: ("NO", [2])}
    lines(root / "classInd.txt", "1 Jump", "2 Run")
    scipy.io.savemat(root / "test_set_meta.mat", {"test_videos": annotated(root, "test", labels, video)})
    validation = annotated(root, "validation", {1: ("", [2]), 2: ("", [1, 2])}, video)
    (root / "validation_set_meta").mkdir()
    scipy.io.savemat(root / "validation_set_meta/validation_set.mat", {"validation_videos": validation})


def thumos14_temporal(root: Path, video: Make, images: Make) -> None:
    trimmed(root, video)
    places = {
        "test": root / "TH14_Temporal_Annotations_Test/annotations/annotation",
        "val": root / "TH14_Temporal_annotations_validation/annotation",
    }
    for (ending, place), which in zip(places.items(), ("test", "validation"), strict=True):
        for k in (1, 2, 3):
            video(root / f"{which}/video_{which}_{k:07d}.mp4", frames=6, first=10 * k, codec="libx264")
        rows = [f"video_{which}_{k:07d}  {begin:.1f} {begin + 4:.1f}" for k in (1, 2) for begin in (1.0, 72.8)]
        lines(place / f"Jump_{ending}.txt", *rows[:3])
        lines(place / f"Run_{ending}.txt", *rows[2:])
        lines(place / f"Ambiguous_{ending}.txt", f"video_{which}_0000003  1.0 2.0")
        lines(place / "detclasslist.txt", "7 Jump", "9 Run")


def folder(root: Path, video: Make, images: Make) -> None:
    for k, (name, clip) in enumerate((n, c) for n in ("turn left", "turn right") for c in range(3)):
        video(root / name / f"{clip}.mp4", frames=4, first=10 * k)


def table(root: Path, video: Make, images: Make) -> None:
    rows = []
    for k, (label, split) in enumerate((label, s) for label in (10, 9) for s in ("train", "train", "test")):
        video(root / f"clips/{k}.mkv", frames=4, first=10 * k)
        rows.append({"path": f"clips/{k}.mkv", "label": label, "split": split})
    pa.parquet.write_table(pa.Table.from_pylist(rows), root / "videos.parquet")


MINIATURES = {
    f.__name__: f
    for f in (
        *(ucf101, hmdb51, jhmdb, kinetics400, something_v2, something_v1, ucf11, ucfsports, thumos14),
        *(thumos14_temporal, folder, table),
    )
}
CASES = [*((name, 1) for name in MINIATURES if name != "thumos14"), ("thumos14", 2), ("thumos14", 3)]
CASES += [("thumos14_temporal", 2)]
CASES += [(name, 702) for name in ("ucf101", "ucf11", "ucfsports", "folder", "table")]


@pytest.fixture
def miniature(tmp_path: Path, write_video: Make, write_images: Make) -> Callable[[str], Manifest]:
    def make(name: str) -> Manifest:
        root = tmp_path / name
        root.mkdir()
        MINIATURES[name](root, write_video, write_images)
        return open_dataset(name, root)

    return make


def test_every_layout_has_a_miniature() -> None:
    assert {*MINIATURES, "motions"} == set(layouts.names())  # motions: see test_loader.py, with generated videos


@pytest.mark.parametrize(("name", "split"), CASES)
def test_a_miniature_gives_batches(miniature: Callable[[str], Manifest], tmp_path: Path, name: str, split: int) -> None:
    manifest = miniature(name)
    assert len(fingerprint(manifest, split)) == 32
    data = Data(dataset=name, split=split, clip=Clip(frames=2, size=16))
    run = open_run_data(manifest, data, augment=Augment(), cache_dir=tmp_path / "cache")
    train = next(iter(run.train_batches(0, 2, seed=0)))
    test = next(iter(run.eval_batches("test", Protocol(), 2)))
    for batch in (train, test):
        assert batch.clips["rgb"].shape == (2, 2, 16, 16, 3)
        assert batch.clips["rgb"].dtype == torch.uint8
        assert batch.clips["rgb"].float().std() > 20  # pictures, not one grey
        assert set(batch.labels.tolist()) <= set(range(len(manifest.classes)))
    assert run.damaged == {}


def listed(manifest: Manifest, split: int, subset: str) -> list[tuple[str, str]]:
    return [(item.path, item.class_name) for item in manifest.items(split) if item.subset == subset]


def test_something_v1_takes_classes_in_listed_order_and_swaps_left_and_right(miniature: Any) -> None:
    manifest = miniature("something_v1")
    assert manifest.classes == SOMETHING
    assert manifest.flip_permutation() == (1, 0)
    expected = [(f"20bn-something-something-v1/{k}", SOMETHING[k % 2]) for k in (4, 5)]
    assert listed(manifest, 1, "test") == expected


def test_something_v1_names_a_label_that_is_not_known(miniature: Any) -> None:
    manifest = miniature("something_v1")
    lines(manifest.root / "something-something-v1-train.csv", "0;Pushing nothing")
    with pytest.raises(DatasetError, match="'Pushing nothing' of video 0"):
        manifest.items(1)


def test_ucf11_leaves_one_group_of_every_class_out(miniature: Any) -> None:
    manifest = miniature("ucf11")
    assert manifest.classes == ("basketball", "walking")
    assert listed(manifest, 2, "test") == [
        ("UCF11_updated_mpg/basketball/v_shooting_02/v_shooting_02_01.mpg", "basketball"),
        ("UCF11_updated_mpg/walking/v_walk_dog_02/v_walk_dog_02_01.mpg", "walking"),
    ]
    assert {item.group for item in manifest.items(2) if item.subset == "train"} == {"g01", "g03"}
    with pytest.raises(DatasetError, match="no test video"):
        manifest.items(25)


def test_ucfsports_joins_viewpoints_and_tests_on_the_first_third(miniature: Any) -> None:
    manifest = miniature("ucfsports")
    test = listed(manifest, 1, "test")
    assert len(test) == 10
    assert ("ucf_sports_actions/ucf action/Golf-Swing-Back/001/3283-8_70071.avi", "Golf-Swing") in test
    assert ("ucf_sports_actions/ucf action/Diving-Side/001", "Diving") in test
    groups = {item.group for item in manifest.items(1) if item.class_name == "Golf-Swing"}
    assert groups == {"3283-8", "251-5", "252-5"}  # the tapes: a hold-out keeps a tape together


def test_ucfsports_at_its_published_size_has_the_published_split(tmp_path: Path) -> None:
    golf = {"Golf-Swing-Back": 5, "Golf-Swing-Front": 8, "Golf-Swing-Side": 5}
    kicks = {"Kicking-Front": 10, "Kicking-Side": 10}
    others = zip(SPORTS, (14, 0, 0, 0, 6, 12, 13, 12, 20, 13, 22), strict=True)
    for place, clips in {**dict(others), **golf, **kicks}.items():
        for clip in range(clips):
            lines(tmp_path / f"ucf action/{place}/{clip + 1:03d}/7-1_70001.jpg", "")
    layout = layouts.layout_of("ucfsports")
    counts = Counter(item.subset for item in layout.read(tmp_path, 1).items)
    assert counts == layout.counts[1]
    assert counts.total() == layout.total


def test_thumos14_keeps_all_labels_of_its_test_videos(miniature: Any, tmp_path: Path) -> None:
    manifest = miniature("thumos14")
    sets = {item.path: (item.label, item.labels) for item in manifest.items(1) if item.subset == "test"}
    assert [sets[f"test/video_test_{k:07d}.mp4"] for k in (1, 2, 3, 4)] == [
        (0, (0,)),
        (1, (1, 0)),
        (-1, ()),
        (1, (1,)),
    ]
    assert [path for path, _ in listed(manifest, 2, "test")] == [f"test/video_test_{k:07d}.mp4" for k in (1, 4)]
    cache = tmp_path / "cache"
    data = open_run_data(manifest, Data(dataset="thumos14"), augment=Augment(), cache_dir=cache)
    assert dict(zip(data.videos("test"), data.label_sets("test") or (), strict=True)) == {
        f"test/video_test_{k:07d}.mp4": labels for k, labels in ((1, (0,)), (2, (1, 0)), (3, ()), (4, (1,)))
    }
    assert data.label_sets("train") is None
    single = open_run_data(manifest, Data(dataset="thumos14", split=2), augment=Augment(), cache_dir=cache)
    assert single.label_sets("test") is None


def test_thumos14_tests_on_its_validation_set_or_trains_on_part_of_it(miniature: Any) -> None:
    manifest = miniature("thumos14")
    sets = {item.path: item.labels for item in manifest.items(3) if item.subset == "test"}
    assert sets == {f"validation/video_validation_{k:07d}.mp4": labels for k, labels in ((1, (1,)), (2, (0, 1)))}
    trimmed = listed(manifest, 1, "train")
    assert sorted(listed(manifest, 4, "train")) == sorted(
        [*trimmed, ("validation/video_validation_0000001.mp4", "Run")]  # the only one of one label
    )
    assert listed(manifest, 4, "test") == listed(manifest, 1, "test")
    assert "validation/video_validation_0000002.mp4" in manifest.layout.read(manifest.root, 4).unused


def test_thumos14_temporal_takes_a_videos_labels_from_the_files_of_its_classes(miniature: Any) -> None:
    manifest = miniature("thumos14_temporal")
    for split, which in ((1, "test"), (2, "validation")):
        sets = {item.path: item.labels for item in manifest.items(split) if item.subset == "test"}
        assert sets == {f"{which}/video_{which}_{k:07d}.mp4": labels for k, labels in ((1, (0,)), (2, (0, 1)))}
        assert len(listed(manifest, split, "train")) == 4
    file = manifest.root / "TH14_Temporal_annotations_validation/annotation/Run_val.txt"
    lines(file, "video_validation_0000001 7.0 3.0")
    with pytest.raises(DatasetError, match=r"Run_val.txt, line 1: must be '<video> <begin> <end>', but is 'video_val"):
        open_dataset("thumos14_temporal", manifest.root).items(2)
    file.unlink()
    with pytest.raises(DatasetError, match=r"none of annotation, .* holds Run_val.txt"):
        open_dataset("thumos14_temporal", manifest.root).items(2)


def test_thumos14_labels_are_part_of_the_fingerprint(miniature: Any) -> None:
    manifest = miniature("thumos14")
    before = fingerprint(manifest, 1)
    path = manifest.root / "test_set_meta.mat"
    videos = scipy.io.loadmat(path)["test_videos"]
    videos[0, 1]["secondary_actions_indices"] = np.zeros((0, 1), np.uint8)  # no longer the second label
    scipy.io.savemat(path, {"test_videos": videos})
    assert fingerprint(open_dataset("thumos14", manifest.root), 1) != before


@pytest.mark.parametrize("kept", [0, 60, 140])
def test_thumos14_names_an_annotation_file_that_is_damaged(miniature: Any, kept: int) -> None:
    manifest = miniature("thumos14")
    path = manifest.root / "test_set_meta.mat"
    scipy.io.savemat(path, {"test_videos": np.arange(4000)}, do_compression=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:kept] + (bytes(40) + whole[kept + 40 :] if kept > 128 else b""))
    with pytest.raises(DatasetError, match=r"test_set_meta.mat: not the annotation file"):
        open_dataset("thumos14", manifest.root).items(1)


def test_thumos14_says_what_is_wrong_with_its_annotation_file(miniature: Any) -> None:
    manifest = miniature("thumos14")
    (manifest.root / "test_set_meta.mat").write_bytes(b"no mat file" * 100)
    with pytest.raises(DatasetError, match="not the annotation file"):
        manifest.items(1)


def test_videos_that_belong_to_no_subset_are_known_as_unused(miniature: Any) -> None:
    something = miniature("something_v1")
    folder_ = "20bn-something-something-v1"
    assert something.layout.read(something.root, 1).unused == (f"{folder_}/6", f"{folder_}/7")
    thumos = miniature("thumos14")
    assert thumos.layout.read(thumos.root, 2).unused == (
        "test/video_test_0000002.mp4",
        "test/video_test_0000003.mp4",
        "validation/video_validation_0000001.mp4",
        "validation/video_validation_0000002.mp4",
    )
    temporal = miniature("thumos14_temporal")
    assert temporal.layout.read(temporal.root, 1).unused == (
        "test/video_test_0000003.mp4",
        *(f"validation/video_validation_{k:07d}.mp4" for k in (1, 2, 3)),
    )


def test_training_videos_of_several_labels_are_refused(miniature: Any, tmp_path: Path) -> None:
    manifest = miniature("thumos14")
    items = tuple(replace(i, labels=(0, 1)) if i.subset == "train" else i for i in manifest.items(1))
    several = replace(manifest, _read={1: Listing(manifest.classes, items)})
    with pytest.raises(DatasetError, match=r"training videos carry several labels or none \(such as UCF-101/"):
        open_run_data(several, Data(dataset="thumos14"), augment=Augment(), cache_dir=tmp_path / "cache")
