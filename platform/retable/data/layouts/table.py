"""Your own videos, listed in a table: a dataset called ``table-NAME``.

``videos.csv`` or ``videos.parquet`` in the dataset's folder has a row per video: ``path`` (relative, a file or a folder
of images), ``label`` (a name or a number), ``split`` (train, val or test) and, if you like, ``group`` (what a hold-out
must keep together; default: the video itself).
"""

from __future__ import annotations

import csv
import io
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from retable.data.errors import DatasetError
from retable.data.layouts import RANDOM_SPLITS, Item, Listing, Subset, random_split, read_text
from retable.data.layouts.folder import flip

NUM_CLASSES = None
SPLITS = (1, *RANDOM_SPLITS)
TREE = "<folder>/{videos.csv|videos.parquet} with columns path, label, split and optionally group"
_COLUMNS = ("path", "label", "split")

__all__ = ["NUM_CLASSES", "SPLITS", "TREE", "flip", "read"]


def read(root: Path, split: int) -> Listing:
    """Videos as listed (split 1) or dealt anew (701 to 703). Classes by number if all labels are numbers, else by name.

    Raises:
        DatasetError: no table or both, a column or value is missing, or a path or split is impossible.
    """
    source, rows = _rows(root)
    names = {str(row["label"]) for row in rows}
    numeric = all(name.isdigit() for name in names)
    classes = tuple(sorted(names, key=lambda name: (int(name) if numeric else 0, name)))
    index = {name: label for label, name in enumerate(classes)}
    items = [_item(row, index, f"{source}, row {number}") for number, row in enumerate(rows, 1)]
    return Listing(classes, random_split(items, split) if split in RANDOM_SPLITS else tuple(items))


def _item(row: dict[str, Any], index: dict[str, int], place: str) -> Item:
    path, subset, name = PurePosixPath(str(row["path"])), row["split"], str(row["label"])
    if path.is_absolute() or ".." in path.parts:
        raise DatasetError(f"{place}: path {path} must be relative to the dataset's folder and stay inside")
    if subset not in get_args(Subset):
        raise DatasetError(f"{place}: split must be train, val or test, but is {subset!r}")
    return Item(path.as_posix(), index[name], name, subset, str(row.get("group") or path))


def _rows(root: Path) -> tuple[Path, list[dict[str, Any]]]:
    found = [path for path in (root / "videos.csv", root / "videos.parquet") if path.is_file()]
    if len(found) != 1:
        raise DatasetError(f"{root} must hold videos.csv or videos.parquet, but holds {'both' if found else 'neither'}")
    rows = _csv(found[0]) if found[0].suffix == ".csv" else _parquet(found[0])
    for number, row in enumerate(rows, 1):
        empty = [column for column in _COLUMNS if row.get(column) in (None, "")]
        if empty:
            raise DatasetError(f"{found[0]}, row {number}: no {' and no '.join(empty)}")
    return found[0], rows


def _csv(path: Path) -> list[dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(read_text(path), newline="")))


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet  # not at the top: planning imports layouts and must stay light

    try:
        return list(pyarrow.parquet.read_table(path).to_pylist())
    except pyarrow.lib.ArrowException as error:
        raise DatasetError(f"{path} is not a Parquet file: {error}") from error
