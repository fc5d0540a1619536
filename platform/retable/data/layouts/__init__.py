"""How datasets lie on disk. One file per dataset; the file's name is the dataset's name.

A layout file exports::

    NUM_CLASSES: int | None                       # None: depends on the variant, see num_classes(dataset)
    SPLITS: tuple[int, ...]                       # official splits
    TREE: str                                     # the expected tree, one line, for error messages
    read(root: Path, split: int) -> Listing       # reads lists and folder entries only, never video content
    flip(classes: tuple[str, ...]) -> FlipRule    # what a horizontal mirror does to the labels
    num_classes(dataset: str) -> int | None       # optional, for layouts that serve several datasets
    generate_command(dataset: str) -> str | None  # optional, how to make the dataset when it is missing

A dataset called ``X`` or ``X-anything`` has layout file ``X``; dashes and underscores are the same, the longest match
wins: ``motions-ucf101`` has layout ``motions``, ``something_v2`` has ``something_v2``.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from retable.data.errors import DatasetError

Subset = Literal["train", "val", "test"]
FlipRule = Literal["ok", "never"] | tuple[tuple[str, str], ...]
"""``ok``: labels stay; ``never``: mirroring is not allowed; pairs of class names: mirroring swaps these labels."""


@dataclass(frozen=True, order=True)
class Item:
    """One video: ``path`` relative to the dataset's folder, posix form; ``group`` is what a hold-out must not cut."""

    path: str
    label: int
    class_name: str
    subset: Subset
    group: str


@dataclass(frozen=True)
class Listing:
    """One split as listed. ``vanished``: listed videos not on disk, where the layout allows that (Kinetics)."""

    classes: tuple[str, ...]
    items: tuple[Item, ...]
    vanished: int = 0


@dataclass(frozen=True)
class Layout:
    """One loaded layout file."""

    name: str
    module: ModuleType

    @property
    def splits(self) -> tuple[int, ...]:
        return tuple(self.module.SPLITS)

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
            return self.module.num_classes(dataset)  # type: ignore[no-any-return]
        return self.module.NUM_CLASSES  # type: ignore[no-any-return]

    def generate_command(self, dataset: str) -> str | None:
        """The shell command that makes ``dataset``; None for datasets that have to be downloaded."""
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


def read_lines(path: Path) -> list[str]:
    """Non-empty lines of a list file, stripped.

    Raises:
        DatasetError: the file is not there.
    """
    if not path.is_file():
        raise DatasetError(f"list file {path} is missing")
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
