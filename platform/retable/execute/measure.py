"""The speed of a network on the machine that a trial runs on, without Ray: kept like a run's scores, under an id that
holds the machine."""

from __future__ import annotations

from dataclasses import replace

from retable.execute.attempt import environment
from retable.execute.order import Order
from retable.execute.work import open_data
from retable.study import identity
from retable.track.storage import Storage
from retable.train import machine
from retable.train.speed import measure


def machine_of(order: Order) -> dict[str, str]:
    """This machine, as the order would use it.

    Raises:
        RuntimeError: the order asks for a GPU and there is none.
    """
    found = machine.describe(gpu=order.resources.gpus_per_worker > 0)
    if found is None:
        raise RuntimeError(f"measurement {order.run_id} asks for a GPU, but torch finds none here")
    return found


def on(order: Order, found: dict[str, str]) -> Order:
    """The order as one of that machine: on another one it is another measurement."""
    key = identity.measurement_id(str(order.spec["config_id"]), found)
    return replace(order, spec={**order.spec, "run_id": key, "machine": found})


def is_done(order: Order) -> bool:
    """Whether storage has this machine's result."""
    return Storage(order.places.storage).exists(f"{order.folder}/result.json")


def measure_and_keep(order: Order, attempt: int, *, device: str, rank: int = 0, world: int = 1) -> None:
    """One rank's part of the measurement; rank 0 keeps the result as the metrics of the order's view."""
    storage, (view,) = Storage(order.places.storage), order.views
    if rank == 0:
        about = environment(device) | order.spec["machine"]
        storage.put_json(f"{order.folder}/attempts/{attempt}/environment.json", about)
    data = open_data(order)
    metric = str(order.measures)
    found = measure(metric, order.config, data, view.protocol, device=device, rank=rank, world=world)
    if rank == 0:
        found["data_processes"] = float(order.resources.data_processes())
        storage.put_json(f"{order.folder}/scores/{view.key}.json", found)
