"""Something-Something V2: 174 templates such as "Pushing [something] from left to right"; WebM videos by number.

The test labels are not public: papers report on the validation set, which is our test subset.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from retable.data.errors import DatasetError
from retable.data.layouts import FlipRule, Item, Listing, Subset, find_folder, read_text

_T = TypeVar("_T")
NUM_CLASSES = 174
SPLITS = (1,)
COUNTS: dict[int, dict[Subset, int]] = {1: {"train": 168_913, "test": 24_777}}
TOTAL = 220_847
TREE = (
    "<folder>/{20bn-something-something-v2|videos}/<id>.webm"
    " and <folder>/{labels|annotations}/{labels,train,validation}.json (or with the prefix something-something-v2-)"
)
_SUBSETS: tuple[tuple[Subset, str], ...] = (("train", "train"), ("test", "validation"))


class _Video(TypedDict):
    id: str


class _Labelled(_Video):
    template: str


def read(root: Path, split: int) -> Listing:
    """All training and validation videos; classes in the order of the labels file. A video is its own group.

    Raises:
        DatasetError: a folder or file is missing, or a template is not among the labels.
    """
    del split
    videos = find_folder(root, ("20bn-something-something-v2", "videos"), "Something-Something V2 videos")
    lists = find_folder(root, ("labels", "annotations"), "Something-Something V2 labels")
    numbers = _load(lists, "labels", dict[str, int])
    classes = tuple(sorted(numbers, key=lambda name: numbers[name]))
    index = {name: label for label, name in enumerate(classes)}
    items: list[Item] = []
    for subset, name in _SUBSETS:
        for entry in _load(lists, name, list[_Labelled]):
            template = entry["template"].replace("[", "").replace("]", "")
            if template not in index:
                raise DatasetError(f"{lists}: template {template!r} of video {entry['id']} is not among the labels")
            path = (videos.relative_to(root) / f"{entry['id']}.webm").as_posix()
            items.append(Item(path, index[template], template, subset, entry["id"]))
    unlabelled = _load(lists, "test", list[_Video]) if _find(lists, "test") else []
    unused = tuple((videos.relative_to(root) / f"{entry['id']}.webm").as_posix() for entry in unlabelled)
    return Listing(classes, tuple(items), unused=unused)


def flip(classes: tuple[str, ...]) -> FlipRule:
    """A mirror swaps templates that differ only by left and right."""
    return tuple((name, _mirrored(name)) for name in classes if name < _mirrored(name) and _mirrored(name) in classes)


def _mirrored(name: str) -> str:
    return " ".join({"left": "right", "right": "left"}.get(word, word) for word in name.split(" "))


def _places(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.json", folder / f"something-something-v2-{name}.json"


def _find(folder: Path, name: str) -> Path | None:
    return next((place for place in _places(folder, name) if place.is_file()), None)


def _load(folder: Path, name: str, kind: type[_T]) -> _T:
    path = _find(folder, name)
    if path is None:
        raise DatasetError(f"list file is missing: looked for {' and '.join(map(str, _places(folder, name)))}")
    try:
        return TypeAdapter(kind).validate_json(read_text(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"[{part!r}]" for part in first["loc"])
        raise DatasetError(f"{path}{place}: {first['msg']}") from error
