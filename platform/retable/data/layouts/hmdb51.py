"""HMDB51: 51 classes of clips from films and the web, three official splits of 70 training and 30 test clips a class.

Each class and split has a list of ``<file> <code>``: 1 train, 2 test, 0 unused.
"""

from __future__ import annotations

from pathlib import Path

from retable.data.errors import DatasetError
from retable.data.layouts import FlipRule, Item, Listing, Subset, find_folder, read_lines

NUM_CLASSES = 51
SPLITS = (1, 2, 3)
COUNTS: dict[int, dict[Subset, int]] = {split: {"train": 3570, "test": 1530} for split in SPLITS}
TOTAL = 6766
TREE = (
    "<folder>/{hmdb51_org|videos}/<class>/*.avi"
    " and <folder>/{testTrainMulti_7030_splits|splits}/<class>_test_split1.txt"
)
VIDEO_FOLDERS = ("hmdb51_org", "videos")
LIST_FOLDERS = ("testTrainMulti_7030_splits", "splits")
_CODES: dict[str, Subset | None] = {"0": None, "1": "train", "2": "test"}


def read(root: Path, split: int) -> Listing:
    """Videos of one official split. Classes in alphabetical order.

    Raises:
        DatasetError: a folder or list is missing, or a line cannot be read.
    """
    videos = find_folder(root, VIDEO_FOLDERS, "HMDB51 videos")
    return read_coded(root, videos, find_folder(root, LIST_FOLDERS, "HMDB51 split lists"), split)


def flip(classes: tuple[str, ...]) -> FlipRule:
    """Mirroring keeps every class."""
    del classes
    return "ok"


def read_coded(root: Path, videos: Path, lists: Path, split: int) -> Listing:
    """Read lists ``<class>_test_split<N>.txt`` of file names with codes; every class folder must have its list."""
    classes = tuple(sorted(folder.name for folder in videos.iterdir() if folder.is_dir()))
    items: list[Item] = []
    unused: list[str] = []
    for label, name in enumerate(classes):
        path = lists / f"{name}_test_split{split}.txt"
        for line in read_lines(path):
            file, _, code = line.rpartition(" ")
            if code not in _CODES or not file.strip():
                raise DatasetError(f"{path}: a line must be '<file> <0|1|2>' but one is {line!r}")
            subset, place = _CODES[code], (videos.relative_to(root) / name / file.strip()).as_posix()
            if subset is None:
                unused.append(place)
            else:
                items.append(Item(place, label, name, subset, source_of(file, name)))
    return Listing(classes, tuple(items), unused=tuple(unused))


def source_of(file: str, class_name: str) -> str:
    """The film or web video a clip was cut from: what its name says before the class."""
    return file.partition(f"_{class_name}_")[0]
