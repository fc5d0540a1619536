"""Your own videos, by folder or by table; and the random draws that several layouts share."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from retable.data import layouts
from retable.data.errors import DatasetError
from retable.data.layouts import Item, layout_of, random_split
from retable.data.manifest import Manifest, open_dataset


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def subsets(items: tuple[Item, ...]) -> dict[str, str]:
    return {item.path: item.subset for item in items}


def test_train_and_test_folders_are_split_1(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/a/1.avi", "train/b/2.mp4", "test/a/3.avi", "test/b/4.WEBM", "train/.cache/x.avi")
    listing = layout_of("folder-mine").read(root, 1)
    assert listing.classes == ("a", "b")
    assert subsets(listing.items) == {
        "train/a/1.avi": "train",
        "train/b/2.mp4": "train",
        "test/a/3.avi": "test",
        "test/b/4.WEBM": "test",
    }


def test_class_folders_alone_are_drawn_at_random_and_split_1_is_the_first_draw(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"{c}/{k}.avi" for c in ("a", "b") for k in range(10)))
    read = layout_of("folder").read
    assert read(root, 1) == read(root, 701)
    assert Counter(subsets(read(root, 1).items).values()) == {"train": 14, "test": 6}
    assert read(root, 702) != read(root, 701)


def test_a_folder_of_images_is_one_video_of_its_class(folder_set: Manifest) -> None:
    assert [item.path for item in folder_set.items(1)][:3] == ["test/a/3", "test/b/3", "train/a/1"]


def test_an_empty_class_folder_is_refused(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.avi", "b/notes.txt")
    with pytest.raises(DatasetError, match=r"class folder .*b holds neither"):
        layout_of("folder").read(root, 1)


@pytest.mark.parametrize(
    ("classes", "rule"),
    [
        (("jump", "run"), "ok"),
        (("bright", "jump"), "ok"),
        (("turn left", "turn right", "walk"), (("turn left", "turn right"),)),
        (("MoveLeft", "MoveRight"), (("MoveLeft", "MoveRight"),)),
        (("turn_left", "walk"), "never"),
    ],
)
def test_a_mirror_swaps_left_and_right_and_is_forbidden_without_a_partner(classes: tuple[str, ...], rule: Any) -> None:
    assert layout_of("folder").flip(classes) == rule
    assert layout_of("table").flip(classes) == rule


def table(root: Path, *rows: str, header: str = "path,label,split") -> Path:
    touch(root, *(row.split(",")[0] for row in rows if not row.startswith(("/", "..", ","))))
    (root / "videos.csv").write_text("\n".join([header, *rows]) + "\n")
    return root


def test_a_table_gives_paths_labels_subsets_and_groups(tmp_path: Path) -> None:
    root = table(
        tmp_path,
        *("v/1.avi,run,train,film1", "v/2.avi,jump,train,", "v/3.avi,run,val,film1", "v/4.avi,jump,test,film3"),
        header="path,label,split,group",
    )
    listing = layout_of("table-mine").read(root, 1)
    assert listing.classes == ("jump", "run")
    assert [(i.path, i.label, i.subset, i.group) for i in listing.items] == [
        ("v/1.avi", 1, "train", "film1"),
        ("v/2.avi", 0, "train", "v/2.avi"),
        ("v/3.avi", 1, "val", "film1"),
        ("v/4.avi", 0, "test", "film3"),
    ]


def test_numbers_as_labels_are_classes_in_the_order_of_numbers(tmp_path: Path) -> None:
    root = table(tmp_path, "1.avi,10,train", "2.avi,9,train", "3.avi,10,test", "4.avi,9,test")
    assert layout_of("table").read(root, 1).classes == ("9", "10")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1.avi,run,training", "row 1: split must be train, val or test, but is 'training'"),
        ("1.avi,,train", "row 1: no label"),
        ("../1.avi,run,train", "must be relative"),
        ("/x/1.avi,run,train", "must be relative"),
    ],
)
def test_a_table_with_a_bad_row_is_refused_and_names_it(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        layout_of("table").read(table(tmp_path, row), 1)


def test_a_missing_or_ambiguous_or_broken_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds neither"):
        layout_of("table").read(tmp_path, 1)
    (tmp_path / "videos.parquet").write_bytes(b"not parquet")
    with pytest.raises(DatasetError, match="not a Parquet file"):
        layout_of("table").read(tmp_path, 1)
    table(tmp_path, "1.avi,run,train")
    with pytest.raises(DatasetError, match="holds both"):
        layout_of("table").read(tmp_path, 1)


@pytest.mark.parametrize("dataset", ["folder-mine", "table-mine"])
def test_the_number_of_classes_is_left_to_the_study(dataset: str) -> None:
    assert layouts.num_classes(dataset) is None


def draw(split: int, top: str = "UCF-101", suffix: str = "avi") -> dict[str, str]:
    items = [Item(f"{top}/C/v_{k}.{suffix}", 0, "C", "train", "g") for k in range(20)]
    return {Path(path).stem: subset for path, subset in subsets(random_split(items, split)).items()}


def test_a_random_draw_is_frozen_and_sees_names_only() -> None:
    test = sorted(name for name, subset in draw(701).items() if subset == "test")
    assert test == ["v_11", "v_16", "v_2", "v_4", "v_5", "v_9"]
    assert draw(701, top="videos", suffix="mp4") == draw(701)
    assert draw(701) != draw(702)


def test_a_random_draw_puts_every_class_on_both_sides() -> None:
    items = [
        Item(f"C{label}/{k}.avi", label, f"C{label}", "train", "g") for label in range(5) for k in range(label + 2)
    ]
    dealt = Counter((item.label, item.subset) for item in random_split(items, 703))
    assert [(dealt[label, "train"], dealt[label, "test"]) for label in range(5)] == [
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 1),
        (4, 2),
    ]


def test_random_splits_of_ucf101_hold_all_videos_and_differ(ucf_tree: Path) -> None:
    manifest = open_dataset("ucf101", ucf_tree)
    drawn = [subsets(manifest.items(split)) for split in (701, 702, 703)]
    assert {frozenset(each) for each in drawn} == {frozenset(item.path for item in manifest.items(1))}
    assert all(Counter(each.values()) == {"train": 4, "test": 2} for each in drawn)
