"""The fully resolved, typed settings of one training: model, data, recipe. Plain data, no torch."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from retable.data.config import Augment, Data, Frozen, Protocol


class Schedule(Frozen):
    """Multiply the learning rate by ``gamma`` at ``milestones``, or every ``every`` epochs or iterations."""

    milestones: tuple[int, ...] = ()
    every: int | None = Field(None, ge=1)
    gamma: float = Field(0.1, gt=0.0)
    unit: Literal["epoch", "iteration"] = "epoch"

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.milestones and self.every:
            raise ValueError("give milestones or every, not both")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must increase, but are {list(self.milestones)}")
        return self


class Recipe(Augment):
    """Everything about training that can change the result, augmentation included.

    ``batch_size`` is the global batch of one update.
    """

    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = Field(1e-4, gt=0.0)
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="SGD only")
    nesterov: bool = Field(False, description="SGD only")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Adam only")
    weight_decay: float = Field(0.0, ge=0.0)
    schedule: Schedule = Schedule()
    epochs: int = Field(..., ge=1)
    batch_size: int = Field(16, ge=1)
    accumulation: int = Field(1, ge=1, description="micro-batches per update; must divide batch_size / workers")
    clip_grad: float | None = Field(None, gt=0.0, description="largest gradient norm")
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    deterministic: bool = True
    workers: int = Field(1, ge=1, description="train world size; more than one trains through Ray Train (DDP)")
    sync_bn: bool = False

    feature_views: int = Field(
        0,
        ge=0,
        description="on an earlier stage's features: random training views that are kept of each video;"
        " 0: its centre view and the mirror image of that",
    )

    @model_serializer(mode="wrap")
    def _without_unused_views(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Recipes of trainings on videos look as they did before there were any views to keep."""
        body: dict[str, Any] = dump(self)
        if body["feature_views"] == 0:
            del body["feature_views"]
        return body

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.batch_size % (self.workers * self.accumulation):
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of workers x accumulation"
                f" = {self.workers} x {self.accumulation}"
            )
        return self


class Resources(Frozen):
    """What a run asks of the machine. Outside the identity: it cannot change a number (the device is recorded)."""

    cpus_per_worker: float = Field(1, gt=0)
    gpus_per_worker: float = Field(0, ge=0, description="fractions share a GPU between runs of one worker")
    loader_workers: int | None = Field(
        None, ge=0, description="data processes per worker; 0 reads in the training process; default: the free cores"
    )
    checkpoint_steps: int | None = Field(None, ge=1, description="also save every k updates inside an epoch")

    def data_processes(self, cpus: float = 0, gpus: float = 0) -> int:
        """Data processes of one worker on a machine of ``cpus`` and ``gpus``: as asked for, else the free cores.

        These are the cores that the worker holds beyond its first; with a GPU, its share of the machine's if that is
        more, since the GPUs limit how many runs there are.
        """
        if self.loader_workers is not None:
            return self.loader_workers
        share = cpus * min(1.0, self.gpus_per_worker / gpus) if gpus else 0.0
        return max(0, int(max(self.cpus_per_worker, share)) - 1)


class Config(Frozen):
    """One training, fully resolved. ``model`` is ``{"name": ..., **every knob}`` as its model file validated it."""

    model: dict[str, Any]
    data: Data
    recipe: Recipe


__all__ = ["Config", "Data", "Protocol", "Recipe", "Resources", "Schedule"]
