"""The files of a pack below a bucket's URL: by byte range, whole, and to a disk. Every method raises OSError."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import obstore

from retable.buckets import connect, explained, scheme_of

_PART, _AT_ONCE = 16_000_000, 4
"""Bytes of a large file that are asked for in one request, which has a minute; and how many requests at a time."""


class Remote:
    """Files below ``url`` (``s3://bucket/folder``, ``gs://...``, ``az://...``). Pickles as its URL."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._process, self._store = 0, None

    def __reduce__(self) -> tuple[type[Remote], tuple[str]]:
        return Remote, (self.url,)

    @property
    def forks(self) -> bool:
        """Whether a process that is forked from this one can read it, too."""
        return scheme_of(self.url) == "memory"

    def _at(self) -> Any:
        if self._process != os.getpid():
            self._store, self._process = connect(self.url), os.getpid()
        return self._store

    def whole(self, file: str) -> bytes:
        """A small file; FileNotFoundError if it is not there."""
        store = self._at()
        with explained(self.url):
            return bytes(obstore.get(store, file).bytes())

    def part(self, file: str, offset: int, length: int) -> memoryview:
        """``length`` bytes of ``file`` from ``offset``."""
        store, found = self._at(), memoryview(b"")
        if length:
            with explained(self.url):
                found = memoryview(obstore.get_range(store, file, start=offset, length=length))
        if len(found) != length:
            raise OSError(f"{self.url}/{file} ends before byte {offset + length}: the pack is incomplete")
        return found

    def fetch(self, file: str, size: int, target: Path) -> None:
        """Write the ``size`` bytes of a large file into the file ``target``, which is there already."""

        def part(start: int) -> None:
            content = self.part(file, start, min(_PART, size - start))
            with target.open("r+b") as opened:
                opened.seek(start)
                opened.write(content)

        self._at()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(part, range(0, size, _PART)):
                pass

    def size(self, file: str) -> int | None:
        """Bytes of a file; None if it is not there."""
        store = self._at()
        try:
            with explained(self.url):
                return int(obstore.head(store, file)["size"])
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        """All files."""
        store = self._at()
        with explained(self.url):
            return [str(entry["path"]) for part in obstore.list(store) for entry in part]

    def put(self, file: str, content: bytes | Path) -> None:
        """Write a file as a whole: its bytes, or those of a file of this machine."""
        store = self._at()
        with explained(self.url):
            obstore.put(store, file, content)

    def remove(self, file: str) -> None:
        """Remove a file."""
        store = self._at()
        with explained(self.url):
            obstore.delete(store, file)
