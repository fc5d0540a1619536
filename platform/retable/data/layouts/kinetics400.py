"""Kinetics-400: one CSV per subset; clips are named by video and time. Videos that vanished from the web are counted.

Tree: ``{train,val}.csv`` with columns ``label,youtube_id,time_start,time_end,split`` in the folder or in
``annotations/``; videos ``<id>_<start:06d>_<end:06d>.mp4`` in ``{train,val}/``, with or without class folders.
The validation set is what papers report on: it is our test subset.
"""

from __future__ import annotations

import csv
from pathlib import Path

from retable.data.errors import DatasetError
from retable.data.layouts import FlipRule, Item, Listing, Subset

NUM_CLASSES = 400
SPLITS = (1,)
TREE = "<folder>/[annotations/]{train,val}.csv and <folder>/{train,val}/[<class>/]<id>_<start>_<end>.mp4"
_COLUMNS = {"label", "youtube_id", "time_start", "time_end"}
_SUBSETS: tuple[tuple[Subset, str], ...] = (("train", "train"), ("test", "val"))


def read(root: Path, split: int) -> Listing:
    """Videos that are on disk; ``absent`` names the listed ones that are not. Classes in alphabetical order.

    Raises:
        DatasetError: a CSV file is missing or lacks a column.
    """
    del split
    rows = {subset: _rows(root, name) for subset, name in _SUBSETS}
    classes = tuple(sorted({row["label"] for part in rows.values() for row in part}))
    index = {name: label for label, name in enumerate(classes)}
    items: list[Item] = []
    absent: list[str] = []
    for subset, name in _SUBSETS:
        on_disk = {p.name: p.relative_to(root).as_posix() for p in sorted((root / name).rglob("*.mp4"))}
        for row in rows[subset]:
            path = on_disk.get(_file_name(row))
            if path is None:
                absent.append(f"{name}/{_file_name(row)}")
            else:
                items.append(Item(path, index[row["label"]], row["label"], subset, row["youtube_id"]))
    return Listing(classes, tuple(items), tuple(absent))


def flip(classes: tuple[str, ...]) -> FlipRule:
    """Mirroring keeps every class, as is customary for Kinetics."""
    del classes
    return "ok"


def _file_name(row: dict[str, str]) -> str:
    return f"{row['youtube_id']}_{int(float(row['time_start'])):06d}_{int(float(row['time_end'])):06d}.mp4"


def _rows(root: Path, name: str) -> list[dict[str, str]]:
    places = [root / f"{name}.csv", root / "annotations" / f"{name}.csv"]
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        raise DatasetError(f"Kinetics list is missing: looked for {' and '.join(map(str, places))}")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = _COLUMNS - set(reader.fieldnames or ())
        if missing:
            raise DatasetError(f"{path} lacks the column {', '.join(sorted(missing))}")
        return list(reader)
