"""THUMOS 2014, recognition task: train on the trimmed videos of UCF101, test on untrimmed videos of the same classes.

An untrimmed video carries one or several labels, or none (background). Split 1 is the published test set; its score is
mean average precision over label sets, never the accuracy of one label. Split 2 tests on those of its videos that have
exactly one label. Split 3 tests on the validation set. Split 4 is split 1, trained also on the validation videos that
have exactly one label.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retable.data.errors import DatasetError
from retable.data.layouts import VIDEO_SUFFIXES, FlipRule, Item, Listing, Subset, find_folder, read_lines

NUM_CLASSES = 101
SPLITS = (1, 2, 3, 4)
COUNTS: dict[int, dict[Subset, int]] = {
    1: {"train": 13_320, "test": 1574},
    3: {"train": 13_320, "test": 1010},
    4: {"test": 1574},
}
TREE = (
    "<folder>/{UCF-101|UCF101|training}/<Class>/v_<Class>_gXX_cYY.avi,"
    " <folder>/{test|TH14_test_set_mp4}/video_test_*.mp4 and <folder>/[annotations/]{classInd.txt,test_set_meta.mat};"
    " for splits 3 and 4 also <folder>/{validation|TH14_validation_set_mp4}/video_validation_*.mp4 and"
    " <folder>/[annotations/|validation_set_meta/]validation_set.mat"
)
TRIMMED = ("UCF-101", "UCF101", "training")
UNTRIMMED = {"test": ("test", "TH14_test_set_mp4"), "validation": ("validation", "TH14_validation_set_mp4")}
_SETS = {"test": ("test_set_meta.mat", "test_videos"), "validation": ("validation_set.mat", "validation_videos")}


def read(root: Path, split: int) -> Listing:
    """Trimmed videos as train, untrimmed ones as test; those of the other untrimmed set are unused, or train (split 4).

    Raises:
        DatasetError: a folder or file is missing, an annotation file cannot be read, or a label is unknown.
    """
    classes = _classes(_file(root, "classInd.txt"))
    items, unused = trimmed(root, classes), list[str]()
    scored, other = ("validation", "test") if split == 3 else ("test", "validation")
    for path, labels in _labelled(root, scored, len(classes)):
        if split == 2 and len(labels) != 1:
            unused.append(path)
        else:
            label, class_name = (labels[0], classes[labels[0]]) if labels else (-1, "")
            items.append(Item(path, label, class_name, "test", Path(path).stem, labels))
    if split == 4:
        for path, labels in _labelled(root, other, len(classes)):
            if len(labels) == 1:
                items.append(Item(path, labels[0], classes[labels[0]], "train", Path(path).stem))
            else:
                unused.append(path)
    else:
        unused += on_disk(root, other)
    return Listing(classes, tuple(items), unused=tuple(unused))


def trimmed(root: Path, classes: tuple[str, ...]) -> list[Item]:
    """UCF101's videos of these classes, all to train on.

    Raises:
        DatasetError: there is no folder of them.
    """
    folder = find_folder(root, TRIMMED, "THUMOS14 trimmed videos (UCF101)")
    return [
        Item(path.relative_to(root).as_posix(), label, name, "train", path.stem.rpartition("_")[0])
        for label, name in enumerate(classes)
        for path in sorted((folder / name).glob("*"))
        if path.suffix.lower() in VIDEO_SUFFIXES
    ]


def untrimmed(root: Path, which: str) -> Path:
    """The folder of the ``test`` or ``validation`` videos.

    Raises:
        DatasetError: there is none.
    """
    return find_folder(root, UNTRIMMED[which], f"THUMOS14 {which} videos")


def on_disk(root: Path, which: str) -> list[str]:
    """Paths of the untrimmed videos of one set that are there, sorted."""
    files = (path for folder in UNTRIMMED[which] for path in (root / folder).glob("*.mp4"))
    return sorted(path.relative_to(root).as_posix() for path in files)


def flip(classes: tuple[str, ...]) -> FlipRule:
    """Mirroring keeps every class."""
    del classes
    return "ok"


def _classes(path: Path) -> tuple[str, ...]:
    """Names in the order of their numbers, which must be 1, 2, ... (lines ``<number> <Class>``)."""
    pairs = [line.split() for line in read_lines(path)]
    if [pair[0] for pair in pairs] != [str(k) for k in range(1, len(pairs) + 1)] or any(len(p) != 2 for p in pairs):
        raise DatasetError(f"{path}: lines must be '<number> <Class>', numbered 1 to {len(pairs)} in order")
    return tuple(name for _, name in pairs)


def _labelled(root: Path, which: str, classes: int) -> list[tuple[str, tuple[int, ...]]]:
    """Paths of the videos of one set, as listed, with their labels."""
    name, struct = _SETS[which]
    folder = untrimmed(root, which).relative_to(root)
    found = _labels(_file(root, name), struct, classes)
    return [((folder / f"{video}.mp4").as_posix(), labels) for video, labels in found.items()]


def _labels(path: Path, struct: str, classes: int) -> dict[str, tuple[int, ...]]:
    """Labels of every video, from 0, the primary one first; none for a background video."""
    from scipy.io import loadmat  # not at the top: planning imports layouts and must stay light

    try:
        videos: Any = loadmat(path, squeeze_me=True, struct_as_record=False)[struct]
        found = {Path(str(video.video_name)).stem: _numbers(video) for video in videos}
    except Exception as error:  # SciPy, zlib and what is made of their answer each have their own way to fail
        raise DatasetError(f"{path}: not the annotation file of a set of THUMOS14: {error!r}") from error
    for name, numbers in found.items():
        if any(not 1 <= number <= classes for number in numbers):
            raise DatasetError(f"{path}: video {name} has class numbers {list(numbers)}, beyond 1 to {classes}")
    return {name: tuple(number - 1 for number in numbers) for name, numbers in found.items()}


def _numbers(video: Any) -> tuple[int, ...]:
    import numpy as np

    if str(getattr(video, "background_video", "NO")).upper() == "YES":  # the validation set has no background
        return ()
    others = [number for number in np.atleast_1d(video.secondary_actions_indices).ravel().tolist() if number != ""]
    return tuple(dict.fromkeys(int(number) for number in [video.primary_action_index, *others]))


def _file(root: Path, name: str) -> Path:
    folders = (".", "annotations", "ucfTrainTestlist", "validation_set_meta")
    places = [root / folder / name for folder in folders]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise DatasetError(f"THUMOS14: looked for {' and '.join(map(str, places))}: none is a file")
    return path
