"""J-HMDB: 21 classes of HMDB51 with clips trimmed to the action, three splits, lists as in HMDB51."""

from __future__ import annotations

from pathlib import Path

from retable.data.layouts import Listing, find_folder
from retable.data.layouts.hmdb51 import flip, read_coded

NUM_CLASSES = 21
SPLITS = (1, 2, 3)
TOTAL = 928
TREE = "<folder>/{ReCompressed_Videos|videos}/<class>/*.avi and <folder>/splits/<class>_test_split1.txt"

__all__ = ["NUM_CLASSES", "SPLITS", "TOTAL", "TREE", "flip", "read"]


def read(root: Path, split: int) -> Listing:
    """Videos of one official split. Classes in alphabetical order.

    Raises:
        DatasetError: a folder or list is missing, or a line cannot be read.
    """
    videos = find_folder(root, ("ReCompressed_Videos", "videos"), "J-HMDB videos")
    return read_coded(root, videos, find_folder(root, ("splits",), "J-HMDB split lists"), split)
