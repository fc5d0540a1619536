"""Who trains a run: one attempt at a time, fenced, so that two drivers never train the same run at once."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

import psutil

from retable.track.storage import Storage, StorageError, dump, now

BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
"""On another host, a claim whose heartbeat is older than this is dead."""
ORPHAN_SECONDS = 20.0
"""How long a new driver waits for a worker whose driver is gone: Ray stops it within seconds."""


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


def holder(storage: Storage, run_id: str, *, clock: Callable[[], float] = time.time) -> Holder | None:
    """The live claim on a run, if there is one. Only the newest attempt can be live: older ones are fenced."""
    newest = _newest(storage, run_id)
    if newest < 0 or storage.exists(f"runs/{run_id}/result.json"):
        return None
    return _live(storage, run_id, newest, clock)


class Claim:
    """The right to train a run as attempt ``number``; a context manager that beats while held.

    Raises:
        ClaimedError: on entering, if somebody else holds a live claim.
    """

    def __init__(self, storage: Storage, run_id: str, driver: Process, *, clock: Callable[[], float] = time.time):
        self.storage, self.run_id, self.driver, self.clock = storage, run_id, driver, clock
        self.number = -1
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"beat-{run_id[:8]}", daemon=True)

    def __enter__(self) -> Claim:
        while self.number < 0:
            newest = _newest(self.storage, self.run_id)
            other = _live(self.storage, self.run_id, newest, self.clock) if newest >= 0 else None
            if other is not None and not self._may_replace(other):
                raise ClaimedError(self.run_id, other)
            # The attempt after the very one that was found dead: if another claimant is faster, this one is not new.
            name, body = self._name(newest + 1, "claim"), dump(self._body())
            # A bucket's answer may be lost and the request repeated, which then finds what it put itself.
            if self.storage.put_new(name, body) or self.storage.get(name) == body:
                self.number = newest + 1
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(StorageError):  # the end of this process releases it too; what went wrong before counts more
            self.storage.put_json(self._name(self.number, "released"), {"at": now()})

    def fenced(self) -> bool:
        """Whether a later attempt has been claimed: this one must write nothing more."""
        return _newest(self.storage, self.run_id) > self.number

    def _may_replace(self, other: Holder) -> bool:
        if other.worker.alive() is None:
            # On another host. Its driver is this one, which starts a run again only when Ray has lost the first try.
            return other.driver == self.driver
        return other.orphaned() and _outwait(other)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            with suppress(StorageError):  # a disk that is full for a while must not end the heartbeat
                self.storage.put_json(self._name(self.number, "beat"), {"time": self.clock()})

    def _body(self) -> dict[str, Any]:
        return {
            "worker": asdict(Process.this()),
            "driver": asdict(self.driver),
            "since": now(),
            "time": self.clock(),
            "token": uuid4().hex,
        }

    def _name(self, number: int, part: str) -> str:
        return f"runs/{self.run_id}/attempts/{number}/{part}.json"


def _newest(storage: Storage, run_id: str) -> int:
    """The newest attempt that was claimed, -1 before the first. A folder without a claim belongs to nobody yet."""
    folder = f"runs/{run_id}/attempts"
    numbers = sorted((int(name) for name in storage.names(folder) if name.isdigit()), reverse=True)
    return next((n for n in numbers if storage.exists(f"{folder}/{n}/claim.json")), -1)


def _live(storage: Storage, run_id: str, attempt: int, clock: Callable[[], float]) -> Holder | None:
    """Who holds this attempt; None if it was released or its process is dead."""
    folder = f"runs/{run_id}/attempts/{attempt}"
    claim = storage.get_json(f"{folder}/claim.json")
    if claim is None or storage.exists(f"{folder}/released.json"):
        return None
    found = Holder(attempt, Process(**claim["worker"]), Process(**claim["driver"]), claim["since"])
    alive = found.worker.alive()
    if alive is None:
        beat = storage.get_json(f"{folder}/beat.json") or claim
        alive = clock() - float(beat["time"]) < STALE_SECONDS
    return found if alive else None


def _outwait(other: Holder) -> bool:
    """Wait for the end of a worker on this host whose driver is gone; False if it goes on."""
    try:
        psutil.Process(other.worker.pid).wait(timeout=ORPHAN_SECONDS)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


def _host() -> str:
    """This machine's name and boot: a pid means nothing after a restart or in another container."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:  # noqa: PTH123 - a kernel file, not a path of ours
            boot = file.read().strip()[:8]
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    except OSError:  # not Linux
        boot, namespace = f"{psutil.boot_time():.0f}", ""
    return f"{socket.gethostname()}/{boot}{namespace.removeprefix('pid:')}"
