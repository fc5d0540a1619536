"""Files that are whole or not there, and things that one process at a time makes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from retable.data.errors import DatasetError


def put(target: Path, content: bytes | memoryview) -> None:
    """Write a file beside its place, then move it there. A broken-off write leaves nothing."""
    temporary = target.with_name(f"{target.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def alone(target: Path, command: str) -> Iterator[None]:
    """One process at a time makes ``target``. On a file system without locks nobody is kept out: moving keeps it safe.

    Raises:
        DatasetError: another process is at it; says which.
    """
    lock = target.with_name(f"{target.name}.lock")
    with _locked(lock, target, command) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _locked(lock: Path, target: Path, command: str) -> TextIO:
    """The lock file, open and locked. One that its last holder has removed meanwhile keeps nobody out: the next is."""
    while True:
        file = lock.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip()
            file.close()
            raise DatasetError(f"{target}: another {command} is at it ({holder}); wait for it") from error
        except OSError:
            return file
        with contextlib.suppress(FileNotFoundError):
            if lock.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        file.close()


@contextlib.contextmanager
def in_turn(lock: Path) -> Iterator[None]:
    """One process at a time; the others wait. Where the file system has no locks, moving keeps what is made safe."""
    with lock.open("w") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def made(folder: Path) -> Iterator[Path]:
    """A folder to fill, which is ``folder`` at the end: there whole, or not at all. What killed processes left goes."""
    _sweep(folder)
    temporary = folder.with_name(f"{folder.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that had this number before
    temporary.mkdir()
    try:
        yield temporary
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process, on a disk without locks, was first
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove folders ``<folder>.<host>.<process>.tmp`` that killed processes of this host left behind."""
    for left in folder.parent.glob(f"{folder.name}.*.tmp"):
        if left_behind(left.name):
            shutil.rmtree(left, ignore_errors=True)


def left_behind(name: str) -> bool:
    """Whether ``name`` (``....<host>.<process>.tmp``) is of a process of this host that is no more."""
    parts = name.removesuffix(".tmp").rsplit(".", 1)
    pid = parts[-1]
    return pid.isdigit() and parts[0].endswith(f".{socket.gethostname()}") and not Path(f"/proc/{pid}").exists()
