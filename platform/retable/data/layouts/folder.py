"""Your own videos, one folder per class: a dataset called ``folder-NAME``.

With folders ``train`` and ``test`` above the classes, split 1 is what they say. Without, split 1 is the first random
70/30 draw. Splits 701 to 703 are random draws over all videos either way. A video is its own hold-out group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from retable.data.errors import DatasetError
from retable.data.imagefolder import image_names
from retable.data.layouts import RANDOM_SPLITS, VIDEO_SUFFIXES, FlipRule, Item, Listing, Subset, random_split

NUM_CLASSES = None
SPLITS = (1, *RANDOM_SPLITS)
TREE = "<folder>/[{train|test}/]<class>/{*.avi|*.mp4|...|<video>/00001.jpg}"
_SUBSETS: tuple[Subset, ...] = ("train", "test")
_SIDE = re.compile(r"(?<![A-Za-z])(?:left|right|LEFT|RIGHT)(?![A-Za-z])|(?:Left|Right)(?![a-z])")
_OTHER = {"left": "right", "Left": "Right", "LEFT": "RIGHT", "right": "left", "Right": "Left", "RIGHT": "LEFT"}


def read(root: Path, split: int) -> Listing:
    """Videos of one split. Classes in alphabetical order of their folders.

    Raises:
        DatasetError: there is no class folder, or a class folder is empty.
    """
    divided = all((root / subset).is_dir() for subset in _SUBSETS)
    found = [video for subset in (_SUBSETS if divided else ("",)) for video in _videos(root / subset)]
    if not found:
        raise DatasetError(f"{root} holds no class folder with videos: expected {TREE}")
    classes = tuple(sorted({path.parent.name for path in found}))
    index = {name: label for label, name in enumerate(classes)}
    items = [_item(path.relative_to(root), index) for path in found]
    if split == 1 and divided:
        return Listing(classes, tuple(items))
    return Listing(classes, random_split(items, RANDOM_SPLITS[0] if split == 1 else split))


def flip(classes: tuple[str, ...]) -> FlipRule:
    """A mirror swaps classes that differ by left and right; with such a class and no partner it is not allowed."""
    partners = {name: _SIDE.sub(lambda found: _OTHER[found[0]], name) for name in classes}
    if not set(partners.values()) <= set(classes):
        return "never"
    return tuple((name, other) for name, other in partners.items() if name < other) or "ok"


def _item(path: Path, index: dict[str, int]) -> Item:
    subset: Subset = "test" if path.parts[0] == "test" else "train"
    return Item(path.as_posix(), index[path.parent.name], path.parent.name, subset, path.name)


def _videos(top: Path) -> Iterator[Path]:
    """Video files, and folders with images, two levels below ``top``; hidden ones are left alone."""
    for folder in sorted(path for path in top.iterdir() if path.is_dir() and not path.name.startswith(".")):
        videos = [path for path in sorted(folder.iterdir()) if _is_video(path)]
        if not videos:
            raise DatasetError(f"class folder {folder} holds neither videos nor folders of images")
        yield from videos


def _is_video(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    return bool(image_names(path)) if path.is_dir() else path.suffix.lower() in VIDEO_SUFFIXES
