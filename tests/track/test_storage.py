"""The run folder: objects are whole or absent, whatever dies in between, and say what is wrong with them."""

from __future__ import annotations

import errno
import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retable.track.storage import Storage, StorageError, dump

CLAIMANT = Path(__file__).with_name("claimant.py")


@pytest.fixture(params=["local", "memory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "s3":
        return Storage(request.getfixturevalue("bucket"))
    return Storage(tmp_path / "store" if request.param == "local" else f"memory://{tmp_path}")


def spec(run_id: str = "r") -> dict[str, Any]:
    return {"schema": 1, "run_id": run_id, "config_id": "c", "provisional_id": "~c", "seed": 3, "parents": []}


def test_an_object_reads_back_and_a_missing_one_is_none(storage: Storage) -> None:
    storage.put("a/b", b"\x00bytes")
    assert storage.get("a/b") == b"\x00bytes"
    assert storage.exists("a/b")
    assert storage.get("a/c") is None
    assert storage.get_json("a/c") is None
    assert not storage.exists("a/c")


def test_a_second_put_replaces_and_a_second_put_new_does_not(storage: Storage) -> None:
    assert storage.put_new("x", b"1")
    assert not storage.put_new("x", b"2")
    assert storage.get("x") == b"1"
    storage.put("x", b"3")
    assert storage.get("x") == b"3"


def test_names_are_sorted_and_a_missing_folder_is_empty(storage: Storage) -> None:
    for name in ("f/b", "f/a", "f/sub/x"):
        storage.put(name, b"")
    assert storage.names("f") == ["a", "b", "sub"]
    assert storage.names("g") == []


def test_delete_is_quiet_about_what_is_not_there(storage: Storage) -> None:
    storage.put("f/a", b"12345")
    assert storage.sizes("f") == {"f/a": 5}
    storage.delete("f/a")
    storage.delete("f/a")
    assert storage.sizes("f") == {}


@pytest.mark.parametrize("make", [lambda path: path, str, lambda path: f"file://{path}"])
def test_a_folder_may_be_given_as_path_text_or_url(make: Any, tmp_path: Path) -> None:
    storage = Storage(make(tmp_path / "store"))
    storage.put("a/b", b"1")
    assert storage.local
    assert (tmp_path / "store/a/b").read_bytes() == b"1"
    assert storage.url == str(tmp_path / "store")


def test_a_relative_folder_is_made_absolute_so_that_workers_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Storage("store").url == str(tmp_path / "store")


def test_the_url_of_a_bucket_opens_the_same_place(tmp_path: Path) -> None:
    storage = Storage(f"memory://{tmp_path}")
    storage.put("a", b"1")
    assert not storage.local
    assert Storage(storage.url).get("a") == b"1"


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False) | st.integers()))
def test_numbers_come_back_exactly(tmp_path: Path, value: dict[str, float]) -> None:
    storage = Storage(tmp_path)
    storage.put_json("v", value)
    found = storage.get_json("v")
    assert found == value
    assert all(math.copysign(1, found[k]) == math.copysign(1, v) for k, v in value.items())


