"""A pack as a dataset folder: its videos, labels and splits without any video file. Light: no decoder is imported."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retable.data.errors import DatasetError
from retable.data.layouts import Item, Layout, Listing
from retable.data.tier import proxy_of

CARD, LISTING, INDEX = "pack.json", "listing.json", "index.parquet"
"""The small files of a pack; the card is written last, so it says that a pack is whole."""


@dataclass(frozen=True)
class PackedLayout(Layout):
    """The layout of the dataset that was packed, with the lists as they were then."""

    listings: dict[int, Listing] = field(default_factory=dict, compare=False, repr=False)

    @property
    def splits(self) -> tuple[int, ...]:
        return tuple(sorted(self.listings))

    @property
    def read(self) -> Callable[[Path, int], Listing]:
        return lambda root, split: self.listings[split]


def is_pack(place: Path | str) -> bool:
    """Whether a local folder holds a finished pack."""
    return (Path(place) / CARD).is_file()


def packed_layout(layout: Layout, dataset: str, folder: Path) -> PackedLayout:
    """``layout`` as the pack in ``folder`` has it.

    Raises:
        DatasetError: the pack is of another dataset, or a file of it cannot be read.
    """
    card, listing = (_json(folder / name) for name in (CARD, LISTING))
    if card.get("dataset") != dataset:
        raise DatasetError(f"{folder} is a pack of {card.get('dataset')}, not of {dataset}")
    if ("proxy" in card) != (proxy_of(dataset) is not None):
        raise DatasetError(f"{folder}: a proxy is called <dataset>-proxy<short side>-gop<frames>, and only a proxy is")
    splits = {int(split): _listing(value) for split, value in listing["splits"].items()}
    return PackedLayout(layout.name, layout.module, splits)


def packed_contents(folder: Path) -> Mapping[str, str]:
    """SHA-256 of the video files that were packed, by path."""
    import pyarrow.parquet as pq  # planning without a pack does not pay for it

    rows = pq.read_table(folder / INDEX, columns=["path", "content"], use_threads=False, pre_buffer=False)
    return dict(zip(rows.column("path").to_pylist(), rows.column("content").to_pylist(), strict=True))


def _json(file: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file} of a pack cannot be read: {error}") from error
    return value


def _listing(value: dict[str, Any]) -> Listing:
    items = tuple(Item(**{**item, "labels": _tuple(item["labels"])}) for item in value["items"])
    return Listing(tuple(value["classes"]), items, tuple(value["absent"]), tuple(value["unused"]))


def _tuple(labels: list[int] | None) -> tuple[int, ...] | None:
    return None if labels is None else tuple(labels)
