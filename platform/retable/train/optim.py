"""The optimizer of a recipe, and its learning rate as a pure function of where training stands."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, Adam, Optimizer

from retable.study.config import Recipe


def lr_factor(recipe: Recipe, epoch: int, iteration: int) -> float:
    """What ``recipe.lr`` is multiplied by in the update ``iteration`` (0-based, over the whole run) of ``epoch``.

    A milestone of 10 takes effect in epoch (or iteration) 10, that is after 10 finished ones.
    """
    schedule = recipe.schedule
    now = epoch if schedule.unit == "epoch" else iteration
    drops = now // schedule.every if schedule.every else bisect_right(schedule.milestones, now)
    return float(schedule.gamma**drops)


def learning_rate(recipe: Recipe, epoch: int, iteration: int) -> float:
    """The learning rate of one update."""
    return recipe.lr * lr_factor(recipe, epoch, iteration)


def build_optimizer(recipe: Recipe, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """SGD or Adam over the parameters that take gradients; weight decay is the L2 term of both."""
    trained = [p for p in parameters if p.requires_grad]
    if recipe.optimizer == "sgd":
        return SGD(
            trained,
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
    return Adam(trained, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay)


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Give every parameter group the same rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr
