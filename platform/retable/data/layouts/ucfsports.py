"""UCF Sports: 150 broadcast clips of 10 actions; each lies in a numbered folder, as images, as an AVI, or as both.

The archive has 13 action folders, as it tells viewpoints apart: ``Golf-Swing-Back`` and ``Golf-Swing-Front`` are one
class. Split 1 tests on the first third of every class (Lan, Wang and Mori, ICCV 2011: 103 / 47).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from retable.data.errors import DatasetError
from retable.data.layouts import (
    IMAGE_SUFFIXES,
    RANDOM_SPLITS,
    VIDEO_SUFFIXES,
    FlipRule,
    Item,
    Listing,
    Subset,
    find_folder,
    random_split,
)

NUM_CLASSES = 10
SPLITS = (1, *RANDOM_SPLITS)
COUNTS: dict[int, dict[Subset, int]] = {1: {"train": 103, "test": 47}}
TOTAL = 150
TREE = "<folder>/{ucf_sports_actions/ucf action|ucf action|videos}/<Class>[-<View>]/<nnn>/{*.jpg|*.avi}"
CLASSES = (
    "Diving",
    "Golf-Swing",
    "Kicking",
    "Lifting",
    "Riding-Horse",
    "Run",
    "SkateBoarding",
    "Swing-Bench",
    "Swing-Side",
    "Walk",
)


def read(root: Path, split: int) -> Listing:
    """Videos of one split: a folder's images if it has any, else its video file.

    Raises:
        DatasetError: the action folders are missing, one has an unknown name, or a clip's folder holds no video.
    """
    top = find_folder(root, ("ucf_sports_actions/ucf action", "ucf action", "videos"), "UCF Sports videos")
    videos: dict[int, list[tuple[Path, str]]] = {label: [] for label in range(NUM_CLASSES)}
    for folder in sorted(path for path in top.iterdir() if path.is_dir()):
        videos[_label(folder)] += [_video(clip) for clip in sorted(folder.iterdir()) if clip.is_dir()]
    items = list(_items(root, videos))
    return Listing(CLASSES, random_split(items, split) if split in RANDOM_SPLITS else tuple(items))


def flip(classes: tuple[str, ...]) -> FlipRule:
    """Mirroring keeps every class."""
    del classes
    return "ok"


def _items(root: Path, videos: dict[int, list[tuple[Path, str]]]) -> Iterator[Item]:
    for label, found in videos.items():
        for place, (path, source) in enumerate(found):
            subset: Subset = "test" if place < len(found) // 3 else "train"
            yield Item(path.relative_to(root).as_posix(), label, CLASSES[label], subset, source)


def _label(folder: Path) -> int:
    for label, name in enumerate(CLASSES):
        if folder.name.lower().startswith(name.lower()):
            return label
    raise DatasetError(f"UCF Sports: folder {folder} is none of the classes {', '.join(CLASSES)}")


def _video(clip: Path) -> tuple[Path, str]:
    """Where the pictures of a clip are, and the tape it was cut from: file names are ``<tape>_<frame>``."""
    files = sorted(path for path in clip.iterdir() if path.is_file())
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    movies = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    if not images and len(movies) != 1:
        raise DatasetError(f"UCF Sports: {clip} holds no image and {len(movies)} video files; images or one video")
    tape, found, _ = (images or movies)[0].stem.rpartition("_")
    return clip if images else movies[0], tape if found else f"{clip.parent.name}-{clip.name}"
