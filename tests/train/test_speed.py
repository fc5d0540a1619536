"""What is timed, how often, and which time counts. The clock is the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from retable.data.config import Protocol
from retable.data.loader import Batch
from retable.train import machine, speed
from tests.train.fakes import Blobs, make_job


class Clock:
    """Every batch that is read takes ``read`` seconds, in the first pass ten times as long; nothing else takes any."""

    def __init__(self, read: float) -> None:
        self.now, self.read = 0.0, read

    def perf_counter(self) -> float:
        return self.now


class Timed(Blobs):
    def __init__(self, clock: Clock, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.clock, self.passes = clock, 0
        self.views: list[int] = []

    def eval_batches(self, *args: Any, **kwargs: Any) -> Iterator[Batch]:
        self.passes += 1
        for batch in super().eval_batches(*args, **kwargs):
            self.clock.now += self.clock.read * (10 if self.passes == 1 else 1)
            self.views.append(len(batch.videos))
            yield batch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock(0.5)
    monkeypatch.setattr(speed, "time", found)
    return found


def test_throughput_is_videos_with_all_their_views_per_second_of_the_whole_loop(clock: Clock) -> None:
    data, config = Timed(clock, test=6), make_job(batch_size=8).config
    found = speed.measure("videos_per_second", config, data, Protocol(clips=2, crops="center"))
    assert data.passes == speed.PASSES + 1
    assert sum(data.views) == (speed.PASSES + 1) * 6 * 2
    assert found["videos_per_second"] == pytest.approx(6 / (2 * 0.5))  # twelve views in two batches; not the first pass
    assert found["videos_per_second.low"] == found["videos_per_second.high"] == found["videos_per_second"]
    assert (found["videos"], found["views"], found["batch"], found["passes"]) == (6, 2, 8, speed.PASSES)


def test_a_pass_over_many_videos_ends_early_and_counts_what_it_saw(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "VIDEOS", 4)
    data, config = Timed(clock, test=20), make_job(batch_size=3).config
    found = speed.measure("videos_per_second", config, data, Protocol())
    assert sum(data.views) == (speed.PASSES + 1) * 6
    assert found["videos_per_second"] == pytest.approx(6 / 1.0)


def test_reading_is_no_part_of_a_videos_latency(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*args: Any) -> torch.Tensor:
        clock.now += 0.25
        return torch.zeros(1)

    monkeypatch.setattr(speed, "probabilities", slow)
    data = Timed(clock, test=3)
    found = speed.measure("ms_per_video", make_job().config, data, Protocol(clips=2, crops="three"))
    assert found["ms_per_video"] == pytest.approx(2 * 250.0)  # clip by clip, three crops at once
    assert (found["videos"], found["views"], found["batch"]) == (3, 6, 3)


def test_a_video_whose_views_come_at_once_is_one_video(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    class Whole(Blobs):
        """As features come: every batch has all views of its videos."""

        def eval_batches(self, subset: Any, protocol: Protocol, batch_size: int, **ranks: int) -> Iterator[Batch]:
            return super().eval_batches(subset, protocol, protocol.clips, **ranks)

    def slow(*args: Any) -> torch.Tensor:
        clock.now += 0.25
        return torch.zeros(1)

    monkeypatch.setattr(speed, "probabilities", slow)
    found = speed.measure("ms_per_video", make_job().config, Whole(test=4), Protocol(clips=2))
    assert found["ms_per_video"] == pytest.approx(250.0)


def test_random_weights_leave_the_processs_random_states_alone() -> None:
    before = torch.get_rng_state()
    speed.measure("ms_per_video", make_job().config, Blobs(test=2), Protocol())
    assert torch.equal(before, torch.get_rng_state())


def test_a_machine_is_described_by_what_makes_it_fast_and_not_by_its_name() -> None:
    found = machine.describe(gpu=False)
    assert found == machine.describe(gpu=False)
    assert found is not None
    assert {"device", "machine", "torch", "python", "numpy", "retable"} == set(found)
    assert "logical cores" in found["machine"]
