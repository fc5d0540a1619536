"""Each layout reads a miniature tree of its dataset, and says what is wrong with a broken one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retable.data import layouts
from retable.data.errors import DatasetError
from retable.data.variants import VARIANTS


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    ("dataset", "layout"),
    [("ucf101", "ucf101"), ("ucf101-small", "ucf101"), ("motions-ucf101", "motions"), ("Kinetics400", "kinetics400")],
)
def test_a_dataset_is_served_by_the_layout_its_name_starts_with(dataset: str, layout: str) -> None:
    assert layouts.layout_of(dataset).name == layout


def test_an_unknown_dataset_gets_the_nearest_layout_as_a_hint() -> None:
    with pytest.raises(layouts.UnknownDatasetError, match="did you mean ucf101"):
        layouts.layout_of("ufc101")


@pytest.mark.parametrize("name", layouts.names())
def test_every_layout_exports_what_the_contract_asks(name: str) -> None:
    layout = layouts.layout_of(name)
    assert layout.splits[0] == 1
    assert layout.tree
    assert layout.num_classes(name) is None or layout.num_classes(name) >= 2  # type: ignore[operator]
    rule = layout.flip(("a", "b"))
    assert rule in ("ok", "never") or isinstance(rule, tuple)


def test_numbers_of_classes_are_known_without_any_file() -> None:
    assert layouts.num_classes("ucf101") == 101
    assert layouts.num_classes("kinetics400") == 400
    assert {name: layouts.num_classes(name) for name in VARIANTS} == {n: len(v.classes) for n, v in VARIANTS.items()}


def test_ucf101_reads_labels_groups_and_subsets(ucf_tree: Path) -> None:
    listing = layouts.layout_of("ucf101").read(ucf_tree, 2)
    assert listing.classes == ("Jump", "Run")
    test = [(i.path, i.label, i.group) for i in listing.items if i.subset == "test"]
    assert test == [
        ("UCF-101/Jump/v_Jump_g02_c01.avi", 0, "g02"),
        ("UCF-101/Run/v_Run_g02_c01.avi", 1, "g02"),
    ]
    assert len(listing.items) == 6


def test_ucf101_numbers_classes_as_listed_not_by_name(ucf_tree: Path) -> None:
    (ucf_tree / "ucfTrainTestlist" / "classInd.txt").write_text("2 Jump\n1 Run\n")
    assert layouts.layout_of("ucf101").read(ucf_tree, 1).classes == ("Run", "Jump")


def test_ucf101_says_which_places_it_looked_in(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="none of UCF-101, videos, UCF101"):
        layouts.layout_of("ucf101").read(tmp_path, 1)


def test_ucf101_refuses_a_class_that_is_not_in_the_index(ucf_tree: Path) -> None:
    with (ucf_tree / "ucfTrainTestlist" / "trainlist01.txt").open("a") as file:
        file.write("\nSwim/v_Swim_g01_c01.avi 3\n")
    with pytest.raises(DatasetError, match="class 'Swim'"):
        layouts.layout_of("ucf101").read(ucf_tree, 1)


def test_ucf101_refuses_a_gap_in_the_class_numbers(ucf_tree: Path) -> None:
    (ucf_tree / "ucfTrainTestlist" / "classInd.txt").write_text("1 Jump\n3 Run\n")
    with pytest.raises(DatasetError, match=r"must be 1\.\.2"):
        layouts.layout_of("ucf101").read(ucf_tree, 1)


def test_motions_swap_what_a_mirror_swaps_and_only_where_both_classes_exist() -> None:
    flip = layouts.layout_of("motions-ucf101").flip
    assert set(flip(VARIANTS["motions-ucf101"].classes)) == {
        ("MoveLeft", "MoveRight"),
        ("TurnClockwise", "TurnCounterClockwise"),
    }
    assert flip(("MoveUp", "MoveDown", "MoveLeft")) == ()


def kinetics(root: Path, folder: str) -> Path:
    header = "label,youtube_id,time_start,time_end,split\n"
    (root / "annotations").mkdir()
    train = header + "eating,aaaaaaaaaaa,3,13,train\nrunning,bbbbbbbbbbb,0,10,train\nrunning,ccccccccccc,1,11,train\n"
    (root / "annotations" / "train.csv").write_text(train)
    (root / "val.csv").write_text(header + "eating,ddddddddddd,7,17,val\n")
    touch(root, f"train/{folder}aaaaaaaaaaa_000003_000013.mp4", "train/bbbbbbbbbbb_000000_000010.mp4")
    touch(root, f"val/{folder}ddddddddddd_000007_000017.mp4")
    return root


@pytest.mark.parametrize("folder", ["", "eating/"])
def test_kinetics_finds_clips_in_class_folders_or_not_and_counts_the_vanished(tmp_path: Path, folder: str) -> None:
    listing = layouts.layout_of("kinetics400").read(kinetics(tmp_path, folder), 1)
    assert listing.classes == ("eating", "running")
    assert [(i.label, i.subset, i.group) for i in listing.items] == [
        (0, "train", "aaaaaaaaaaa"),
        (1, "train", "bbbbbbbbbbb"),
        (0, "test", "ddddddddddd"),
    ]
    assert listing.absent == ("train/ccccccccccc_000001_000011.mp4",)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("train", "aaaaaaaaaaa.mp4"),
        ("train/eating", "aaaaaaaaaaa_1_11.mkv"),
        ("train_256", "aaaaaaaaaaa_000001_000011.webm"),
        ("videos_train/eating", "aaaaaaaaaaa.MP4"),
    ],
)
def test_kinetics_knows_the_names_of_public_copies(tmp_path: Path, folder: str, name: str) -> None:
    for subset in ("train", "val"):
        rows = ["label,youtube_id,time_start,time_end,split", f"eating,aaaaaaaaaaa,1,11,{subset}"]
        (tmp_path / f"{subset}.csv").write_text("\n".join(rows))
    touch(tmp_path, f"{folder}/{name}")
    listing = layouts.layout_of("kinetics400").read(tmp_path, 1)
    assert [item.path for item in listing.items] == [f"{folder}/{name}"]
    assert listing.absent == ("val/aaaaaaaaaaa_000001_000011.mp4",)


def test_kinetics_names_the_column_it_lacks(tmp_path: Path) -> None:
    kinetics(tmp_path, "")
    (tmp_path / "val.csv").write_text("label,youtube_id,time_start\n")
    with pytest.raises(DatasetError, match="time_end"):
        layouts.layout_of("kinetics400").read(tmp_path, 1)


@pytest.mark.parametrize(("times", "says"), [("1,", "'1' and time_end ''"), ("x,2", "'x'"), ("1", "None")])
def test_kinetics_names_the_line_whose_times_are_none(tmp_path: Path, times: str, says: str) -> None:
    kinetics(tmp_path, "")
    (tmp_path / "val.csv").write_text(f"label,youtube_id,time_start,time_end\nwave,aaaaaaaaaaa,{times}\n")
    with pytest.raises(DatasetError, match=rf"val\.csv:2: time_start .*{says}.* must be seconds"):
        layouts.layout_of("kinetics400").read(tmp_path, 1)


def test_a_list_that_a_spreadsheet_has_saved_is_read(tmp_path: Path) -> None:
    kinetics(tmp_path, "")
    for file in (tmp_path / "annotations/train.csv", tmp_path / "val.csv"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert len(layouts.layout_of("kinetics400").read(tmp_path, 1).items) == 3


def test_a_list_that_is_not_utf_8_is_named_with_the_line(tmp_path: Path) -> None:
    kinetics(tmp_path, "")
    (tmp_path / "val.csv").write_bytes(
        "label,youtube_id,time_start,time_end\ndébut,aaaaaaaaaaa,1,2\n".encode("latin-1")
    )
    with pytest.raises(DatasetError, match=r"val\.csv:2: not UTF-8 \(byte 0xe9\)"):
        layouts.layout_of("kinetics400").read(tmp_path, 1)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[{]", r"train\.json: Invalid JSON"),
        ('[{"id": "7"}]', r"train\.json\[0\]\['template'\]: Field required"),
        ('{"7": "Opening"}', r"train\.json: Input should be a valid array"),
    ],
)
def test_something_v2_names_the_place_in_a_list_that_it_cannot_read(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/labels.json").write_text('{"Opening something": "0"}')
    (tmp_path / "labels/train.json").write_text(content)
    with pytest.raises(DatasetError, match=says):
        layouts.layout_of("something_v2").read(tmp_path, 1)


@pytest.mark.parametrize(("dataset", "folder"), [("hmdb51", "hmdb51_org"), ("jhmdb", "ReCompressed_Videos")])
def test_hmdb51_and_jhmdb_read_coded_lists_and_group_by_source(tmp_path: Path, dataset: str, folder: str) -> None:
    files = [f"Film_{k}_wave_u_cm_np1_fr_med_0.avi" for k in range(3)]
    touch(tmp_path, *(f"{folder}/wave/{file}" for file in files), f"{folder}/clap/A_clap_u_0.avi")
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/wave_test_split2.txt").write_text(f"{files[0]} 1 \n{files[1]} 2 \n{files[2]} 0 \n")
    (tmp_path / "splits/clap_test_split2.txt").write_text("A_clap_u_0.avi 2\n")
    listing = layouts.layout_of(dataset).read(tmp_path, 2)
    assert listing.classes == ("clap", "wave")
    assert [(i.path, i.label, i.subset, i.group) for i in listing.items] == [
        (f"{folder}/clap/A_clap_u_0.avi", 0, "test", "A"),
        (f"{folder}/wave/{files[0]}", 1, "train", "Film_0"),
        (f"{folder}/wave/{files[1]}", 1, "test", "Film_1"),
    ]
    assert listing.unused == (f"{folder}/wave/{files[2]}",)


def test_hmdb51_refuses_an_unknown_code(tmp_path: Path) -> None:
    touch(tmp_path, "videos/clap/A_clap_u_0.avi")
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/clap_test_split1.txt").write_text("A_clap_u_0.avi 3\n")
    with pytest.raises(DatasetError, match="a line must be"):
        layouts.layout_of("hmdb51").read(tmp_path, 1)


@pytest.mark.parametrize("prefix", ["", "something-something-v2-"])
def test_something_v2_reads_templates_and_tests_on_validation(tmp_path: Path, prefix: str) -> None:
    left, right = "Pushing something from left to right", "Pushing something from right to left"
    touch(tmp_path, "videos/7.webm", "videos/12.webm")
    (tmp_path / "labels").mkdir()
    lists = {
        "labels": {right: "1", left: "0"},
        "train": [{"id": "7", "label": "pushing a cup", "template": "Pushing [something] from right to left"}],
        "validation": [{"id": "12", "label": "pushing a pen", "template": "Pushing [something] from left to right"}],
    }
    for name, content in lists.items():
        (tmp_path / f"labels/{prefix}{name}.json").write_text(json.dumps(content))
    layout = layouts.layout_of("something_v2")
    listing = layout.read(tmp_path, 1)
    assert listing.classes == (left, right)
    assert [(i.path, i.label, i.subset) for i in listing.items] == [
        ("videos/7.webm", 1, "train"),
        ("videos/12.webm", 0, "test"),
    ]
    assert layout.flip(listing.classes) == ((left, right),)
    assert layout.flip((left, "Opening something")) == ()
