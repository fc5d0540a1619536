"""Objects by name, put as a whole: in a folder, or below a bucket's prefix. What they mean is not known here.

A name is created exclusively on every kind of store: by a hard link in a folder, by a conditional put
(``If-None-Match`` and its kin) in a bucket. Stores that cannot do that are not offered: two drivers would train the
same run there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import obstore

from retable.buckets import BUCKETS, connect, explained, scheme_of


class Objects(Protocol):
    """A store of named bytes. Every method raises OSError when the store cannot be reached, read or written."""

    url: str
    root: str

    def exists(self, name: str) -> bool: ...

    def get(self, name: str) -> bytes | None:
        """An object's bytes, or None where there is none."""

    def put(self, name: str, data: bytes) -> None:
        """Write as a whole: readers see the old bytes or the new ones."""

    def put_new(self, name: str, data: bytes) -> bool:
        """Write unless there is one already; False if there is. Atomic against other writers."""

    def delete(self, name: str) -> None:
        """Remove it if it is there."""

    def names(self, folder: str) -> list[str]:
        """Last parts of the names of objects and folders in ``folder``; none if there is no such folder."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of every object below ``folder``, by name."""


def open_objects(place: str) -> Objects:
    """A folder by path or ``file://`` URL, or what lies below ``s3://bucket/prefix``, ``gs://...``, ``az://...``.

    Raises:
        ValueError: another kind of URL, or one without a bucket.
    """
    scheme = scheme_of(place)
    if scheme is None or scheme == "file":
        return Folder(Path(place.removeprefix("file://")).absolute())
    if scheme not in BUCKETS:
        offered = ", ".join(f"{name}://" for name in BUCKETS if name != "memory")
        raise ValueError(f"storage {place}: {scheme}:// cannot keep runs; a folder or one of {offered} can")
    if scheme != "memory" and not re.match(r"[a-z0-9+.-]+://[^/]+", place):
        raise ValueError(f"storage {place} names no bucket: write {scheme}://bucket/folder")
    return Bucket(place.rstrip("/"))


class Folder:
    """A folder of this machine or of a shared disk."""

    def __init__(self, root: Path) -> None:
        self.root = self.url = str(root)

    def exists(self, name: str) -> bool:
        return self._path(name).exists()

    def get(self, name: str) -> bytes | None:
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None

    def put(self, name: str, data: bytes) -> None:
        part = self._part(name, data)
        try:
            part.replace(self._path(name))
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def put_new(self, name: str, data: bytes) -> bool:
        part = self._part(name, data)
        try:
            os.link(part, self._path(name))
        except FileExistsError:
            return False
        finally:
            part.unlink()
        return True

    def delete(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        try:
            return [path.name for path in self._path(folder).iterdir()]
        except FileNotFoundError:
            return []

    def sizes(self, folder: str) -> dict[str, int]:
        files = (f for f in self._path(folder).rglob("*") if f.is_file())
        return {f.relative_to(self.root).as_posix(): f.stat().st_size for f in files}

    def _path(self, name: str) -> Path:
        return Path(self.root, name)

    def _part(self, name: str, data: bytes) -> Path:
        target = self._path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.parent / f".{target.name}.{os.getpid()}.{uuid4().hex[:8]}"
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            part.unlink(missing_ok=True)
            raise
        return part


class Bucket:
    """A prefix of a bucket. Credentials, region and endpoint come from the environment or the machine's own role."""

    def __init__(self, url: str) -> None:
        self.root = self.url = url
        self._store = connect(url)

    def exists(self, name: str) -> bool:
        return self._found(lambda: obstore.head(self._store, name)) is not None

    def get(self, name: str) -> bytes | None:
        found = self._found(lambda: bytes(obstore.get(self._store, name).bytes()))
        return None if found is None else bytes(found)

    def put(self, name: str, data: bytes) -> None:
        with explained(self.url):
            obstore.put(self._store, name, data)

    def put_new(self, name: str, data: bytes) -> bool:
        try:
            with explained(self.url):
                # One request: parts of a large upload would be joined without the condition.
                obstore.put(self._store, name, data, mode="create", use_multipart=False)
        except FileExistsError:
            return False
        return True

    def delete(self, name: str) -> None:
        self._found(lambda: obstore.delete(self._store, name))

    def names(self, folder: str) -> list[str]:
        with explained(self.url):
            found = obstore.list_with_delimiter(self._store, folder)
        paths = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
        return [path.rstrip("/").rpartition("/")[2] for path in paths]

    def sizes(self, folder: str) -> dict[str, int]:
        with explained(self.url):
            return {entry["path"]: entry["size"] for part in obstore.list(self._store, folder) for entry in part}

    def _found(self, call: Callable[[], Any]) -> Any:
        try:
            with explained(self.url):
                return call()
        except FileNotFoundError:
            return None
