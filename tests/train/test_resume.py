"""A run interrupted anywhere and continued ends as if it had not been, bit for bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retable.data.config import Protocol
from retable.registry import load
from retable.train.evaluate import evaluate
from retable.train.job import Interrupted, Job
from retable.train.loop import train
from tests.train.child import ROOT, environment
from tests.train.fakes import Blobs, Kept, make_job, numbers, same

LIVELY = {"dropout": 0.4, "penalty": 0.1, "smooth": 0.1}
RECIPES: dict[str, Any] = {
    "adam": {"optimizer": "adam", "lr": 0.02, "weight_decay": 1e-3},
    "channels last": {"optimizer": "adam", "lr": 0.02, "channels_last": True},
    "sgd": {
        "optimizer": "sgd",
        "nesterov": True,
        "clip_grad": 1.0,
        "schedule": {"milestones": [2, 4], "unit": "iteration"},
    },
}


def outcome(job: Job, sink: Kept, *, state: bytes | None = None, data: Blobs | None = None) -> tuple[Any, ...]:
    model = train(job, data or Blobs(), sink, state=state)
    scores = evaluate(model, Blobs(), Protocol(clips=3, crops="three"), "test", batch_size=4)
    return model.state_dict(), numbers(sink.metrics), scores.probs


def assert_same_end(whole: tuple[Any, ...], resumed: tuple[Any, ...]) -> None:
    assert same(whole[0], resumed[0])
    assert {epoch: whole[1][epoch] for epoch in resumed[1]} == resumed[1]
    assert np.array_equal(whole[2], resumed[2])


@pytest.mark.parametrize("optimizer", RECIPES)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_resuming_after_any_update_changes_nothing(optimizer: str, accumulation: int) -> None:
    job = make_job(checkpoint_steps=1, model=LIVELY, accumulation=accumulation, **RECIPES[optimizer])
    sink = Kept()
    whole = outcome(job, sink)
    assert len(sink.states) == 6
    for state in sink.states:
        assert_same_end(whole, outcome(job, Kept(), state=state))


@settings(max_examples=15)
@given(
    stops=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    every=st.integers(1, 3),
    seed=st.integers(0, 2**32),
    optimizer=st.sampled_from(sorted(RECIPES)),
    accumulation=st.sampled_from([1, 2, 4]),
)
def test_resuming_again_and_again_changes_nothing(
    stops: list[int], every: int, seed: int, optimizer: str, accumulation: int
) -> None:
    job = make_job(seed=seed, checkpoint_steps=every, model=LIVELY, accumulation=accumulation, **RECIPES[optimizer])
    whole = outcome(job, Kept())
    state: bytes | None = None
    for stop in stops:  # each try reaches a few checkpoints further than the one before
        sink = Kept()
        train(job, Blobs(), sink, state=state)
        state = sink.states[stop] if stop < len(sink.states) else state
    assert_same_end(whole, outcome(job, Kept(), state=state))


def test_a_real_model_resumes_too() -> None:
    knobs = {**load("msfnet").tiny.model_dump(), "name": "msfnet", "num_classes": 3, "frames": 4, "size": 16}
    job = make_job(checkpoint_steps=1, model=knobs, batch_size=4, epochs=1)
    whole, resumed = Kept(), Kept()
    model = train(job, Blobs(scale=2, test=2), whole)
    again = train(job, Blobs(scale=2, test=2), resumed, state=whole.states[2])
    assert same(model.state_dict(), again.state_dict())
    assert numbers(whole.metrics) == numbers(resumed.metrics)


def test_saving_inside_epochs_changes_nothing() -> None:
    often, rarely = (outcome(make_job(checkpoint_steps=k, model=LIVELY), Kept()) for k in (1, None))
    assert_same_end(often, rarely)


def test_a_state_inside_an_epoch_is_asked_for_by_resources() -> None:
    sink = Kept()
    train(make_job(checkpoint_steps=2), Blobs(), sink)
    assert len(sink.states) == 4  # after update 2 and the end of each epoch; none in vain at the last update


def test_data_that_draws_from_the_global_generator_does_not_change_the_weights() -> None:
    job = make_job(model=LIVELY)
    assert_same_end(outcome(job, Kept()), outcome(job, Kept(), data=Blobs(wasteful=True)))


def test_a_sink_that_draws_random_numbers_does_not_change_the_weights() -> None:
    class Noisy(Kept):
        def epoch(self, *args: Any, **kwargs: Any) -> None:
            torch.rand(5)
            super().epoch(*args, **kwargs)

    job = make_job(model=LIVELY)
    assert_same_end(outcome(job, Kept()), outcome(job, Noisy()))


def test_a_finished_state_gives_its_model_at_once() -> None:
    job, sink, later = make_job(), Kept(), Kept()
    model = train(job, Blobs(), sink)
    again = train(job, Blobs(), later, state=sink.states[-1])
    assert same(model.state_dict(), again.state_dict())
    assert not again.training
    assert not later.states


@pytest.mark.parametrize("moment", ["in-update", "in-epoch-end", "in-write"])
def test_a_run_killed_with_signal_9_ends_as_if_it_had_not_been(moment: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.train.child", "until", moment, str(tmp_path)]
    env = environment()
    with subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"  # now it waits at the chosen moment
        child.kill()
    assert child.returncode == -9
    job = make_job(checkpoint_steps=1, model=LIVELY)
    state = max(tmp_path.glob("*.pt")).read_bytes()
    assert_same_end(outcome(job, Kept()), outcome(job, Kept(), state=state))


class Impatient(Kept):
    """A sink that wants training to stop when it is asked for the ``after``-th time."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def wants_stop(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("after", [1, 2, 3, 4, 5])
def test_a_run_that_is_stopped_is_saved_to_the_last_update_and_goes_on_from_there(after: int) -> None:
    job = make_job(model=LIVELY, **RECIPES["adam"])
    whole, sink = outcome(job, Kept()), Impatient(after)
    with pytest.raises(Interrupted, match=f"stopped in epoch {after // 3} after {after % 3} updates"):
        train(job, Blobs(), sink)
    data = Blobs()
    assert_same_end(whole, outcome(job, Kept(), state=sink.states[-1], data=data))
    assert len(data.trained) == 6 - after


def test_a_run_that_is_stopped_before_its_first_update_saves_nothing() -> None:
    sink = Impatient(0)
    with pytest.raises(Interrupted):
        train(make_job(), Blobs(), sink)
    assert sink.states == []
