"""THUMOS 2014, the videos of its temporal task: 20 of the classes, told by a file of times for each class.

Trains on the trimmed videos of UCF101. Split 1 tests on the annotated test videos, split 2 on the annotated validation
videos: a video carries every class that has a time in it. Times themselves, and what was ambiguous, are not used.
"""

from __future__ import annotations

from pathlib import Path

from retable.data.errors import DatasetError
from retable.data.layouts import Item, Listing, Subset, read_lines
from retable.data.layouts.thumos14 import flip, on_disk, trimmed, untrimmed

NUM_CLASSES = 20
SPLITS = (1, 2)
COUNTS: dict[int, dict[Subset, int]] = {1: {"test": 213}, 2: {"test": 200}}
TREE = (
    "<folder>/{UCF-101|UCF101|training}/<Class>/*.avi, <folder>/{test|TH14_test_set_mp4}/*.mp4 or, for split 2,"
    " <folder>/{validation|TH14_validation_set_mp4}/*.mp4; <folder>/{annotation|annotations}/{detclasslist.txt,"
    "<Class>_test.txt,<Class>_val.txt}"
)
_SETS = {1: ("test", "test"), 2: ("validation", "val")}
_FOLDERS = (
    *("annotation", "annotations", "annotations/annotation"),
    *("TH14_Temporal_Annotations_Test/annotations/annotation", "TH14_Temporal_annotations_validation/annotation"),
)
"""Where the two archives' files lie, unpacked as they are or put together."""

__all__ = ["COUNTS", "NUM_CLASSES", "SPLITS", "TREE", "flip", "read"]


def read(root: Path, split: int) -> Listing:
    """Trimmed videos as train, annotated ones as test; others on disk are unused.

    Raises:
        DatasetError: a folder or file is missing, or a line cannot be read.
    """
    which, ending = _SETS[split]
    classes = _classes(_file(root, "detclasslist.txt"))
    sets: dict[str, set[int]] = {}
    for label, name in enumerate(classes):
        for video in _videos(_file(root, f"{name}_{ending}.txt")):
            sets.setdefault(video, set()).add(label)
    folder, items = untrimmed(root, which).relative_to(root), trimmed(root, classes)
    for video, found in sorted(sets.items()):
        labels = tuple(sorted(found))
        items.append(Item(f"{folder.as_posix()}/{video}.mp4", labels[0], classes[labels[0]], "test", video, labels))
    known = {item.path for item in items}
    unused = [path for every in ("test", "validation") for path in on_disk(root, every) if path not in known]
    return Listing(classes, tuple(items), unused=tuple(unused))


def _classes(path: Path) -> tuple[str, ...]:
    """Names as listed (lines ``<number in UCF101> <Class>``)."""
    pairs = [line.split() for line in read_lines(path)]
    if any(len(pair) != 2 for pair in pairs):
        raise DatasetError(f"{path}: every line must be '<number> <Class>'")
    return tuple(name for _, name in pairs)


def _videos(path: Path) -> list[str]:
    """The video of every line (``<video>  <begin> <end>``, seconds)."""
    rows = [line.split() for line in read_lines(path)]
    for number, row in enumerate(rows, 1):
        try:
            begin, end = map(float, row[1:])
        except ValueError:
            begin, end = 0.0, -1.0
        if not begin <= end:
            raise DatasetError(f"{path}, line {number}: must be '<video> <begin> <end>', but is {' '.join(row)!r}")
    return [row[0] for row in rows]


def _file(root: Path, name: str) -> Path:
    found = next((root / folder / name for folder in _FOLDERS if (root / folder / name).is_file()), None)
    if found is None:
        raise DatasetError(f"THUMOS14: none of {', '.join(_FOLDERS)} in {root} holds {name}")
    return found
