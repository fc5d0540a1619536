"""Buckets: what they refuse, and that a name is created by one writer only."""

from __future__ import annotations

import threading
import time
from typing import Any

import obstore
import pytest

from retable.track.storage import Storage, StorageError


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("sftp://host/x", "sftp:// cannot keep runs; a folder or one of s3://"),
        ("s3://", "names no bucket: write s3://bucket/folder"),
        ("gs:///x", "names no bucket"),
    ],
)
def test_places_that_cannot_keep_runs_are_refused(place: str, says: str) -> None:
    with pytest.raises(StorageError, match=says):
        Storage(place)


def test_of_many_writers_exactly_one_creates_an_object(bucket: str) -> None:
    barrier, won = threading.Barrier(8), []

    def race(me: int) -> None:
        storage = Storage(bucket)
        barrier.wait()
        for i in range(5):
            if storage.put_new(f"race/{i}", str(me).encode()):
                won.append((i, me))

    threads = [threading.Thread(target=race, args=(me,)) for me in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(i for i, _ in won) == list(range(5))
    assert all(Storage(bucket).get(f"race/{i}") == str(me).encode() for i, me in won)


def test_a_large_object_is_created_exclusively_too(bucket: str) -> None:
    storage, large = Storage(bucket), bytes(20_000_000)
    assert storage.put_new("x", large)
    assert not storage.put_new("x", b"other")
    assert storage.sizes("") == {"x": len(large)}


def test_a_bucket_that_is_not_there_is_named(bucket: str) -> None:
    with pytest.raises(StorageError, match="there is no such bucket: s3://nowhere/x"):
        Storage("s3://nowhere/x").check()
    with pytest.raises(StorageError, match="there is no such bucket"):
        Storage("s3://nowhere/x").names("runs")


def test_a_server_that_nobody_runs_is_said_at_once(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(StorageError, match=r"cannot write s3://runs.*127\.0\.0\.1:9"):
        Storage(bucket).check()
    assert time.monotonic() - start < 60


def test_a_store_that_serves_is_left_as_it_was(bucket: str) -> None:
    storage = Storage(bucket)
    storage.check()
    assert storage.sizes("") == {}


def test_a_store_without_exclusive_creation_is_refused(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(store: Any, name: str, data: bytes, **_: Any) -> None:
        put(store, name, data)  # as servers do that do not know If-None-Match

    put = obstore.put
    monkeypatch.setattr(obstore, "put", forgetful)
    with pytest.raises(StorageError, match="two drivers could train the same run"):
        Storage(bucket).check()
