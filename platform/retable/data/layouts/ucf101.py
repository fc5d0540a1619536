"""UCF101: 101 classes of clips cut from groups of source videos, three official splits by group.

Tree (as unpacked from the official archives): class folders of ``v_<Class>_gXX_cYY.avi`` beside ``ucfTrainTestlist``.
"""

from __future__ import annotations

import re
from pathlib import Path

from retable.data.errors import DatasetError
from retable.data.layouts import (
    RANDOM_SPLITS,
    FlipRule,
    Item,
    Listing,
    Subset,
    find_folder,
    random_split,
    read_lines,
)

NUM_CLASSES = 101
SPLITS = (1, 2, 3, *RANDOM_SPLITS)
COUNTS: dict[int, dict[Subset, int]] = {
    1: {"train": 9537, "test": 3783},
    2: {"train": 9586, "test": 3734},
    3: {"train": 9624, "test": 3696},
}
TOTAL = 13_320
TREE = (
    "<folder>/{UCF-101|videos}/<Class>/v_<Class>_gXX_cYY.avi"
    " and <folder>/ucfTrainTestlist/{classInd,trainlist01,testlist01,...}.txt"
)
VIDEO_FOLDERS = ("UCF-101", "videos", "UCF101")
LIST_FOLDERS = ("ucfTrainTestlist", "annotations", "splits")
_GROUP = re.compile(r"_(g\d+)_c\d+$")


def read(root: Path, split: int) -> Listing:
    """Videos of one split. Classes are in ``classInd.txt`` order (its numbers are 1-based).

    Raises:
        DatasetError: a folder, list file or class is missing, or a line cannot be read.
    """
    videos = find_folder(root, VIDEO_FOLDERS, "UCF101 videos")
    lists = find_folder(root, LIST_FOLDERS, "UCF101 split lists")
    classes = _classes(lists / "classInd.txt")
    index = {name: label for label, name in enumerate(classes)}
    items = [
        _item(videos.relative_to(root), line.split()[0], index, subset, lists / name)
        for subset, name in _lists(1 if split in RANDOM_SPLITS else split)
        for line in read_lines(lists / name)
    ]
    return Listing(classes, random_split(items, split) if split in RANDOM_SPLITS else tuple(items))


def flip(classes: tuple[str, ...]) -> FlipRule:
    """Mirroring keeps every class."""
    del classes
    return "ok"


def _lists(split: int) -> tuple[tuple[Subset, str], ...]:
    return ("train", f"trainlist{split:02d}.txt"), ("test", f"testlist{split:02d}.txt")


def _classes(path: Path) -> tuple[str, ...]:
    pairs = [line.split() for line in read_lines(path)]
    if any(len(p) != 2 or not p[0].isdigit() for p in pairs):
        raise DatasetError(f"{path}: every line must be '<number> <Class>'")
    numbers = [int(p[0]) for p in pairs]
    if sorted(numbers) != list(range(1, len(pairs) + 1)):
        raise DatasetError(f"{path}: class numbers must be 1..{len(pairs)}, each once")
    return tuple(name for _, name in sorted((int(number), name) for number, name in pairs))


def _item(folder: Path, listed: str, index: dict[str, int], subset: Subset, source: Path) -> Item:
    name = listed.partition("/")[0]
    if name not in index:
        raise DatasetError(f"{source}: class {name!r} of {listed} is not in classInd.txt")
    group = _GROUP.search(Path(listed).stem)
    return Item((folder / listed).as_posix(), index[name], name, subset, group[1] if group else Path(listed).stem)
