"""The replay of searches on recorded curves: its accounting, on the committed grid."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "search.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_search", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_search"] = module
    spec.loader.exec_module(module)
    return module


def test_the_grid_is_whole(bench: ModuleType) -> None:
    grid = bench.read_grid()
    assert len(grid.curves) == 64
    assert {len(curve) for curve in grid.curves.values()} == {9}
    assert [grid.curve(point)[-1] for point in grid.hunt.space.points()]


def test_random_trials_cost_what_they_train_and_are_not_repeated(bench: ModuleType) -> None:
    grid = bench.read_grid()
    timeline = bench.replay_retable(grid, 0, "random", bench.NONE)
    assert [spent for spent, _ in timeline] == [9 * k for k in range(1, len(timeline) + 1)]
    assert len(timeline) == bench.WHOLE_BUDGET // 9
    assert {value for _, value in timeline} <= {curve[-1] for curve in grid.curves.values()}


def test_early_stopping_leaves_the_first_trial_whole_in_both(bench: ModuleType) -> None:
    grid = bench.read_grid()
    ours = bench.replay_retable(grid, 1, "random", bench.ASHA)
    rays = bench.replay_ray(grid, 1)
    for timeline in (ours, rays):
        assert timeline[0][0] == 9
        assert len(timeline) < bench.WHOLE_BUDGET // 9 + 1
        assert bench.best_so_far(timeline, 9)[-1] == max(
            value for spent, value in timeline if spent <= bench.WHOLE_BUDGET
        )
