"""The mechanism checks' measures: what they count as right, what they leave out, and when an effect is said to hold."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retable.data.loader import Batch

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "mechanisms.py"


@pytest.fixture(scope="module")
def bench() -> Any:
    spec = importlib.util.spec_from_file_location("bench_mechanisms", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_mechanisms"] = module
    spec.loader.exec_module(module)
    return module


def clips(videos: int, frames: int) -> Batch:
    numbers = torch.arange(videos * frames, dtype=torch.uint8).view(videos, frames, 1, 1, 1).expand(-1, -1, 2, 2, 3)
    return Batch({"rgb": numbers}, torch.zeros(videos), torch.arange(videos), torch.zeros(videos, dtype=torch.bool))


def test_a_still_clip_repeats_one_of_its_own_frames_and_training_draws_anew_each_epoch(bench: Any) -> None:
    batch, drawn = clips(6, 8), bench.still(None, seed=1)
    first, second = drawn(batch, 0), drawn(batch, 1)
    assert torch.equal(first, first[:, :1].expand_as(first))
    assert all(first[i, 0, 0, 0, 0] in batch.clips["rgb"][i] for i in range(6))
    assert not torch.equal(first, second)
    assert torch.equal(first, drawn(batch, 0))
    assert drawn(batch, -1).shape == first.shape  # while the test videos are scored
    assert bench.still(3)(batch, 0)[2, 0, 0, 0, 0] == batch.clips["rgb"][2, 3, 0, 0, 0]


def test_only_reversed_pairs_count_and_other_classes_cannot_make_a_choice_wrong(bench: Any) -> None:
    classes = ("Grow", "Shrink", "SwingFast", "SwingSlow")
    probs = np.array([[0.3, 0.1, 0.6, 0.0], [0.4, 0.2, 0.2, 0.2], [0.0, 0.0, 0.1, 0.9]])
    assert bench.within_pairs(probs, np.array([0, 1, 2]), classes) == 50.0


def test_attention_on_the_action_correlates_wherever_the_segments_lie(bench: Any) -> None:
    inside = np.array([[[0, 0, 1, 1], [1, 0, 0, 0]], [[1, 1, 1, 1], [0, 0, 0, 0]]], np.float64)
    uniform = np.full((2, 2, 4), 0.25)
    on_action = uniform.copy()
    on_action[0] = [[0.1, 0.1, 0.4, 0.4], [0.475, 0.175, 0.175, 0.175]]
    on_action[1, 0, 0], on_action[1, 0, 1] = 0.4, 0.1
    assert bench.mean_correlation(on_action, inside) == pytest.approx(1.0)  # the second video cannot tell
    assert bench.mean_correlation(2 * uniform - on_action, inside) == pytest.approx(-1.0)


@pytest.mark.parametrize(("values", "holds"), [([60.0, 61.0, 62.0], True), ([40.0, 51.0, 62.0], False), ([60.0], None)])
def test_an_effect_holds_when_its_interval_lies_above_zero(bench: Any, values: list[float], holds: bool | None) -> None:
    assert bench.finding("order", "x", "%", values, "chance", [50.0] * len(values)).holds is holds
