"""What may be freed: nothing that a table, a resumed run or a run in progress needs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from retable.track.claims import Claim, Process
from retable.track.drivers import FORGOTTEN_SECONDS, Driver
from retable.track.gc import CACHE, CHECKPOINTS, DRIVERS, LEFTOVERS, delete, garbage
from retable.track.storage import Storage

KEPT = ["attempts/0/claim.json", "attempts/0/released.json", "ckpt/best.1.pt", "ckpt/last.2.pt", "epochs/0.0.json"]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage(tmp_path / "store")
    with Claim(storage, "r", Process.this()):
        pass
    storage.put("runs/r/epochs/0.0.json", b"{}")
    for name, size in (("last.0", 10), ("last.1", 20), ("last.2", 40), ("best.0", 80), ("best.1", 160)):
        storage.put(f"runs/r/ckpt/{name}.pt", b"x" * size)
    (tmp_path / "store/runs/r/ckpt/.last.3.pt.4242.0123abcd").write_bytes(b"x" * 320)
    return storage


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    for name, size in (("frames-a", 640), ("frames-b", 1280)):
        (tmp_path / "cache" / name).mkdir(parents=True)
        (tmp_path / "cache" / name / "frames.bin").write_bytes(b"x" * size)
    return tmp_path / "cache"


def test_superseded_checkpoints_leftovers_and_decoded_frames_are_found(storage: Storage, cache: Path) -> None:
    assert garbage(storage, cache) == {
        CHECKPOINTS: {"runs/r/ckpt/last.1.pt": 20, "runs/r/ckpt/last.0.pt": 10, "runs/r/ckpt/best.0.pt": 80},
        LEFTOVERS: {"runs/r/ckpt/.last.3.pt.4242.0123abcd": 320},
        DRIVERS: {},
        CACHE: {str(cache / "frames-a"): 640, str(cache / "frames-b"): 1280},
    }


def test_what_is_found_is_freed_and_the_newest_checkpoints_stay(storage: Storage, cache: Path) -> None:
    assert delete(storage, garbage(storage, cache)) == 20 + 10 + 80 + 320 + 640 + 1280
    assert sorted(storage.sizes("runs/r")) == [f"runs/r/{name}" for name in KEPT]
    assert storage.get("runs/r/ckpt/last.2.pt") == b"x" * 40
    assert list(cache.iterdir()) == []
    assert not any(garbage(storage, cache).values())


def test_superseded_checkpoints_in_a_bucket_are_freed(bucket: str, tmp_path: Path) -> None:
    storage = Storage(bucket)
    for name in ("last.0", "last.1"):
        storage.put(f"runs/r/ckpt/{name}.pt", b"x" * 10)
    assert delete(storage, garbage(storage, tmp_path / "cache")) == 10
    assert storage.names("runs/r/ckpt") == ["last.1.pt"]


def test_optical_flow_is_left_alone(storage: Storage, cache: Path) -> None:
    (cache / "flow-tvl1-20-256-v1").mkdir()
    (cache / "flow-tvl1-20-256-v1/abc.npy").write_bytes(b"x" * 100)
    delete(storage, garbage(storage, cache))
    assert [path.name for path in cache.rglob("*.npy")] == ["abc.npy"]


def test_a_run_that_is_trained_now_is_left_alone_and_its_frames_too(storage: Storage, cache: Path) -> None:
    with Claim(storage, "r", Process.this()):
        assert not any(garbage(storage, cache).values())


def test_a_run_claimed_since_it_was_looked_at_is_left_alone(storage: Storage, tmp_path: Path) -> None:
    found = garbage(storage, tmp_path / "none")
    before = storage.sizes("runs/r/ckpt")
    with Claim(storage, "r", Process.this()):
        assert delete(storage, found) == 0
    assert storage.sizes("runs/r/ckpt") == before


def test_an_empty_storage_without_a_cache_has_nothing_to_free(tmp_path: Path) -> None:
    found = garbage(Storage(tmp_path / "store"), tmp_path / "cache")
    assert not any(found.values())
    assert delete(Storage(tmp_path / "store"), found) == 0


def test_what_a_killed_driver_has_left_is_freed_and_a_living_one_is_left_alone(storage: Storage, cache: Path) -> None:
    dead: dict[str, Any] = {"drivers/far-7-1.00.beat.json": {"time": time.time() - FORGOTTEN_SECONDS - 1}}
    dead |= {"drivers/far-7-1.00.stop.json": {"at": "some time"}, "drivers/far-8-1.00.stop.json": {"at": "some time"}}
    for name, content in dead.items():
        storage.put_json(name, content)
    with Driver(storage, Process.this()) as driver:
        driver.ask_to_stop()
        found = garbage(storage, cache)
        assert set(found[DRIVERS]) == set(dead)
        delete(storage, found)
        assert len(storage.names("drivers")) == 2
