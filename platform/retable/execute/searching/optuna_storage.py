"""Where searches are kept between drivers: one Optuna storage, one Optuna study per search, one driver at a time."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from sqlalchemy.exc import SQLAlchemyError

from retable.track.storage import Storage, StorageError

_DIRECTION = {True: StudyDirection.MAXIMIZE, False: StudyDirection.MINIMIZE}
JOURNAL = ".journal"
"""The ending of a file that is kept as Optuna's journal instead of an sqlite database."""
LOCKED_SECONDS = 20.0
"""How long an sqlite file may be locked by somebody else's transaction before it is refused."""


class SearchStorageError(StorageError):
    """The search's storage is locked, foreign, or cannot be read; the message says which and the way out."""

    def __init__(self, message: str):
        super().__init__(errno.EIO, message)


def default_url(storage: Storage) -> str:
    """``search/optuna.db`` in a local storage.

    Raises:
        SearchStorageError: the storage is a bucket, where no database can be.
    """
    if not storage.local:
        raise SearchStorageError(f"{storage.url} is no place for a database: name one, --optuna postgresql://...")
    return f"{storage.root}/search/optuna.db"


@contextmanager
def open_search(
    storage: Storage, url: str | None, name: str, maximize: Sequence[bool], about: dict[str, Any]
) -> Iterator[optuna.Study]:
    """The Optuna study ``name``, made if need be, held by this driver alone while the ``with`` lasts.

    Args:
        storage: the runs' storage; a local one also holds the lock.
        url: an SQLAlchemy URL, or the path of an sqlite file or a ``.journal``; None for :func:`default_url`.
        name: of the Optuna study.
        maximize: per objective.
        about: what the search is of; a study of that name with other words is not ours.

    Raises:
        SearchStorageError: locked, foreign or unreadable.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    place = url or default_url(storage)
    with _lock(storage, name):
        yield _opened(place, name, [_DIRECTION[up] for up in maximize], about)


def read_search(storage: Storage, url: str | None, name: str) -> optuna.Study | None:
    """The study ``name`` for reading, without the lock; None if there is none.

    Raises:
        SearchStorageError: foreign or unreadable.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    place = url or default_url(storage)
    if "://" not in place and not Path(place).exists():
        return None
    try:
        return optuna.load_study(study_name=name, storage=_database(place))
    except KeyError:
        return None
    except (SQLAlchemyError, RuntimeError) as error:
        raise _explained(place, error) from error


def _opened(place: str, name: str, directions: list[StudyDirection], about: dict[str, Any]) -> optuna.Study:
    try:
        database = _database(place)
        study = optuna.create_study(storage=database, study_name=name, directions=directions, load_if_exists=True)
        found = study.user_attrs.get("retable")
        if found is None and not study.trials:
            study.set_user_attr("retable", about)
        elif found != about:
            raise SearchStorageError(
                f"{place} holds a search named {name} that is not this one: name another storage with --optuna"
            )
    except (SQLAlchemyError, RuntimeError) as error:
        raise _explained(place, error) from error
    return study


def _database(place: str) -> optuna.storages.BaseStorage:
    if "://" in place and not place.startswith("sqlite"):
        return optuna.storages.RDBStorage(place)
    if "://" not in place:
        path = Path(place).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == JOURNAL:
            return optuna.storages.JournalStorage(JournalFileBackend(str(path)))
        place = f"sqlite:///{path}"
    return optuna.storages.RDBStorage(place, engine_kwargs={"connect_args": {"timeout": LOCKED_SECONDS}})


def _explained(place: str, error: Exception) -> Exception:
    if isinstance(error, SearchStorageError):
        return error
    text = str(error).splitlines()[0]
    if "locked" in text:
        return SearchStorageError(f"{place} is locked by another program: close it and run the same command again")
    return SearchStorageError(f"{place} cannot be used as Optuna's storage: {text}")


@contextmanager
def _lock(storage: Storage, name: str) -> Iterator[None]:
    """Exclusive while held; the system releases it when the driver dies, however it dies."""
    if not storage.local:
        yield
        return
    path = Path(storage.path(f"search/{name}.lock"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise SearchStorageError(f"another driver (pid {file.read().strip()}) is at the search {name}") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
