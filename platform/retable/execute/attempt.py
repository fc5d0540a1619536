"""One attempt at a run, whatever is done in it: hold its claim, write ``result.json``, say how it ended. Not Ray."""

from __future__ import annotations

import platform
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Literal

import torch

from retable import __version__
from retable.data.errors import DataError
from retable.execute.order import Order
from retable.track.claims import Claim, ClaimedError
from retable.track.drivers import asked_to_stop
from retable.track.storage import Storage, StorageError, dump, now
from retable.train.checkpoint import CheckpointMismatch
from retable.train.job import Interrupted


@dataclass(frozen=True)
class Outcome:
    """How carrying out an order ended. All but ``done`` and ``failed`` leave the run unfinished: it can be gone on
    with, nothing is lost."""

    status: Literal["done", "failed", "claimed", "environment", "pruned", "stopped"]
    reason: str | None = None


class Fenced(RuntimeError):
    """A later attempt trains this run; this one must stop."""


class Pruned(RuntimeError):
    """A search has stopped this run early; it keeps its checkpoint and gets no result."""


def carry_out(order: Order, fit: Callable[[int], None]) -> Outcome:
    """Hold the run's claim while ``fit(attempt)`` trains and scores it, then write ``result.json``.

    A failure of the run itself is recorded with its reason. What is wrong with the machine (disk, dataset, a foreign
    checkpoint) is returned, not recorded: put it right and the same command goes on.
    """
    storage = Storage(order.places.storage)
    log = _Log(storage, order)
    try:
        if asked_to_stop(storage, order.places.driver):
            return Outcome("stopped", "its driver stops")
        if not storage.exists(f"{order.folder}/spec.json"):
            storage.put_new(f"{order.folder}/spec.json", dump(order.spec))
        with Claim(storage, order.run_id, order.places.driver) as claim:
            log(f"attempt {claim.number} on {socket.gethostname()}, retable {__version__}, torch {torch.__version__}")
            return _attempt(storage, order, claim, fit, log)
    except ClaimedError as error:
        return Outcome("claimed", str(error))
    except (Pruned, Interrupted) as stop:
        log(str(stop))
        log.save()
        return Outcome("pruned" if isinstance(stop, Pruned) else "stopped", str(stop))
    except (StorageError, DataError, CheckpointMismatch, Fenced) as error:
        return Outcome("environment", str(error))


def _attempt(storage: Storage, order: Order, claim: Claim, fit: Callable[[int], None], log: _Log) -> Outcome:
    reason = None
    try:
        fit(claim.number)
    except (StorageError, DataError, CheckpointMismatch, Fenced, Pruned, Interrupted):
        raise
    except Exception as error:
        reason = _reason(error)
        log(traceback.format_exc())
    if claim.fenced():
        raise Fenced(f"attempt {claim.number} of {order.run_id} was superseded")
    status: Literal["done", "failed"] = "done" if reason is None else "failed"
    log(status if reason is None else f"failed: {reason}")
    log.save()
    result = {
        "schema": 1,
        "run_id": order.run_id,
        "status": status,
        "reason": reason,
        "attempt": claim.number,
        "cost": _cost(storage, order),
        "environment": storage.get_json(f"{order.folder}/attempts/{claim.number}/environment.json") or {},
        "finished": now(),
    }
    storage.put_new(f"{order.folder}/result.json", dump(result))
    _prune(storage, order)
    return Outcome(status, reason)


class _Log:
    """Lines about a run, kept in ``log.txt`` beside those of earlier attempts."""

    def __init__(self, storage: Storage, order: Order):
        self.storage, self.name = storage, f"{order.folder}/log.txt"
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(f"{now()} {line}")

    def save(self) -> None:
        before = self.storage.get(self.name) or b""
        self.storage.put(self.name, before + "".join(f"{line}\n" for line in self.lines).encode())


def environment(device: str) -> dict[str, str]:
    """What the numbers may depend on beyond the config: recorded, and said in tables that mix it."""
    return {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else f"cpu {platform.machine()}",
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "retable": __version__,
    }


def _cost(storage: Storage, order: Order) -> dict[str, float]:
    if order.measures is not None:
        return {}
    epochs = list(storage.epochs(order.run_id))
    sums = {key: sum(e.get(key, 0.0) for e in epochs) for key in ("seconds", "cpu_seconds")}
    steps = [e["step_seconds"] for e in epochs if "step_seconds" in e]
    return {**sums, "step_seconds": median(steps) if steps else 0.0, "epochs": float(len(epochs))}


def _prune(storage: Storage, order: Order) -> None:
    """Keep the final checkpoint (and the best): those of the newest attempt that wrote one."""
    for kind in ("last", "best"):
        for name in storage.checkpoints(order.run_id, kind)[1:]:
            storage.delete(name)


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return f"out of memory: {error or 'host memory'}"
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]
