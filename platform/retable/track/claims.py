"""Who trains a run: one attempt at a time, fenced, so that two drivers never train the same run at once."""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from retable.track.storage import Storage, dump, now

BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
"""On another host, a claim whose heartbeat is older than this is dead."""


@dataclass(frozen=True)
class Process:
    """A process on a host, told apart from a later one with the same pid by its start time."""

    host: str
    pid: int
    started: float

    @classmethod
    def this(cls) -> Process:
        """The calling process."""
        return cls(_host(), os.getpid(), psutil.Process().create_time())

    def alive(self) -> bool | None:
        """Whether it runs; None on another host, where only the heartbeat can tell."""
        if self.host != _host():
            return None
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


@dataclass(frozen=True)
class Holder:
    """The live claim on a run: the process that trains it and the driver that asked for it."""

    attempt: int
    worker: Process
    driver: Process
    since: str

    def __str__(self) -> str:
        return f"attempt {self.attempt} by pid {self.worker.pid} on {self.worker.host.split('/')[0]} since {self.since}"

    def orphaned(self) -> bool:
        """Whether its driver is known to be gone, so that the worker is about to stop."""
        return self.driver.alive() is False


class ClaimedError(RuntimeError):
    """Somebody else trains this run now."""

    def __init__(self, run_id: str, holder: Holder):
        self.holder = holder
        super().__init__(f"run {run_id} is being trained already: {holder}")


def holder(storage: Storage, run_id: str) -> Holder | None:
    """The live claim on a run, if there is one. Only the newest attempt can be live: older ones are fenced."""
    attempts = _attempts(storage, run_id)
    if not attempts or storage.exists(f"runs/{run_id}/result.json"):
        return None
    folder = f"runs/{run_id}/attempts/{attempts[-1]}"
    claim = storage.get_json(f"{folder}/claim.json")
    if claim is None or storage.exists(f"{folder}/released.json"):
        return None
    found = Holder(attempts[-1], Process(**claim["worker"]), Process(**claim["driver"]), claim["since"])
    alive = found.worker.alive()
    if alive is None:
        beat = storage.get_json(f"{folder}/beat.json") or claim
        alive = time.time() - float(beat["time"]) < STALE_SECONDS
    return found if alive else None


class Claim:
    """The right to train a run as attempt ``number``; a context manager that beats while held.

    Raises:
        ClaimedError: on entering, if somebody else holds a live claim.
    """

    def __init__(self, storage: Storage, run_id: str, driver: Process):
        self.storage, self.run_id, self.driver = storage, run_id, driver
        self.number = -1
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"beat-{run_id[:8]}", daemon=True)

    def __enter__(self) -> Claim:
        while self.number < 0:
            other = holder(self.storage, self.run_id)
            if other is not None and not (other.orphaned() and self._outwait(other)):
                raise ClaimedError(self.run_id, other)
            number = max(_attempts(self.storage, self.run_id), default=-1) + 1
            if self.storage.put_new(self._name(number, "claim"), dump(self._body())):
                self.number = number
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self.storage.put_json(self._name(self.number, "released"), {"at": now()})

    def fenced(self) -> bool:
        """Whether a later attempt has been claimed: this one must write nothing more."""
        return max(_attempts(self.storage, self.run_id), default=-1) > self.number

    def _outwait(self, other: Holder, seconds: float = 20.0) -> bool:
        """Wait for a worker whose driver is gone; Ray stops it within seconds."""
        try:
            psutil.Process(other.worker.pid).wait(timeout=seconds)
        except psutil.NoSuchProcess:
            return True
        except psutil.TimeoutExpired:
            return False
        return True

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            self.storage.put_json(self._name(self.number, "beat"), {"time": time.time()})

    def _body(self) -> dict[str, Any]:
        return {
            "worker": asdict(Process.this()),
            "driver": asdict(self.driver),
            "since": now(),
            "time": time.time(),
        }

    def _name(self, number: int, part: str) -> str:
        return f"runs/{self.run_id}/attempts/{number}/{part}.json"


def _attempts(storage: Storage, run_id: str) -> list[int]:
    return sorted(int(name) for name in storage.names(f"runs/{run_id}/attempts") if name.isdigit())


def _host() -> str:
    """This machine's name and boot: a pid means nothing after a restart or in another container."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:  # noqa: PTH123 - a kernel file, not a path of ours
            boot = file.read().strip()[:8]
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    except OSError:  # not Linux
        boot, namespace = f"{psutil.boot_time():.0f}", ""
    return f"{socket.gethostname()}/{boot}{namespace.removeprefix('pid:')}"
