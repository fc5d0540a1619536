"""Who trains a run: exactly one claim holds, a dead one is taken over, a live one is named."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from retable.track import claims
from retable.track.claims import STALE_SECONDS, Claim, ClaimedError, Process, holder
from retable.track.storage import Storage, StorageError

CLAIMANT = Path(__file__).with_name("claimant.py")
ME = Process.this()
DEAD = replace(ME, started=ME.started - 1000.0)
"""A process that had our pid before us."""
ELSEWHERE = Process("other-host/0123abcd4026531836", 4242, 1.0)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path)


def put_claim(storage: Storage, number: int, worker: Process, driver: Process, time: float = 1000.0) -> None:
    body = {"worker": asdict(worker), "driver": asdict(driver), "since": "2030-01-01T00:00:00Z", "time": time}
    storage.put_json(f"runs/r/attempts/{number}/claim.json", body)


@contextmanager
def claimant(storage: Storage) -> Iterator[subprocess.Popen[str]]:
    """A process that is about to claim run ``r``: it goes on with every line it is told."""
    command = [sys.executable, str(CLAIMANT), "claim", storage.root, "0"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=storage.root,
        bufsize=1,
    ) as process:
        try:
            assert answer(process) == "ready"
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_run_nobody_trains_has_no_holder(storage: Storage) -> None:
    assert holder(storage, "r") is None


def test_a_second_claim_is_refused_and_names_who_holds_it(storage: Storage) -> None:
    with Claim(storage, "r", ME):
        with pytest.raises(ClaimedError, match=rf"run r is being trained already: attempt 0 by pid {ME.pid} on ") as no:
            Claim(storage, "r", ME).__enter__()
        assert no.value.holder.worker == ME
        live = holder(storage, "r")
    assert live is not None
    assert (live.attempt, live.worker, live.driver) == (0, ME, ME)


def test_a_claim_is_free_again_after_its_end(storage: Storage) -> None:
    with Claim(storage, "r", ME) as first:
        assert first.number == 0
    assert holder(storage, "r") is None
    with Claim(storage, "r", ME) as second:
        assert second.number == 1
        assert first.fenced()
        assert not second.fenced()


def test_a_claim_is_free_again_after_an_error(storage: Storage) -> None:
    with pytest.raises(KeyError), Claim(storage, "r", ME):
        raise KeyError
    assert holder(storage, "r") is None


def test_other_runs_are_not_claimed(storage: Storage) -> None:
    with Claim(storage, "r", ME), Claim(storage, "s", ME) as other:
        assert other.number == 0


def test_a_finished_run_has_no_holder(storage: Storage) -> None:
    with Claim(storage, "r", ME):
        storage.put_json("runs/r/result.json", {"status": "done"})
        assert holder(storage, "r") is None


def test_the_claim_of_a_process_that_is_gone_is_taken_over(storage: Storage) -> None:
    put_claim(storage, 0, DEAD, DEAD)
    assert holder(storage, "r") is None
    with Claim(storage, "r", ME) as claim:
        assert claim.number == 1


def test_the_claim_of_a_process_killed_with_9_is_taken_over(storage: Storage) -> None:
    with claimant(storage) as process:
        tell(process)
        assert answer(process) == "0"
        live = holder(storage, "r")
        assert live is not None
        assert live.worker.pid == process.pid
        with pytest.raises(ClaimedError, match=f"by pid {process.pid} "):
            Claim(storage, "r", ME).__enter__()
        process.kill()
        process.wait()
        assert holder(storage, "r") is None
        with Claim(storage, "r", ME) as claim:
            assert claim.number == 1


def test_a_killed_process_that_nobody_has_waited_for_is_dead_too(storage: Storage) -> None:
    with claimant(storage) as process:
        tell(process)
        assert answer(process) == "0"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and left as a zombie
        assert holder(storage, "r") is None


def test_a_worker_whose_driver_is_gone_is_waited_for_and_then_taken_over(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float | None] = []
    real_wait = psutil.Process.wait
    with claimant(storage) as process:
        put_claim(storage, 0, Process(ME.host, process.pid, psutil.Process(process.pid).create_time()), driver=DEAD)

        def wait(self: psutil.Process, timeout: float | None = None) -> int | None:
            waits.append(timeout)
            assert self.pid == process.pid
            process.kill()  # as Ray does to workers of a driver that is gone
            return real_wait(self, timeout)

        monkeypatch.setattr(psutil.Process, "wait", wait)
        live = holder(storage, "r")
        assert live is not None
        assert live.orphaned()
        with Claim(storage, "r", ME) as claim:
            assert claim.number == 1
    assert waits[:1] == [claims.ORPHAN_SECONDS]


def test_an_orphan_that_goes_on_keeps_its_claim(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(self: psutil.Process, timeout: float | None = None) -> int | None:
        raise psutil.TimeoutExpired(timeout or 0.0, self.pid)

    monkeypatch.setattr(psutil.Process, "wait", wait)
    put_claim(storage, 0, ME, driver=DEAD)
    with pytest.raises(ClaimedError):
        Claim(storage, "r", ME).__enter__()


def test_a_worker_with_a_driver_is_not_waited_for(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil.Process, "wait", lambda *_, **__: pytest.fail("waited"))
    put_claim(storage, 0, ME, driver=ME)
    with pytest.raises(ClaimedError):
        Claim(storage, "r", ME).__enter__()


def test_on_another_host_the_heartbeat_tells(storage: Storage) -> None:
    put_claim(storage, 0, ELSEWHERE, ELSEWHERE, time=1000.0)
    assert holder(storage, "r", clock=lambda: 1000.0 + STALE_SECONDS - 1) is not None
    assert holder(storage, "r", clock=lambda: 1000.0 + STALE_SECONDS + 1) is None
    storage.put_json("runs/r/attempts/0/beat.json", {"time": 1050.0})
    assert holder(storage, "r", clock=lambda: 1000.0 + STALE_SECONDS + 1) is not None
    with pytest.raises(ClaimedError, match="on other-host since"):
        Claim(storage, "r", ME, clock=lambda: 1050.0 + STALE_SECONDS - 1).__enter__()
    with Claim(storage, "r", ME, clock=lambda: 1050.0 + STALE_SECONDS + 1) as claim:
        assert claim.number == 1


def test_an_orphan_on_another_host_is_left_to_its_heartbeat(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its pid names some other process here, or none.
    monkeypatch.setattr(psutil.Process, "wait", lambda *_, **__: pytest.fail("waited"))
    put_claim(storage, 0, ELSEWHERE, driver=DEAD)
    with pytest.raises(ClaimedError):
        Claim(storage, "r", ME, clock=lambda: 1001.0).__enter__()


def test_a_driver_that_starts_a_run_again_replaces_its_own_attempt_on_a_lost_host(storage: Storage) -> None:
    put_claim(storage, 0, ELSEWHERE, driver=ME)
    with Claim(storage, "r", ME, clock=lambda: 1001.0) as claim:
        assert claim.number == 1


def test_a_claim_whose_answer_was_lost_is_known_as_ones_own(tmp_path: Path) -> None:
    class Repeated(Storage):
        def put_new(self, name: str, data: bytes) -> bool:
            super().put_new(name, data)
            return super().put_new(name, data)

    with Claim(Repeated(tmp_path), "r", ME) as claim:
        assert claim.number == 0


def test_the_same_pid_on_a_restarted_host_is_another_process() -> None:
    assert ME.alive() is True
    assert DEAD.alive() is False
    assert replace(ME, host="elsewhere").alive() is None
    assert Process(ME.host, 2**22 + 1, 0.0).alive() is False


def test_of_eight_threads_exactly_one_holds_the_claim(storage: Storage) -> None:
    barrier, refused = threading.Barrier(8), threading.Barrier(8)
    won: list[int] = []
    lost: list[ClaimedError] = []

    def race() -> None:
        with ExitStack() as held:
            barrier.wait()
            try:
                won.append(held.enter_context(Claim(storage, "r", ME)).number)
            except ClaimedError as error:
                lost.append(error)
            refused.wait()

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [0]
    assert len(lost) == 7


def test_of_two_processes_exactly_one_holds_the_claim(storage: Storage) -> None:
    with claimant(storage) as one, claimant(storage) as two:
        tell(one)
        tell(two)
        answers = [answer(one), answer(two)]
        assert sorted(answers) == ["", "0"]
        loser = (one, two)[answers.index("")]
        assert loser.stderr is not None
        assert "ClaimedError: run r is being trained already: attempt 0 by pid" in loser.stderr.read()


class Slow(Storage):
    """The storage of a claimant that is overtaken by a faster one right after it has looked."""

    def __init__(self, root: str, faster: Claim) -> None:
        super().__init__(root)
        self.faster: Claim | None = faster

    def names(self, folder: str) -> list[str]:
        found = super().names(folder)
        if self.faster is not None:
            faster, self.faster = self.faster, None
            faster.__enter__()
        return found


def test_a_claimant_that_is_overtaken_after_it_looked_is_refused(storage: Storage) -> None:
    faster = Claim(storage, "r", ME)
    try:
        with pytest.raises(ClaimedError, match="attempt 0"):
            Claim(Slow(storage.root, faster), "r", ME).__enter__()
        assert faster.number == 0
    finally:
        faster.__exit__()


def test_a_folder_without_a_claim_is_no_attempt(storage: Storage) -> None:
    # A claimant makes the folder before the claim in it: counting it would let two claims stand, 0 and 1.
    storage.put("runs/r/attempts/0/environment.json", b"{}")
    with Claim(storage, "r", ME) as claim:
        assert claim.number == 0


class Told(Storage):
    """Tells when a heartbeat is written; the first one finds no space."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.beats = 0
        self.beaten = threading.Event()

    def put_json(self, name: str, value: Any) -> None:
        if name.endswith("beat.json"):
            self.beats += 1
            if self.beats == 1:
                raise StorageError(28, "no space left")
            super().put_json(name, value)
            self.beaten.set()
        else:
            super().put_json(name, value)


def test_the_heart_goes_on_beating_after_a_write_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.001)
    storage = Told(str(tmp_path))
    with Claim(storage, "r", ME, clock=lambda: 77.0):
        assert storage.beaten.wait(10)
    assert storage.get_json("runs/r/attempts/0/beat.json") == {"time": 77.0}


def test_a_claim_that_cannot_say_that_it_ended_hides_no_other_error(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError(28, "no space left")

    def fail() -> None:
        monkeypatch.setattr(Storage, "put_json", full)
        raise KeyError

    with pytest.raises(KeyError), Claim(storage, "r", ME):
        fail()
