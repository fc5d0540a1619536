"""Buckets: the store that a URL names, and its errors as OSErrors of one line. What lies there is not known here."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from obstore import exceptions
from obstore.store import MemoryStore, from_url

BUCKETS = ("s3", "s3a", "gs", "az", "abfs", "abfss", "memory")
CONNECT = {"timeout": "60s", "connect_timeout": "5s"}

_MEMORY: dict[str, MemoryStore] = {}
_PROCESSES: set[int] = set()
"""Those that have connected: this one, and any that it was forked from."""


def scheme_of(place: str) -> str | None:
    """``s3`` of ``s3://bucket/folder``; None for a path."""
    found = re.match(r"([a-z][a-z0-9+.-]*)://", place)
    return None if found is None else found[1]


def connect(url: str) -> Any:
    """What obstore reads and writes below ``url`` with. ``memory://...`` is this process's own, one store a URL.

    Credentials, region and endpoint come from the environment or the machine's own role.

    Raises:
        OSError: the store cannot be used; the URL's kind is not among :data:`BUCKETS`; or this process was forked from
            one that had connected: the threads that obstore waits for stayed there.
    """
    url, scheme = url.rstrip("/"), scheme_of(url)
    if scheme not in BUCKETS:
        offered = ", ".join(f"{name}://" for name in BUCKETS if name != "memory")
        raise OSError(errno.EINVAL, f"{scheme}:// cannot be read here; one of {offered} can", url)
    if scheme == "memory":
        return _MEMORY.setdefault(url, MemoryStore())
    _PROCESSES.add(os.getpid())
    if len(_PROCESSES) > 1:
        raise OSError(errno.ENOTSUP, "a forked process cannot use buckets: start it anew", url)
    with explained(url):
        return from_url(url, client_options=_client_options(url))  # type: ignore[call-overload]


@contextmanager
def explained(url: str) -> Iterator[None]:
    """obstore's errors as OSErrors of one line."""
    try:
        yield
    except exceptions.AlreadyExistsError as error:
        raise FileExistsError(errno.EEXIST, _first_line(error)) from error
    except (FileNotFoundError, exceptions.GenericError) as error:
        if "NoSuchBucket" in str(error):
            raise OSError(errno.ENXIO, f"there is no such bucket: {url}") from error
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(errno.ENOENT, _first_line(error)) from error
        raise OSError(errno.EIO, _first_line(error)) from error
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise PermissionError(errno.EACCES, _first_line(error)) from error
    except exceptions.BaseError as error:
        raise OSError(errno.EIO, _first_line(error)) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


def _client_options(url: str) -> dict[str, Any]:
    """Plain HTTP is for an endpoint that was given as such (a server on this machine, a test)."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return {**CONNECT, "allow_http": url.startswith("s3") and endpoint.startswith("http://")}
