"""What runs wait for: resources that the cluster has not given them. Said after a while, with what there is."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

import ray
from ray._private.state import state as ray_state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData as Table  # type: ignore[attr-defined]
from ray.exceptions import RayError
from rich.console import Console

LOOK_SECONDS = 5.0
PATIENCE_SECONDS, AGAIN_SECONDS = 30.0, 600.0
"""After so long a wait is told, and told again. A machine that an autoscaler starts takes minutes."""
KINDS = ("CPU", "GPU")

Amounts = Mapping[str, float]


@dataclass(frozen=True)
class Group:
    """Resources that are asked for together: ``workers`` times ``each``, those of one worker on one machine."""

    workers: int
    each: Amounts
    given: bool


def stuck(groups: Sequence[Group]) -> list[Group]:
    """The groups that wait for more than their turn, each kind once.

    Runs of one worker wait for each other: theirs say something only while none is given anything. A run of several
    workers is not begun before its workers fit beside what this driver runs.
    """
    working = any(group.given for group in groups)
    waiting = [g for g in groups if not g.given and (g.workers > 1 or not working)]
    return [group for i, group in enumerate(waiting) if group not in waiting[:i]]


def sentence(group: Group, free: Amounts, have: Amounts) -> str:
    """What a group asks for and what there is of it now."""
    asked = {kind: group.workers * each for kind, each in group.each.items()}
    each = {kind: f" ({group.workers} workers x {n:g})" if group.workers > 1 else "" for kind, n in group.each.items()}
    parts = [
        f"{n:g} {kind}s{each[kind]} are asked for, {free.get(kind, 0.0):g} of {have.get(kind, 0.0):g} are free"
        for kind, n in asked.items()
    ]
    if any(n > have.get(kind, 0.0) for kind, n in asked.items()):
        why = "a machine was lost or is still to come"
    elif any(n > free.get(kind, 0.0) for kind, n in asked.items()):
        why = "others use the cluster"
    else:
        why = "no machine has enough for a worker"
    return f"waiting for resources: {'; '.join(parts)}: {why} (retable cluster status shows more)"


@dataclass
class Patience:
    """Which waits are long enough to be told, by what is waited for and when it was seen."""

    since: dict[str, float] = field(default_factory=dict)
    told: dict[str, float] = field(default_factory=dict)

    def over(self, waits: Sequence[str], now: float) -> list[str]:
        """Those of ``waits`` (all that there are now) that are to be told now."""
        self.since = {wait: self.since.get(wait, now) for wait in waits}
        self.told = {wait: at for wait, at in self.told.items() if wait in self.since}
        due = [
            wait
            for wait, began in self.since.items()
            if now - began >= PATIENCE_SECONDS and (wait not in self.told or now - self.told[wait] >= AGAIN_SECONDS)
        ]
        self.told |= dict.fromkeys(due, now)
        return due


class Waiting:
    """Tells the waits of this driver's runs while it is open; a context manager, inside a Ray session."""

    def __init__(self, console: Console) -> None:
        self.console, self.patience = console, Patience()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._looks, name="waiting", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()

    def _looks(self) -> None:
        while not self._end.wait(LOOK_SECONDS):
            with suppress(RayError, RuntimeError, OSError):  # Ray does not answer: what that means others say
                if ray.is_initialized():
                    self._look()

    def _look(self) -> None:
        waits = {repr(group): group for group in stuck(groups())}
        for wait in self.patience.over(list(waits), time.monotonic()):
            free: Amounts = ray.available_resources()  # type: ignore[no-untyped-call]
            have: Amounts = ray.cluster_resources()  # type: ignore[no-untyped-call]
            self.console.print(sentence(waits[wait], free, have), highlight=False, soft_wrap=True)


def groups() -> list[Group]:
    """What this driver's runs have asked Ray for. Those of a trial that only waits for its workers hold nothing."""
    job = bytes.fromhex(ray.get_runtime_context().get_job_id())
    accessor = ray_state._connect_and_get_accessor()  # Ray's own table leaves out whose a group is
    found = []
    for data in accessor.get_placement_group_table():
        group = Table.FromString(data)
        if group.creator_job_id != job or group.state == Table.REMOVED:
            continue
        bundles = [dict(bundle.unit_resources) for bundle in group.bundles]
        each = {kind: bundles[0][kind] for kind in KINDS if bundles and bundles[0].get(kind)}
        if each:
            given = group.state == Table.CREATED
            found.append(Group(len(bundles), each, given))
    return found
