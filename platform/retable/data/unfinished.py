"""A pack in the making: which of its files are whole, and the small files that finish it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from retable import __version__
from retable.data.errors import DatasetError
from retable.data.manifest import Manifest
from retable.data.mirror import Shard
from retable.data.packed import SCHEMA
from retable.data.packlist import CARD, INDEX, LISTING
from retable.data.packtarget import PLAN, Target


def is_finished(target: Target, key: str, place: Path | str) -> bool:
    """Whether the pack is there already.

    Raises:
        DatasetError: something else is.
    """
    card = target.card()
    if card is not None and card.get("key") != key:
        raise DatasetError(f"{place} holds something else, or a pack of other videos: remove it, or choose another")
    return card is not None


class Unfinished:
    """A pack in the making: which of its ``files`` are whole, written down as they become so."""

    def __init__(self, target: Target, key: str) -> None:
        self.target, self._key = target, key
        self.files: dict[str, Shard] = {}
        try:
            plan = json.loads(target.read(PLAN) or b"{}")
        except ValueError:
            plan = {}
        if plan.get("key") == key:
            self.files = {name: Shard(**shard) for name, shard in plan["files"].items()}
        else:
            target.clear()
            self._put_plan()

    def _put_plan(self) -> None:
        files = {name: asdict(shard) for name, shard in self.files.items()}
        self.target.put(PLAN, json.dumps({"key": self._key, "files": files}).encode())

    def has(self, file: str, size: int) -> bool:
        """Whether ``file`` is there, whole."""
        return file in self.files and self.files[file].bytes == self.target.size(file) == size

    @contextlib.contextmanager
    def write(self, file: str) -> Iterator[Callable[[bytes], None]]:
        """Gives a function to write ``file`` with; it is whole at the end, or not there."""
        digest, size = hashlib.sha256(), 0
        with self.target.write(file) as sink:

            def both(content: bytes) -> None:
                nonlocal size
                sink(content)
                digest.update(content)
                size += len(content)

            yield both
        self.files[file] = Shard(size, digest.hexdigest())
        self._put_plan()


def shard_name(shard: int) -> str:
    """The file of a pack with this number."""
    return f"videos-{shard:05d}.bin"


def finish(
    target: Target,
    manifest: Manifest,
    files: Mapping[str, Shard],
    rows: pa.Table,
    key: str,
    *,
    name: str | None = None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """The small files of a pack; the card is last.

    ``name``: the pack's, if not the dataset's; ``more``: what else the card says.
    """
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd")
    target.put(INDEX, buffer.getvalue())
    target.put(LISTING, json.dumps(_listing(manifest)).encode())
    card = {
        "schema": SCHEMA,
        "dataset": name or manifest.name,
        "retable": __version__,
        "key": key,
        "videos": len(rows),
        "bytes": sum(shard.bytes for shard in files.values()),
        "shards": [{"file": file, **asdict(shard)} for file, shard in files.items()],
        **(more or {}),
    }
    target.put(CARD, json.dumps(card, indent=1).encode())


def _listing(manifest: Manifest) -> dict[str, Any]:
    """Every split that can be read, as JSON."""
    splits: dict[str, Any] = {}
    for split in manifest.layout.splits:
        with contextlib.suppress(DatasetError, OSError):
            manifest.items(split)  # refuses a split that a run could not use either
            splits[str(split)] = asdict(manifest.layout.read(manifest.root, split))
    return {"schema": SCHEMA, "splits": splits}
