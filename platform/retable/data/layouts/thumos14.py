"""THUMOS 2014, recognition task: train on the trimmed videos of UCF101, test on untrimmed videos of the same classes.

A test video carries one or several labels, or none (background). Split 1 is the published test set; its score is mean
average precision over label sets, never the accuracy of one label. Split 2 tests on the videos with exactly one label.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retable.data.errors import DatasetError
from retable.data.layouts import VIDEO_SUFFIXES, FlipRule, Item, Listing, Subset, find_folder, read_lines

NUM_CLASSES = 101
SPLITS = (1, 2)
COUNTS: dict[int, dict[Subset, int]] = {1: {"train": 13_320, "test": 1574}}
TREE = (
    "<folder>/{UCF-101|UCF101|training}/<Class>/v_<Class>_gXX_cYY.avi,"
    " <folder>/{test|TH14_test_set_mp4}/video_test_*.mp4 and <folder>/[annotations/]{classInd.txt,test_set_meta.mat}"
)


def read(root: Path, split: int) -> Listing:
    """Trimmed videos as train, untrimmed test videos as test; those in ``validation/`` are unused.

    Raises:
        DatasetError: a folder or file is missing, the annotation file cannot be read, or a label is unknown.
    """
    trimmed = find_folder(root, ("UCF-101", "UCF101", "training"), "THUMOS14 trimmed videos (UCF101)")
    untrimmed = find_folder(root, ("test", "TH14_test_set_mp4"), "THUMOS14 test videos")
    classes = _classes(_file(root, "classInd.txt"))
    items = [
        Item(path.relative_to(root).as_posix(), label, name, "train", path.stem.rpartition("_")[0])
        for label, name in enumerate(classes)
        for path in sorted((trimmed / name).glob("*"))
        if path.suffix.lower() in VIDEO_SUFFIXES
    ]
    unused: list[str] = []
    for name, labels in _labels(_file(root, "test_set_meta.mat"), len(classes)).items():
        path = (untrimmed.relative_to(root) / f"{name}.mp4").as_posix()
        if split == 2 and len(labels) != 1:
            unused.append(path)
        else:
            label, class_name = (labels[0], classes[labels[0]]) if labels else (-1, "")
            items.append(Item(path, label, class_name, "test", name, labels))
    unused += [path.relative_to(root).as_posix() for path in sorted((root / "validation").glob("*.mp4"))]
    return Listing(classes, tuple(items), unused=tuple(unused))


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


def _labels(path: Path, classes: int) -> dict[str, tuple[int, ...]]:
    """Labels of every test video, from 0, the primary one first; none for a background video."""
    from scipy.io import loadmat  # not at the top: planning imports layouts and must stay light

    try:
        videos: Any = loadmat(path, squeeze_me=True, struct_as_record=False)["test_videos"]
        found = {Path(str(video.video_name)).stem: _numbers(video) for video in videos}
    except (KeyError, AttributeError, TypeError, ValueError, NotImplementedError, OSError) as error:
        raise DatasetError(f"{path}: not the annotation file of THUMOS14's test set: {error!r}") from error
    for name, numbers in found.items():
        if any(not 1 <= number <= classes for number in numbers):
            raise DatasetError(f"{path}: video {name} has class numbers {list(numbers)}, beyond 1 to {classes}")
    return {name: tuple(number - 1 for number in numbers) for name, numbers in found.items()}


def _numbers(video: Any) -> tuple[int, ...]:
    import numpy as np

    if str(video.background_video).upper() == "YES":
        return ()
    others = [number for number in np.atleast_1d(video.secondary_actions_indices).ravel().tolist() if number != ""]
    return tuple(dict.fromkeys(int(number) for number in [video.primary_action_index, *others]))


def _file(root: Path, name: str) -> Path:
    places = [root / name, root / "annotations" / name, root / "ucfTrainTestlist" / name]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise DatasetError(f"THUMOS14: looked for {' and '.join(map(str, places))}: none is a file")
    return path
