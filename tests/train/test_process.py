"""A reused process is handed back as it was found."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retable.train.loop import NonFiniteLoss, train
from retable.train.process import isolated, rng_kept, rng_state, seed_everything, set_rng_state
from tests.train.fakes import Blobs, Kept, make_job

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def settings() -> dict[str, Any]:
    return {
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    }


def draws() -> tuple[float, float, float]:
    return torch.rand(()).item(), float(np.random.random()), random.random()


@pytest.fixture
def odd_process() -> Iterator[dict[str, Any]]:
    """A process with settings that no run wants."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    torch.backends.cudnn.benchmark = True
    yield settings()
    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float32)
    torch.backends.cudnn.benchmark = False


@pytest.mark.parametrize("explode", [False, True])
def test_training_puts_back_every_setting_also_after_a_failure(odd_process: dict[str, Any], explode: bool) -> None:
    try:
        train(make_job(model={"explode": explode}), Blobs(), Kept())
        assert not explode
    except NonFiniteLoss:
        assert explode
    assert settings() == odd_process


def test_training_leaves_the_random_states_alone() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    before = rng_state(CPU)
    expected = draws()
    set_rng_state(before, CPU)
    train(make_job(), Blobs(), Kept())
    assert draws() == expected


def test_inside_there_is_one_thread_and_the_recipe_decides_on_determinism(odd_process: dict[str, Any]) -> None:
    with isolated(make_job(deterministic=True)):
        inside = settings()
        assert (inside["threads"], inside["dtype"], inside["deterministic"]) == (1, torch.float32, True)
        with isolated(make_job(deterministic=False)):
            assert not settings()["deterministic"]
        assert settings() == inside
    assert settings() == odd_process


def test_ranks_draw_different_numbers_from_one_seed() -> None:
    with rng_kept(CPU):
        seen = []
        for rank in (0, 1, 0):
            seed_everything(5, rank)
            seen.append(draws())
    assert seen[0] == seen[2]
    assert all(a != b for a, b in zip(seen[0], seen[1], strict=True))


def test_training_needs_neither_ray_nor_mlflow_nor_optuna_nor_av_nor_pyarrow() -> None:
    code = (
        "import sys\n"
        "for name in ('ray', 'mlflow', 'optuna', 'av', 'pyarrow', 'pandas'): sys.modules[name] = None\n"
        "import retable.train.loop, retable.train.evaluate\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "platform")}
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=env, cwd=ROOT)
