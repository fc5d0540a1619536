"""How datasets lie on disk. One file per dataset; the file's name is the dataset's name.

A layout file exports::

    NUM_CLASSES: int | None                       # None: depends on the variant, see num_classes(dataset)
    SPLITS: tuple[int, ...]                       # official splits, and RANDOM_SPLITS where papers draw their own
    TREE: str                                     # the expected tree, one line, for error messages
    read(root: Path, split: int) -> Listing       # reads lists and folder entries only, never video content
    flip(classes: tuple[str, ...]) -> FlipRule    # what a horizontal mirror does to the labels
    COUNTS: dict[int, dict[Subset, int]]          # optional, published numbers of videos: by split, by subset
    TOTAL: int                                    # optional, published number of videos, unused ones included
    num_classes(dataset: str) -> int | None       # optional, for layouts that serve several datasets
    generate_command(dataset: str) -> str | None  # optional, how to make the dataset when it is missing

A dataset called ``X`` or ``X-anything`` has layout file ``X``; dashes and underscores are the same, the longest match
wins: ``motions-ucf101`` has layout ``motions``, ``something_v2`` has ``something_v2``.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Literal

from retable.data.errors import DatasetError
from retable.data.tier import proxy_command, proxy_of, source_of

Subset = Literal["train", "val", "test"]
FlipRule = Literal["ok", "never"] | tuple[tuple[str, str], ...]
"""``ok``: labels stay; ``never``: mirroring is not allowed; pairs of class names: mirroring swaps these labels."""

RANDOM_SPLITS = (701, 702, 703)
"""Split numbers of three random 70/30 draws, see :func:`random_split`."""

VIDEO_SUFFIXES = frozenset({".avi", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
IMAGE_SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})


@dataclass(frozen=True, order=True)
class Item:
    """One video: a file, or a folder of numbered images.

    ``path`` is relative to the dataset's folder, posix form; ``group`` is what a hold-out must not cut. ``labels``: all
    labels of a video in a set where videos carry none or several, else None; ``label`` is the first (-1: none).
    """

    path: str
    label: int
    class_name: str
    subset: Subset
    group: str
    labels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Listing:
    """One split as listed.

    ``absent``: names of listed videos not on disk, where the layout allows that (Kinetics). ``unused``: paths of videos
    that belong to the dataset, but not to this split (test videos without public labels, for one); may not be on disk.
    """

    classes: tuple[str, ...]
    items: tuple[Item, ...]
    absent: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """One loaded layout file."""

    name: str
    module: ModuleType

    @property
    def splits(self) -> tuple[int, ...]:
        return tuple(self.module.SPLITS)

    @property
    def counts(self) -> dict[int, dict[Subset, int]]:
        """Published numbers of videos by split and subset, for the splits that have any."""
        return dict(getattr(self.module, "COUNTS", {}))

    @property
    def total(self) -> int | None:
        """Published number of videos, unused ones included; None when it is not known."""
        return getattr(self.module, "TOTAL", None)

    @property
    def tree(self) -> str:
        return str(self.module.TREE)

    @property
    def read(self) -> Callable[[Path, int], Listing]:
        return self.module.read  # type: ignore[no-any-return]

    @property
    def flip(self) -> Callable[[tuple[str, ...]], FlipRule]:
        return self.module.flip  # type: ignore[no-any-return]

    def num_classes(self, dataset: str) -> int | None:
        """Number of classes of ``dataset``, known without its files; None when only the files can tell."""
        if hasattr(self.module, "num_classes"):
            return self.module.num_classes(source_of(dataset))  # type: ignore[no-any-return]
        return self.module.NUM_CLASSES  # type: ignore[no-any-return]

    def generate_command(self, dataset: str) -> str | None:
        """The shell command that makes ``dataset``; None for datasets that have to be downloaded."""
        if proxy_of(dataset) is not None:
            return proxy_command(dataset)
        make = getattr(self.module, "generate_command", None)
        return make(dataset) if make is not None else None


class UnknownDatasetError(LookupError):
    """No layout file serves this dataset name. The message lists the nearest names."""


def names() -> list[str]:
    """Names of all layout files."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def layout_of(dataset: str) -> Layout:
    """The layout that serves ``dataset``.

    Raises:
        UnknownDatasetError: no layout file has this name or a prefix of it.
    """
    wanted = dataset.replace("-", "_").lower()
    fits = [n for n in names() if wanted == n or wanted.startswith(f"{n}_")]
    if not fits:
        near = difflib.get_close_matches(wanted, names(), n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"layouts: {', '.join(names())} (X or X-anything)"
        raise UnknownDatasetError(f"no dataset layout serves {dataset!r}; {hint}")
    name = max(fits, key=len)
    return Layout(name, importlib.import_module(f"{__name__}.{name}"))


def num_classes(dataset: str) -> int | None:
    """Number of classes of ``dataset`` as its layout declares it, without looking at any file."""
    return layout_of(dataset).num_classes(dataset)


def find_folder(root: Path, candidates: tuple[str, ...], what: str) -> Path:
    """The first of ``candidates`` that is a folder under ``root``.

    Raises:
        DatasetError: none is; the message names all of them.
    """
    for name in candidates:
        if (root / name).is_dir():
            return root / name
    raise DatasetError(f"{what}: none of {', '.join(candidates)} is a folder in {root}")


def read_text(path: Path) -> str:
    """A list file's text; a byte order mark, which spreadsheets write, is not part of it.

    Raises:
        DatasetError: it is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DatasetError(
            f"{path}:{line}: not UTF-8 (byte 0x{error.object[error.start]:02x}): save it as that"
        ) from error


def read_lines(path: Path) -> list[str]:
    """Non-empty lines of a list file, stripped.

    Raises:
        DatasetError: the file is not there, or not UTF-8.
    """
    if not path.is_file():
        raise DatasetError(f"list file {path} is missing")
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def random_split(items: Iterable[Item], split: int, share: float = 0.7) -> tuple[Item, ...]:
    """``items`` dealt anew: ``share`` of each class (rounded, at least one video a side) to train, the rest to test.

    The draw is seeded by the split number and depends on class and file names only, not on the order of ``items``, on
    file types, or on where the dataset lies. It cuts through groups: test videos may show the same scene as training
    videos.
    """

    def rank(item: Item) -> bytes:
        name = "/".join(Path(item.path).with_suffix("").parts[-2:])
        return hashlib.sha256(f"{split}:{item.class_name}:{name}".encode()).digest()

    classes: dict[int, list[Item]] = {}
    for item in sorted(items, key=rank):
        classes.setdefault(item.label, []).append(item)
    dealt: list[Item] = []
    for members in classes.values():
        count = min(max(1, round(share * len(members))), len(members) - 1)
        dealt += [replace(item, subset="train" if k < count else "test") for k, item in enumerate(members)]
    return tuple(dealt)
