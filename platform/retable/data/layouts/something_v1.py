"""Something-Something V1: 174 sentences such as "Pushing something from left to right"; videos as folders of JPEGs.

The test labels are not public: papers report on the validation set, which is our test subset.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from retable.data.errors import DatasetError
from retable.data.layouts import Item, Listing, Subset, find_folder, read_text
from retable.data.layouts.something_v2 import flip

NUM_CLASSES = 174
SPLITS = (1,)
COUNTS: dict[int, dict[Subset, int]] = {1: {"train": 86_017, "test": 11_522}}
TOTAL = 108_499
TREE = (
    "<folder>/{20bn-something-something-v1|videos}/<id>/00001.jpg"
    " and <folder>/[labels/]something-something-v1-{labels,train,validation}.csv"
)
_SUBSETS: tuple[tuple[Subset, str], ...] = (("train", "train"), ("test", "validation"))

__all__ = ["COUNTS", "NUM_CLASSES", "SPLITS", "TOTAL", "TREE", "flip", "read"]


def read(root: Path, split: int) -> Listing:
    """All training and validation videos; classes in the order of the labels file. A video is its own group.

    Raises:
        DatasetError: a folder or file is missing, a line cannot be read, or a sentence is not among the labels.
    """
    del split
    videos = find_folder(root, ("20bn-something-something-v1", "videos"), "Something-Something V1 frames")
    classes = tuple(row[0] for row in _rows(root, "labels", columns=1))
    index = {name: label for label, name in enumerate(classes)}
    items: list[Item] = []
    for subset, name in _SUBSETS:
        for video, sentence in _rows(root, name, columns=2):
            if sentence not in index:
                raise DatasetError(f"{name} list: label {sentence!r} of video {video} is not among the labels")
            path = (videos.relative_to(root) / video).as_posix()
            items.append(Item(path, index[sentence], sentence, subset, video))
    unlabelled = _rows(root, "test", columns=1) if _find(root, "test") else []
    unused = tuple((videos.relative_to(root) / row[0]).as_posix() for row in unlabelled)
    return Listing(classes, tuple(items), unused=unused)


def _places(root: Path, name: str) -> tuple[Path, Path]:
    file_name = f"something-something-v1-{name}.csv"
    return root / file_name, root / "labels" / file_name


def _find(root: Path, name: str) -> Path | None:
    return next((place for place in _places(root, name) if place.is_file()), None)


def _rows(root: Path, name: str, *, columns: int) -> list[list[str]]:
    path = _find(root, name)
    if path is None:
        raise DatasetError(f"list file is missing: looked for {' and '.join(map(str, _places(root, name)))}")
    lines = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=";")
    rows = [[cell.strip() for cell in row] for row in lines if row]
    for row in rows:
        if len(row) != columns:
            raise DatasetError(f"{path}: a line must have {columns} fields with ';' between, but one is {row}")
    return rows
