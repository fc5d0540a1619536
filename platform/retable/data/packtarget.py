"""Where a pack is written: a folder that appears when it is whole, or a bucket. Files are whole or not there, and those
of a broken-off pack of the same content are kept."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from retable.data.errors import DatasetError, DiskFull
from retable.data.files import alone, put
from retable.data.packlist import CARD
from retable.data.remote import Remote

PLAN = "plan.json"
"""What a pack that is not finished will be: its key, and the SHA-256 of the files that are whole."""


class Target(Protocol):
    """A place for a pack."""

    def card(self) -> dict[str, Any] | None:
        """The card of the finished pack that is there, if one is; DatasetError if something else is."""

    def size(self, file: str) -> int | None:
        """Bytes of a file of the unfinished pack; None if it is not there."""

    def read(self, file: str) -> bytes | None:
        """A small file of the unfinished pack; None if it is not there."""

    def put(self, file: str, content: bytes) -> None:
        """Write a small file."""

    def write(self, file: str) -> contextlib.AbstractContextManager[Callable[[bytes], object]]:
        """Gives a function to write with. The file appears at the end, unless there was an error."""

    def clear(self) -> None:
        """Remove all that is there of an unfinished pack."""

    def free(self) -> int | None:
        """Bytes that may still be written; None where nobody knows."""

    def working(self) -> contextlib.AbstractContextManager[None]:
        """While the pack is written: alone, where that can be had. At its end the pack is whole."""


@dataclass(frozen=True)
class FolderTarget:
    """A folder. It is filled beside its place and then moved there."""

    folder: Path
    command: str = "retable data pack"

    @property
    def partial(self) -> Path:
        """The unfinished pack."""
        return self.folder.with_name(f"{self.folder.name}.partial")

    def card(self) -> dict[str, Any] | None:
        if not self.folder.exists() or not any(self.folder.iterdir()):
            return None
        try:
            found: dict[str, Any] = json.loads((self.folder / CARD).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DatasetError(f"{self.folder} holds something else: remove it, or choose another") from error
        return found

    def size(self, file: str) -> int | None:
        try:
            return (self.partial / file).stat().st_size
        except OSError:
            return None

    def read(self, file: str) -> bytes | None:
        try:
            return (self.partial / file).read_bytes()
        except OSError:
            return None

    def put(self, file: str, content: bytes) -> None:
        put(self.partial / file, content)

    @contextlib.contextmanager
    def write(self, file: str) -> Iterator[Callable[[bytes], object]]:
        temporary, target = self.partial / f"{file}.tmp", self.partial / file
        try:
            with temporary.open("wb") as opened:
                yield opened.write
                opened.flush()
                os.fsync(opened.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def clear(self) -> None:
        for file in self.partial.iterdir():
            shutil.rmtree(file) if file.is_dir() else file.unlink()

    def free(self) -> int | None:
        return shutil.disk_usage(self.partial).free

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with alone(self.partial, self.command):
            if self.card() is not None:
                raise DatasetError(f"{self.folder}: another {self.command} has just made it; run the command again")
            self.partial.mkdir(exist_ok=True)
            yield
            if self.folder.is_dir():
                self.folder.rmdir()
            self.partial.rename(self.folder)
            (self.folder / PLAN).unlink(missing_ok=True)


@dataclass(frozen=True)
class BucketTarget:
    """Objects below a bucket's URL. A large file is made on this machine's temporary disk and then sent whole.

    Several that write the same pack write the same bytes; a pack of other content is refused.
    """

    bucket: Remote

    def card(self) -> dict[str, Any] | None:
        content = self.read(CARD)
        if content is not None:
            with contextlib.suppress(ValueError):
                found: dict[str, Any] = json.loads(content)
                return found
        if content is not None or (self.read(PLAN) is None and self.bucket.names()):
            raise DatasetError(f"{self.bucket.url} holds something else: remove it, or choose another")
        return None

    def size(self, file: str) -> int | None:
        return self.bucket.size(file)

    def read(self, file: str) -> bytes | None:
        try:
            return self.bucket.whole(file)
        except FileNotFoundError:
            return None

    def put(self, file: str, content: bytes) -> None:
        self.bucket.put(file, content)

    @contextlib.contextmanager
    def write(self, file: str) -> Iterator[Callable[[bytes], object]]:
        with tempfile.NamedTemporaryFile(prefix="retable-pack-") as opened:
            yield opened.write
            opened.flush()
            self.bucket.put(file, Path(opened.name))

    def clear(self) -> None:
        if self.bucket.names():
            url = self.bucket.url
            raise DatasetError(f"{url} holds an unfinished pack of other videos: remove it, or choose another")

    def free(self) -> int | None:
        return None

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        yield
        self.bucket.remove(PLAN)


def target_of(place: Path | str, command: str) -> Target:
    """The folder or URL ``place``."""
    text = str(place)
    return BucketTarget(Remote(text)) if "://" in text else FolderTarget(Path(place), command)


@contextlib.contextmanager
def errors_of(place: Path | str, needed: int, what: str) -> Iterator[None]:
    """What goes wrong with disk and network while ``what`` is written, in words.

    Raises:
        DiskFull, DatasetError: instead of OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            folder = Path(place).parent if "://" not in str(place) else tempfile.gettempdir()
            raise DiskFull(folder, needed, what) from error
        raise DatasetError(f"cannot write {what} to {place}: {error}; choose another place with --out") from error
