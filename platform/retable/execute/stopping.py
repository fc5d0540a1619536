"""SIGTERM to a driver: its runs save where they are, then everything ends. A second one ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

from retable.track.drivers import Driver

GRACE_SECONDS = 90.0
"""How long runs may take to save: an update, a look at the storage, and the checkpoint."""


@contextmanager
def graceful(driver: Driver, console: Console) -> Iterator[Callable[[], bool]]:
    """While inside, SIGTERM asks the driver's runs to save and stop; yields whether that has been asked.

    After :data:`GRACE_SECONDS`, or at a second SIGTERM, KeyboardInterrupt is raised in the main thread.
    """
    asked = threading.Event()
    timer = threading.Timer(GRACE_SECONDS, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True

    def ask(_: int, __: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        timer.start()
        # In a thread: a request to the storage must not interrupt another one that the main thread is in.
        threading.Thread(target=driver.ask_to_stop, daemon=True).start()
        console.print("stopping: runs save where they are; the same command goes on from there", highlight=False)

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set  # signals are the main thread's
        return
    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield asked.is_set
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)
