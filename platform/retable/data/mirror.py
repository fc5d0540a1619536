"""A pack in a bucket as a folder of this node: small files at once, large ones as they are read, verified and bounded.

The folder ``<cache>/packs/<URL's hash>-<card's hash>`` looks like a pack; ``mirror.json`` says where its files are.
One is copied whole when it is first read, checked against the SHA-256 in the card, and kept as long as all mirrors
together are within the bound; what does not fit is read from the bucket by byte range.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retable.data.errors import DatasetError
from retable.data.files import in_turn, left_behind, put
from retable.data.packlist import CARD, INDEX, LISTING
from retable.data.remote import Remote

MIRROR = "mirror.json"
VARIABLE, DEFAULT_GB = "RETABLE_PACK_CACHE_GB", 200.0
"""Bound of all mirrors of a node together."""
RESERVE = 2_000_000_000
"""Bytes of the disk that are left free."""


def cache_folder() -> Path:
    """Where mirrors lie: in ``$RETABLE_CACHE``, else in the home folder."""
    return Path(os.environ.get("RETABLE_CACHE") or Path.home() / ".cache" / "retable") / "packs"


def bound() -> int:
    """Bytes that mirrors may take: ``$RETABLE_PACK_CACHE_GB``, else 200 GB.

    Raises:
        DatasetError: the variable is no number.
    """
    text = os.environ.get(VARIABLE) or str(DEFAULT_GB)
    try:
        return round(float(text) * 1e9)
    except ValueError as error:
        raise DatasetError(f"{VARIABLE} is {text!r}: set it to a number of GB") from error


def mirror(url: str) -> Path:
    """The folder that stands for the pack below ``url``. Without one there, a folder that does not exist.

    Raises:
        DatasetError: the bucket cannot be read.
    """
    url = url.rstrip("/")
    name = hashlib.sha256(url.encode()).hexdigest()[:12]
    try:
        bucket = Remote(url)
        card = bucket.whole(CARD)
        json.loads(card)
        folder = cache_folder() / f"{name}-{hashlib.sha256(card).hexdigest()[:12]}"
        if not (folder / CARD).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            for file in (INDEX, LISTING):
                put(folder / file, bucket.whole(file))
            put(folder / MIRROR, json.dumps({"schema": 1, "url": url}).encode())
            put(folder / CARD, card)  # last: a folder with it is whole
    except FileNotFoundError:
        return cache_folder() / f"{name}-none"
    except (OSError, ValueError) as error:
        raise DatasetError(f"the pack at {url} cannot be read: {error}") from error
    return folder


@dataclass(frozen=True)
class Shard:
    """A large file of a pack, as its card has it."""

    bytes: int
    sha256: str


class Keeper:
    """The large files of one mirror: which are here, and getting those that are not."""

    def __init__(self, folder: Path, shards: Mapping[str, Shard]) -> None:
        self.folder = folder
        self.bucket = Remote(str(json.loads((folder / MIRROR).read_text(encoding="utf-8"))["url"]))
        self._shards = shards
        self._passed: set[str] = set()

    def has(self, file: str) -> bool:
        """Whether ``file`` is here, whole and verified; it is fetched if there is room and nobody else is at it.

        Raises:
            OSError: it cannot be fetched, or is not what was packed.
        """
        if (self.folder / file).is_file():
            return True
        if file in self._passed:
            return False
        with _if_free(self.folder / f"{file}.lock") as mine:
            if not mine:
                return False  # somebody fetches it: this read goes to the bucket, a later one finds it here
            return (self.folder / file).is_file() or self._got(file, self._shards[file])

    def _got(self, file: str, shard: Shard) -> bool:
        """Whether there was room for ``file``, and it is here now."""
        temporary = self.folder / f"{file}.{socket.gethostname()}.{os.getpid()}.tmp"
        try:
            if not self._make_room(shard.bytes, temporary):
                self._passed.add(file)
                return False
            self.bucket.fetch(file, shard.bytes, temporary)
            with temporary.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
            if digest != shard.sha256:
                place = f"{self.bucket.url}/{file}"
                raise OSError(f"{place} is not what was packed (SHA-256 {digest[:12]}...): send it again")
            temporary.replace(self.folder / file)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._passed.add(file)  # something else has filled the disk
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _make_room(self, needed: int, temporary: Path) -> bool:
        """Whether ``needed`` bytes fit; they are ``temporary``'s then. Files of other packs make room, the longest
        unread first. Files that other processes are fetching count as if they were here."""
        packs = self.folder.parent
        with in_turn(packs / "room.lock"):
            for left in packs.glob("*/*.tmp"):
                if left_behind(left.name):
                    left.unlink(missing_ok=True)
            coming = _states(packs.glob("*/*.tmp")).values()
            kept = _states(packs.glob("*/videos-*.bin"))
            taken = sum(state.st_size for state in (*coming, *kept.values()))
            unwritten = sum(max(0, state.st_size - 512 * state.st_blocks) for state in coming)
            others = sorted((f for f in kept if f.parent != self.folder), key=lambda file: kept[file].st_atime)
            while taken + needed > bound() or shutil.disk_usage(self.folder).free < unwritten + needed + RESERVE:
                if not others:
                    return False
                taken -= kept[others[0]].st_size
                others.pop(0).unlink(missing_ok=True)
            with temporary.open("wb") as opened:
                opened.truncate(needed)
        return True


def _states(files: Iterable[Path]) -> dict[Path, os.stat_result]:
    """Sizes and times of the files that are there: another process may remove one at any time."""
    found = {}
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            found[file] = file.stat()
    return found


@contextlib.contextmanager
def _if_free(lock: Path) -> Iterator[bool]:
    """Whether this process has the lock; nobody waits."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks: several may fetch, each in a file of its own
            pass
        yield True


def shards_of(card: Mapping[str, Any]) -> dict[str, Shard]:
    """The large files that a card names."""
    return {shard["file"]: Shard(shard["bytes"], shard["sha256"]) for shard in card["shards"]}
