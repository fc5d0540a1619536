"""Reaching a tracking store: where it is by default, whether it is there at all, and MLflow kept quiet."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

PROBE_SECONDS = 3.0
BOUNDS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""MLflow's own defaults retry for minutes. A server that restarts within some 6 s is waited for."""

_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
_LOUD = ("mlflow", "alembic")
_SQLITE_MAGIC = b"SQLite format 3\0"


class TrackingUnavailable(RuntimeError):
    """The tracking store cannot be reached or refuses; the message says what to do."""

    def __init__(self, uri: str, reason: str):
        super().__init__(
            f"cannot use MLflow at {shown(uri)}: {reason}. Nothing is lost, the results are in the storage:"
            " run `retable sync` once it is there, or give another --tracking-uri"
        )


def default_uri(storage: Path) -> str:
    """The sqlite store in a storage folder."""
    return f"sqlite:///{storage.absolute() / 'mlflow.db'}"


def artifacts_beside(uri: str) -> str | None:
    """The folder of a sqlite store's artifacts: ``mlartifacts`` beside the file. None: the server decides."""
    path = sqlite_path(uri)
    return None if path is None else str(path.absolute().parent / "mlartifacts")


def sqlite_path(uri: str) -> Path | None:
    """The file of a sqlite store; None for other stores."""
    scheme, _, rest = uri.partition("://")
    return Path(rest.removeprefix("/").partition("?")[0]) if scheme.split("+")[0] == "sqlite" else None


def shown(uri: str) -> str:
    """``uri`` without its password."""
    password = urlsplit(uri).password
    return uri.replace(f":{password}@", ":***@") if password else uri


def probe(uri: str) -> None:
    """Find out within seconds that a store is not there; MLflow itself would retry for minutes.

    Raises:
        TrackingUnavailable: nobody listens at the address, or the sqlite file is something else or cannot be written.
    """
    path = sqlite_path(uri)
    if path is not None:
        _probe_file(uri, path)
        return
    parts = urlsplit(uri)
    scheme = parts.scheme.split("+")[0]
    if scheme not in _PORTS or not parts.hostname:
        return
    if scheme in getproxies() and not proxy_bypass(parts.hostname):
        return  # the proxy, not the host, is who we would talk to
    try:
        socket.create_connection((parts.hostname, parts.port or _PORTS[scheme]), PROBE_SECONDS).close()
    except OSError as error:
        raise TrackingUnavailable(uri, f"nobody answers there ({error})") from error


def _probe_file(uri: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
        with path.open("rb") as file:
            head = file.read(len(_SQLITE_MAGIC))
    except OSError as error:
        raise TrackingUnavailable(uri, f"the file cannot be written ({error.strerror})") from error
    if head and head != _SQLITE_MAGIC:
        raise TrackingUnavailable(uri, "the file is not a sqlite database")


@contextmanager
def quiet() -> Iterator[None]:
    """MLflow without its chatter and with bounded retries, for the duration; everything is put back afterwards."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    before = {name: os.environ.get(name) for name in BOUNDS}
    os.environ.update({name: value for name, value in BOUNDS.items() if before[name] is None})
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # mlflow 3.17 reads its runs with a loader that SQLAlchemy 2.1 deprecates; nothing a caller could change
            warnings.filterwarnings("ignore", message=r"The ``noload`` loader strategy", module=r"mlflow\.store\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
