from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from retable.study.config import Recipe
from retable.train.optim import build_optimizer, learning_rate, lr_factor, set_learning_rate


def recipe(**settings: Any) -> Recipe:
    return Recipe.model_validate({"epochs": 30, "lr": 0.5, **settings})


@pytest.mark.parametrize(("epoch", "factor"), [(0, 1.0), (9, 1.0), (10, 0.1), (19, 0.1), (20, 0.01), (29, 0.01)])
def test_milestones_take_effect_in_the_epoch_they_name(epoch: int, factor: float) -> None:
    steps = recipe(schedule={"milestones": [10, 20]})
    assert lr_factor(steps, epoch, iteration=10_000) == pytest.approx(factor)


@pytest.mark.parametrize(("iteration", "factor"), [(0, 1.0), (99, 1.0), (100, 0.5), (150, 0.25), (1000, 0.25)])
def test_milestones_may_count_iterations(iteration: int, factor: float) -> None:
    steps = recipe(schedule={"milestones": [100, 150], "gamma": 0.5, "unit": "iteration"})
    assert lr_factor(steps, epoch=29, iteration=iteration) == factor


@pytest.mark.parametrize(("unit", "epoch", "iteration"), [("epoch", 12, 3), ("iteration", 3, 12)])
def test_every_multiplies_again_and_again(unit: str, epoch: int, iteration: int) -> None:
    steps = recipe(schedule={"every": 4, "gamma": 0.5, "unit": unit})
    assert learning_rate(steps, epoch, iteration) == 0.5 * 0.5**3


def test_without_a_schedule_the_rate_stays() -> None:
    assert learning_rate(recipe(), 29, 9999) == 0.5


def test_sgd_and_adam_take_the_settings_of_the_recipe() -> None:
    layer = nn.Linear(2, 2)
    sgd = build_optimizer(
        recipe(optimizer="sgd", momentum=0.8, nesterov=True, weight_decay=1e-3), layer.parameters()
    ).param_groups[0]
    assert (sgd["lr"], sgd["momentum"], sgd["nesterov"], sgd["weight_decay"]) == (0.5, 0.8, True, 1e-3)
    adam = build_optimizer(recipe(betas=(0.8, 0.9), weight_decay=1e-3), layer.parameters()).param_groups[0]
    assert (adam["lr"], adam["betas"], adam["weight_decay"]) == (0.5, (0.8, 0.9), 1e-3)


def test_frozen_parameters_are_left_alone() -> None:
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    optimizer = build_optimizer(recipe(), layer.parameters())
    assert [p is layer.weight for p in optimizer.param_groups[0]["params"]] == [True]


def test_a_new_rate_reaches_the_next_update() -> None:
    weight = nn.Parameter(torch.ones(()))
    optimizer = build_optimizer(recipe(optimizer="sgd", momentum=0.0), [weight])
    weight.grad = torch.ones(())
    set_learning_rate(optimizer, 0.25)
    optimizer.step()
    assert weight.item() == 0.75
