"""Kinetics-400: one CSV per subset; clips are named by video and time. Videos that vanished from the web are counted.

Tree: ``{train,val}.csv`` with columns ``label,youtube_id,time_start,time_end,split`` in the folder or in
``annotations/``; videos in ``{train,val}/``, with or without class folders, named ``<id>_<start:06d>_<end:06d>``,
``<id>_<start>_<end>`` or ``<id>``, with any suffix of a video. Copies with resized videos have other folders, too.
The validation set is what papers report on: it is our test subset.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from retable.data.errors import DatasetError
from retable.data.layouts import VIDEO_SUFFIXES, FlipRule, Item, Listing, Subset, read_text

NUM_CLASSES = 400
SPLITS = (1,)
TREE = "<folder>/[annotations/]{train,val}.csv and <folder>/{train,val}/[<class>/]<id>[_<start>_<end>].mp4"
_COLUMNS = {"label", "youtube_id", "time_start", "time_end"}
_SUBSETS: tuple[tuple[Subset, str], ...] = (("train", "train"), ("test", "val"))
_FOLDERS = ("{}", "{}_256", "videos_{}", "{}set")
"""Folders of a subset's videos, as the archives and public copies have them."""


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
        on_disk = _videos(root, name)
        for row in rows[subset]:
            path = next((on_disk[stem] for stem in _stems(row) if stem in on_disk), None)
            if path is None:
                absent.append(f"{name}/{_stems(row)[0]}.mp4")
            else:
                items.append(Item(path, index[row["label"]], row["label"], subset, row["youtube_id"]))
    return Listing(classes, tuple(items), tuple(absent))


def flip(classes: tuple[str, ...]) -> FlipRule:
    """Mirroring keeps every class, as is customary for Kinetics."""
    del classes
    return "ok"


def _videos(root: Path, name: str) -> dict[str, str]:
    """Paths of a subset's videos by their names without suffix."""
    folder = next((root / form.format(name) for form in _FOLDERS if (root / form.format(name)).is_dir()), root / name)
    found = (p for p in sorted(folder.rglob("*"), reverse=True) if p.suffix.lower() in VIDEO_SUFFIXES)
    return {p.stem: p.relative_to(root).as_posix() for p in found}


def _stems(row: dict[str, str]) -> tuple[str, ...]:
    """What a video's file may be called."""
    video, start, end = row["youtube_id"], int(float(row["time_start"])), int(float(row["time_end"]))
    return f"{video}_{start:06d}_{end:06d}", f"{video}_{start}_{end}", video


def _rows(root: Path, name: str) -> list[dict[str, str]]:
    places = [root / f"{name}.csv", root / "annotations" / f"{name}.csv"]
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        raise DatasetError(f"Kinetics list is missing: looked for {' and '.join(map(str, places))}")
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    missing = _COLUMNS - set(reader.fieldnames or ())
    if missing:
        raise DatasetError(f"{path} lacks the column {', '.join(sorted(missing))}")
    return [_timed(row, f"{path}:{reader.line_num}") for row in reader]


def _timed(row: dict[str, str], place: str) -> dict[str, str]:
    try:
        _stems(row)
    except (TypeError, ValueError) as error:
        times = f"time_start {row['time_start']!r} and time_end {row['time_end']!r}"
        raise DatasetError(f"{place}: {times} must be seconds") from error
    return row