def die(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def test_a_writer_that_dies_before_the_rename_leaves_nothing_that_readers_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(tmp_path)
    storage.put_json("runs/r/spec.json", spec())
    storage.put_json("runs/r/epochs/0.0.json", {"epoch": 0})
    with monkeypatch.context() as dying:
        dying.setattr(Path, "replace", die)
        for name in ("epochs/0.0.json", "epochs/1.0.json", "result.json", "ckpt/last.0.pt"):
            with pytest.raises(KeyboardInterrupt):
                storage.put(f"runs/r/{name}", b"{}")
    left = [name for name in storage.sizes("runs") if "/." in name]
    assert len(left) == 4, "the parts lie there for gc"
    assert storage.names("runs/r") == ["ckpt", "epochs", "spec.json"]
    assert storage.names("runs/r/epochs") == ["0.0.json"]
    assert storage.checkpoints("r") == []
    record = storage.record("r")
    assert record is not None
    assert record.status == "partial"
    assert record.epochs == ({"epoch": 0},)


def test_readers_see_the_old_object_or_the_new_one_never_a_part(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    texts = {bytes([letter]) * 300_000 for letter in b"ab"}
    storage.put("x", next(iter(texts)))
    done = threading.Event()

    def write() -> None:
        for text in sorted(texts) * 10:
            storage.put("x", text)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(storage.get("x"))
    writer.join()
    assert seen <= texts


def test_of_eight_threads_exactly_one_puts_a_new_object(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    barrier = threading.Barrier(8)
    won: list[tuple[int, int]] = []

    def race(me: int) -> None:
        for i in range(20):
            barrier.wait()
            if storage.put_new(f"race/{i}", str(me).encode()):
                won.append((i, me))

    threads = [threading.Thread(target=race, args=(me,)) for me in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(i for i, _ in won) == list(range(20))
    assert all(storage.get(f"race/{i}") == str(me).encode() for i, me in won)


def test_of_several_processes_exactly_one_puts_a_new_object(tmp_path: Path) -> None:
    command = [sys.executable, str(CLAIMANT), "put", str(tmp_path), "200"]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
        for _ in range(3)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    wins = [int(racer.communicate(timeout=60)[0]) for racer in racers]
    assert sum(wins) == 200
    assert len(Storage(tmp_path).names("race")) == 200


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.ENOSPC, "no space left for .*/x; free some .retable gc .* run the same command again"),
        (errno.EDQUOT, "no space left"),
        (errno.EROFS, "/x is not writable; choose another --storage"),
        (errno.EACCES, "/x is not writable; choose another --storage"),
        (errno.EIO, "cannot write .*/x: Input/output error"),
    ],
)
@pytest.mark.parametrize("how", ["put", "put_new"])
def test_a_write_that_fails_says_why_and_leaves_nothing(
    how: str, code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(tmp_path)

    def fail(_: int) -> NoReturn:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=says) as caught:
        getattr(storage, how)("x", b"1")
    assert "Errno" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_write_without_space_keeps_the_object_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(tmp_path)
    storage.put("x", b"old")

    def full(_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError):
        storage.put("x", b"new")
    assert storage.get("x") == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_an_object_where_a_folder_stands_is_refused_without_leftovers(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.put("a/b", b"1")
    with pytest.raises(StorageError, match="cannot write"):
        storage.put("a", b"2")
    with pytest.raises(StorageError, match="cannot read"):
        storage.get("a")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_storage_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    with pytest.raises(StorageError, match=r"cannot write .*store/runs/r/spec\.json"):
        Storage(tmp_path / "store").put_json("runs/r/spec.json", spec())


@pytest.mark.parametrize("damage", [b"", b'{"status": "do', b"\xff\xfe", b"[1, 2]"])
def test_a_damaged_object_is_named_with_the_way_out(storage: Storage, damage: bytes) -> None:
    storage.put_json("runs/r/spec.json", spec())
    storage.put("runs/r/result.json", damage)
    with pytest.raises(
        StorageError, match=r"runs/r/result\.json is damaged .*delete it and run the same command again"
    ):
        storage.records()


@pytest.mark.parametrize("how", ["put", "put_new"])
def test_provisional_runs_are_never_stored(storage: Storage, how: str) -> None:
    with pytest.raises(ValueError, match="provisional ids are never stored"):
        getattr(storage, how)("runs/~abc/spec.json", b"{}")
    assert storage.run_ids() == []


def test_records_hold_done_failed_and_partial_runs(storage: Storage) -> None:
    for run_id in ("done", "failed", "partial"):
        storage.put_json(f"runs/{run_id}/spec.json", spec(run_id))
        storage.put_json(f"runs/{run_id}/attempts/0/claim.json", {})
        storage.put_json(f"runs/{run_id}/epochs/0.0.json", {"epoch": 0, "train/loss": 1.5})
    storage.put_json("runs/claimed/attempts/0/claim.json", {})
    storage.put("runs/done/scores/v.parquet", b"PAR1")
    storage.put_json("runs/done/scores/v.json", {"top1": 50.0})
    environment = {"device": "cpu"}
    done = {"status": "done", "reason": None, "cost": {"seconds": 2.0}, "environment": environment}
    storage.put_json("runs/done/result.json", done)
    storage.put_json("runs/failed/result.json", {"status": "failed", "reason": "NaN loss"})
    records = storage.records()
    assert {key: (r.status, r.reason) for key, r in records.items()} == {
        "done": ("done", None),
        "failed": ("failed", "NaN loss"),
        "partial": ("partial", None),
    }
    assert records["done"].evaluations == {"v": {"top1": 50.0}}
    assert (records["done"].cost, records["done"].environment) == ({"seconds": 2.0}, environment)
    assert records["done"].attempts == 1
    assert (records["done"].seed, records["done"].config_id) == (3, "c")
    assert all(r.epochs == ({"epoch": 0, "train/loss": 1.5},) for r in records.values())


def test_scores_without_their_metrics_are_not_an_evaluation(storage: Storage) -> None:
    storage.put_json("runs/r/spec.json", spec())
    storage.put_json("runs/r/result.json", {"status": "done"})
    storage.put("runs/r/scores/v.parquet", b"PAR1")
    record = storage.record("r")
    assert record is not None
    assert record.evaluations == {}


def test_epochs_of_several_attempts_are_one_curve_in_order(storage: Storage) -> None:
    for epoch, attempt in ((0, 0), (1, 0), (1, 2), (2, 2), (10, 3), (2, 10)):
        storage.put_json(f"runs/r/epochs/{epoch}.{attempt}.json", {"epoch": epoch, "attempt": attempt})
    storage.put("runs/r/epochs/notes.txt", b"a user's")
    found = [(e["epoch"], e["attempt"]) for e in storage.epochs("r")]
    assert found == [(0, 0), (1, 0), (2, 2), (10, 3)]


def test_checkpoints_come_newest_attempt_first(storage: Storage) -> None:
    for name in ("last.0.pt", "last.10.pt", "last.2.pt", "best.1.pt", "last.old.pt", "last.3.txt"):
        storage.put(f"runs/r/ckpt/{name}", b"")
    assert [n.rpartition("/")[2] for n in storage.checkpoints("r")] == ["last.10.pt", "last.2.pt", "last.0.pt"]
    assert storage.checkpoints("r", "best") == ["runs/r/ckpt/best.1.pt"]
    assert storage.checkpoints("other") == []


def test_json_is_sorted_and_ends_a_line() -> None:
    assert dump({"b": 1, "a": "±"}) == '{\n "a": "±",\n "b": 1\n}\n'.encode()
