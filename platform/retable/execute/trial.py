"""The function that Ray Tune runs: one run, in this process, or through Ray Train when it needs several workers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

from ray import train as ray_train
from ray import tune
from ray.train.torch import TorchTrainer

from retable.execute.attempt import carry_out
from retable.execute.order import Order
from retable.execute.work import train_and_score


def trial(config: dict[str, Any], orders: Mapping[str, Order]) -> dict[str, Any]:
    """Carry out the order that ``config["run"]`` names, or that ``config["order"]`` is. Reports epochs, returns how it
    ended; failures too."""
    order: Order = config["order"] if "order" in config else orders[config["run"]]
    device = "cuda" if order.resources.gpus_per_worker > 0 else "cpu"

    def here(attempt: int) -> None:
        train_and_score(order, attempt, device=device, report=tune.report)

    outcome = carry_out(order, here if order.workers == 1 else lambda attempt: _fit(order, attempt))
    return {"status": outcome.status, "reason": outcome.reason or "", "epoch": order.config.recipe.epochs - 1}


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


def _rank(config: dict[str, Any]) -> None:
    context = ray_train.get_context()
    order: Order = config["order"]
    device = str(ray_train.torch.get_device()) if order.resources.gpus_per_worker > 0 else "cpu"
    train_and_score(
        order, config["attempt"], device=device, rank=context.get_world_rank(), world=context.get_world_size()
    )
