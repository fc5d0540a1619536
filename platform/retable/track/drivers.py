"""Drivers that other hosts can see: a driver's heartbeat in storage, and what it asks of the runs it has started.

``drivers/<host>-<pid>-<start>.beat.json`` is there while the driver runs, ``....stop.json`` asks its runs to save and
stop. A worker that does not find its driver's heartbeat works on a disk that is not the driver's.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Self

from retable.track.claims import BEAT_SECONDS, STALE_SECONDS, Holder, Process, holder
from retable.track.storage import Storage, StorageError, now

PATIENCE_SECONDS = 2 * STALE_SECONDS
"""How long a new driver waits for what a lost one left running: Ray ends it within a minute, then its claim ages."""

FORGOTTEN_SECONDS = 24 * 3600.0
"""After so long without a beat a driver is dead, whatever the clocks of its host and this one say."""


def _name(driver: Process, part: str) -> str:
    key = re.sub(r"[^\w.-]", "-", f"{driver.host}-{driver.pid}-{driver.started:.2f}")
    return f"drivers/{key}.{part}.json"


class Driver:
    """The calling process as a driver that beats; a context manager. At its end nothing is left of it."""

    def __init__(self, storage: Storage, process: Process) -> None:
        self.storage, self.process = storage, process
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beats, name="driver-beat", daemon=True)

    def ask_to_stop(self) -> None:
        """Ask every run of this driver to save where it is, and to stop."""
        self.storage.put_json(_name(self.process, "stop"), {"at": now()})

    def __enter__(self) -> Self:
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()
        with suppress(StorageError):
            for part in ("stop", "beat"):
                self.storage.delete(_name(self.process, part))

    def _beat(self) -> None:
        self.storage.put_json(_name(self.process, "beat"), {"time": time.time()})

    def _beats(self) -> None:
        while not self._end.wait(BEAT_SECONDS):
            with suppress(StorageError):
                self._beat()


def seen(storage: Storage, driver: Process) -> bool:
    """Whether the driver works in this very storage."""
    return storage.exists(_name(driver, "beat"))


def asked_to_stop(storage: Storage, driver: Process) -> bool:
    """Whether the driver wants its runs to save and stop."""
    return storage.exists(_name(driver, "stop"))


def forgotten(storage: Storage) -> dict[str, int]:
    """What killed drivers have left, with its bytes."""
    sizes = storage.sizes("drivers")
    beats = {name: storage.get_json(name) for name in sizes if name.endswith(".beat.json")}
    alive = [
        name.removesuffix("beat.json")
        for name, beat in beats.items()
        if beat is not None and time.time() - float(beat["time"]) < FORGOTTEN_SECONDS
    ]
    return {name: size for name, size in sizes.items() if not name.startswith(tuple(alive))}


def outwait(
    storage: Storage,
    runs: Iterable[str],
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> dict[str, Holder]:
    """The claims that stand once what lost drivers of other hosts have left is gone; waits for that.

    A driver that is seen to beat is alive and not waited for. One that is not is lost with its host or its cluster,
    and its runs end soon.
    """
    first: dict[str, float | None] = {}
    deadline = clock() + PATIENCE_SECONDS
    while True:
        held = {run_id: found for run_id in runs if (found := holder(storage, run_id)) is not None}
        if not [h for h in held.values() if not _beats_on(storage, h.driver, first)] or clock() > deadline:
            return held
        pause(1.0)


def _beats_on(storage: Storage, driver: Process, first: dict[str, float | None]) -> bool:
    """Whether the driver lives, as far as can be told by now: on this host by its process, elsewhere by a new beat."""
    here = driver.alive()
    if here is not None:
        return True  # a dead one's workers are this host's and are waited for as they are claimed
    beat = storage.get_json(_name(driver, "beat"))
    time_ = None if beat is None else float(beat["time"])
    key = _name(driver, "beat")
    if key not in first:
        first[key] = time_
        return False
    return time_ is not None and time_ != first[key]
