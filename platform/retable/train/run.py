"""What changes while a run trains: weights, optimizer, random states, sums; and how it is saved and taken up again."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from retable.train.checkpoint import CheckpointMismatch, State, check, stamp
from retable.train.job import Job
from retable.train.meter import Meter
from retable.train.model import build_model, channels_last, input_specs, load_weights
from retable.train.optim import build_optimizer
from retable.train.process import gather, rng_state, seed_everything, set_rng_state


class Run:
    """One rank of a run at an update: ``step`` updates into ``epoch``. ``replica`` is what training calls."""

    def __init__(self, job: Job, device: torch.device, rank: int, world: int) -> None:
        self.job, self.device, self.rank, self.world = job, device, rank, world
        recipe = job.config.recipe
        self.model = build_model(job.config)
        self.inputs = input_specs(self.model)
        if recipe.sync_bn and world > 1:
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)  # type: ignore[no-untyped-call]
        if recipe.channels_last:
            self.model = channels_last(self.model)
        self.model.to(device)
        self.replica = self.model if world == 1 else _distributed(self.model, device)
        self.optimizer = build_optimizer(recipe, self.model.parameters())
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        self.epoch = self.step = 0
        self.best: float | None = None
        self.metrics: dict[str, float] = {}
        self.meter = Meter()
        seed_everything(job.seed, rank)  # the draws of training do not depend on how many the weights took

    def state(self) -> State:
        """Collective: every rank calls it and gets the whole state."""
        mine = {"rng": rng_state(self.device), "sums": self.meter.sums() if self.step else {}}
        return State(
            stamp=stamp(self.job.config),
            seed=self.job.seed,
            epoch=self.epoch,
            step=self.step,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            ranks=gather(mine, self.world),
            best=self.best,
            metrics=self.metrics,
        )

    def restore(self, state: State) -> None:
        """Go on where ``state`` was taken.

        Raises:
            CheckpointMismatch: it is of another config or seed, or its weights do not fit.
        """
        check(state, self.job.config, self.job.seed)
        try:
            load_weights(self.model, state.model)
            self.optimizer.load_state_dict(state.optimizer)
        except (RuntimeError, ValueError) as error:
            raise CheckpointMismatch(
                f"the checkpoint has this run's config {state.stamp}, but its weights do not fit the model:"
                f" was the model file changed without raising its SEMANTICS? {error}"
            ) from error
        self.scaler.load_state_dict(state.scaler)
        self.epoch, self.step, self.best, self.metrics = state.epoch, state.step, state.best, state.metrics
        mine = state.ranks[self.rank]
        self.meter = Meter(mine["sums"])
        set_rng_state(mine["rng"], self.device)

    def share_buffers(self) -> None:
        """Rank 0's buffers (batch-norm statistics) for all: during an epoch each rank's follow its own clips."""
        if self.world > 1:
            for buffer in self.model.buffers():
                dist.broadcast(buffer, src=0)

    def finish_epoch(self, score: float | None) -> bool:
        """Step to the next epoch; whether ``score`` on the held-out videos is the best so far."""
        self.epoch, self.step = self.epoch + 1, 0
        self.meter = Meter()
        if score is None or (self.best is not None and score <= self.best):
            return False
        self.best = score
        return True


def _distributed(model: nn.Module, device: torch.device) -> nn.Module:
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
