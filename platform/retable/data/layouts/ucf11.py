"""UCF11 (UCF YouTube Action): 11 classes, 25 groups of clips each; a group is one scene, actor or source video.

The authors' protocol leaves one group of every class out: splits 1 to 25 test on that group. Splits 701 to 703 are
random 70/30 draws that cut through groups, as some papers do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from retable.data.errors import DatasetError
from retable.data.layouts import (
    RANDOM_SPLITS,
    VIDEO_SUFFIXES,
    FlipRule,
    Item,
    Listing,
    find_folder,
    random_split,
)

NUM_CLASSES = 11
SPLITS = (*range(1, 26), *RANDOM_SPLITS)
TOTAL = 1600
TREE = "<folder>/{UCF11_updated_mpg|action_youtube_naudio|videos}/[<class>/]v_<class>_<gg>/v_<class>_<gg>_<cc>.mpg"
_GROUP = re.compile(r"v_(\w+)_(\d\d)$")


def read(root: Path, split: int) -> Listing:
    """Videos of one split. Classes in alphabetical order of their folders; without class folders, of group names.

    Raises:
        DatasetError: the video folder is missing or holds no group folder.
    """
    top = find_folder(root, ("UCF11_updated_mpg", "action_youtube_naudio", "videos"), "UCF11 videos")
    found = list(_videos(top))
    if not found:
        raise DatasetError(f"UCF11: {top} holds no folder v_<class>_<gg> with videos")
    classes = tuple(sorted({name for name, _, _ in found}))
    index = {name: label for label, name in enumerate(classes)}
    items = [
        Item(
            path.relative_to(root).as_posix(), index[name], name, "test" if group == split else "train", f"g{group:02d}"
        )
        for name, group, path in found
    ]
    return Listing(classes, random_split(items, split) if split in RANDOM_SPLITS else tuple(items))


def flip(classes: tuple[str, ...]) -> FlipRule:
    """Mirroring keeps every class."""
    del classes
    return "ok"


def _videos(top: Path) -> Iterator[tuple[str, int, Path]]:
    """Class, group number and path of every video in a group folder."""
    for folder in sorted([*top.glob("v_*"), *top.glob("*/v_*")]):
        match = _GROUP.fullmatch(folder.name)
        if match:
            name = match[1] if folder.parent == top else folder.parent.name
            yield from (
                (name, int(match[2]), p) for p in sorted(folder.iterdir()) if p.suffix.lower() in VIDEO_SUFFIXES
            )
