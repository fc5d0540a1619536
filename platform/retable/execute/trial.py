"""The function that Ray Tune runs: one run, in this process, or through Ray Train when it needs several workers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ray
from ray import train as ray_train
from ray import tune
from ray.train.torch import TorchTrainer

from retable.execute import measure
from retable.execute.attempt import Outcome, carry_out
from retable.execute.nodes import strange_storage
from retable.execute.order import Order, missing_views
from retable.execute.work import train_and_score
from retable.track.drivers import asked_to_stop
from retable.track.storage import Storage
from retable.train.job import Interrupted


def trial(config: dict[str, Any], orders: Mapping[str, Order]) -> dict[str, Any]:
    """Carry out the order that ``config["run"]`` names, or that ``config["order"]`` is. Reports epochs, returns how it
    ended; failures too."""
    order: Order = config["order"] if "order" in config else orders[config["run"]]
    if order.places.driver.alive() is None and (strange := strange_storage(order.places)) is not None:
        return {"status": "environment", "reason": strange, "epoch": -1}
    device = "cuda" if order.resources.gpus_per_worker > 0 else "cpu"

    def here(attempt: int) -> None:
        train_and_score(_on_this_machine(order), attempt, device=device, report=tune.report)

    if order.measures is not None:
        outcome = _measured(order, device)
    else:
        outcome = carry_out(order, here if order.workers == 1 else lambda attempt: _fit(order, attempt))
    return {"status": outcome.status, "reason": outcome.reason or "", "epoch": order.config.recipe.epochs - 1}


def _measured(order: Order, device: str) -> Outcome:
    """A measurement on the machine that Ray has chosen; nothing to do if that one has been measured."""
    order = measure.on(order, _machine(order))
    if measure.is_done(order):
        return Outcome("done")
    if order.workers > 1:
        return carry_out(order, lambda attempt: _fit(order, attempt))
    here = _on_this_machine(order)
    return carry_out(order, lambda attempt: measure.measure_and_keep(here, attempt, device=device))


def _machine(order: Order) -> dict[str, str]:
    """The machine of the order's workers, which with several of them may be another one than this process's."""
    if order.workers == 1:
        return measure.machine_of(order)
    asked = ray.remote(
        num_cpus=order.resources.cpus_per_worker,
        num_gpus=order.resources.gpus_per_worker,
        scheduling_strategy="DEFAULT",  # not in the trial's own bundle, which has no CPUs
    )
    found: dict[str, str] = ray.get(asked(measure.machine_of).remote(order))
    return found


def _on_this_machine(order: Order) -> Order:
    """The order with its data processes counted out on the machine that this process runs on."""
    here = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    found: dict[str, float] = next((node["Resources"] for node in nodes if node["NodeID"] == here), {})
    processes = order.resources.data_processes(found.get("CPU", 0.0), found.get("GPU", 0.0))
    return replace(order, resources=order.resources.model_copy(update={"loader_workers": processes}))


def _fit(order: Order, attempt: int) -> None:
    """Train with ``order.workers`` processes. Results go to storage from rank 0; a lost worker restarts the group."""
    resources = order.resources
    per_worker = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    with tempfile.TemporaryDirectory(prefix="retable-train-") as folder:
        trainer = TorchTrainer(
            _rank,
            train_loop_config={"order": order, "attempt": attempt},
            scaling_config=ray_train.ScalingConfig(
                num_workers=order.workers,
                use_gpu=resources.gpus_per_worker > 0,
                resources_per_worker={k: v for k, v in per_worker.items() if v},
            ),
            run_config=ray_train.RunConfig(
                name=order.run_id,
                storage_path=folder,  # no Train checkpoints: ours are in storage
                failure_config=ray_train.FailureConfig(max_failures=2),
            ),
        )
        trainer.fit()
    storage = Storage(order.places.storage)
    if missing_views(storage, order) and asked_to_stop(storage, order.places.driver):
        raise Interrupted(f"stopped with {order.workers} workers")


def _rank(config: dict[str, Any]) -> None:
    context = ray_train.get_context()
    order = _on_this_machine(config["order"])
    device = str(ray_train.torch.get_device()) if order.resources.gpus_per_worker > 0 else "cpu"
    work = measure.measure_and_keep if order.measures is not None else train_and_score
    with suppress(Interrupted):  # an exception would make Ray start the group again; _fit tells
        work(order, config["attempt"], device=device, rank=context.get_world_rank(), world=context.get_world_size())
