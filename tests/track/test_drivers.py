"""Which claims of other hosts a new driver waits for: those of a lost driver, not those of one that beats."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from retable.track import claims, drivers
from retable.track.claims import STALE_SECONDS, Process
from retable.track.drivers import Driver, asked_to_stop, outwait, seen
from retable.track.storage import Storage

ME = Process.this()
LOST = Process("lost-host/0123abcd4026531836", 4242, 1.0)
BUSY = Process("busy-host/0123abcd4026531836", 4243, 2.0)
WORKER = Process("worker-host/0123abcd4026531836", 4244, 3.0)


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        real = claims.holder
        monkeypatch.setattr(drivers, "holder", lambda storage, run: real(storage, run, clock=lambda: self.now))


def claim(storage: Storage, run_id: str, driver: Process, time: float) -> None:
    body = {"worker": asdict(WORKER), "driver": asdict(driver), "since": "2030-01-01T00:00:00Z", "time": time}
    storage.put_json(f"runs/{run_id}/attempts/0/claim.json", body)


def test_what_a_lost_driver_left_is_waited_for_until_its_claim_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, clock = Storage(tmp_path), Clock(monkeypatch)
    claim(storage, "r", LOST, clock.now)

    def pause(seconds: float) -> None:
        clock.now += seconds

    assert outwait(storage, ["r", "other"], clock=lambda: clock.now, pause=pause) == {}
    assert STALE_SECONDS <= clock.now - 1000.0 < STALE_SECONDS + 5


def test_a_driver_that_beats_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, clock = Storage(tmp_path), Clock(monkeypatch)
    claim(storage, "r", BUSY, clock.now)
    beats = Driver(storage, BUSY)
    beats._beat()

    def pause(seconds: float) -> None:
        clock.now += seconds
        if clock.now >= 1010.0:
            beats._beat()

    assert outwait(storage, ["r"], clock=lambda: clock.now, pause=pause)["r"].driver == BUSY
    assert clock.now - 1000.0 < 15


def test_a_driver_is_seen_while_it_runs_and_leaves_nothing(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with Driver(storage, ME) as driver:
        assert seen(storage, ME)
        assert not asked_to_stop(storage, ME)
        driver.ask_to_stop()
        assert asked_to_stop(storage, ME)
        assert not asked_to_stop(storage, LOST)
    assert storage.names("drivers") == []
