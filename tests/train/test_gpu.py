"""What a GPU must not change. Skipped, and said so, where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from retable.data.config import Protocol
from retable.train import machine, speed
from retable.train.checkpoint import unpack
from retable.train.evaluate import evaluate
from retable.train.loop import train
from tests.train.child import ROOT, environment
from tests.train.fakes import Blobs, Kept, make_job, numbers, same

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

LIVELY = {"dropout": 0.4, "penalty": 0.1, "smooth": 0.1}
PLAIN: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.0, "lr": 0.05}


def on(device: str, job: Any, *, sink: Kept | None = None, state: bytes | None = None) -> dict[str, Tensor]:
    """The weights that training on ``device`` ends with, on the CPU."""
    model = train(job, Blobs(), sink or Kept(), state=state, device=device)
    assert next(model.parameters()).device.type == device
    return {name: value.cpu() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_resuming_after_any_update_changes_nothing(precision: str, channels_last: bool) -> None:
    job = make_job(checkpoint_steps=1, model=LIVELY, precision=precision, channels_last=channels_last)
    sink = Kept()
    whole = on("cuda", job, sink=sink)
    assert len(sink.states) == 6
    for state in sink.states:
        again = Kept()
        assert same(whole, on("cuda", job, sink=again, state=state))
        assert {epoch: numbers(sink.metrics)[epoch] for epoch in again.metrics} == numbers(again.metrics)


def test_a_gpu_trains_what_a_cpu_trains_to_rounding() -> None:
    here, there = (on(device, make_job(**PLAIN)) for device in ("cpu", "cuda"))
    for name, value in here.items():
        torch.testing.assert_close(there[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("first", "then"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_run_goes_on_on_the_other_device(first: str, then: str) -> None:
    job, sink = make_job(checkpoint_steps=1, **PLAIN), Kept()
    whole = on(first, job, sink=sink)
    for name, value in on(then, job, state=sink.states[2]).items():
        torch.testing.assert_close(value, whole[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains_near_float32_with_weights_of_float32(precision: str) -> None:
    full, reduced = Kept(), Kept()
    on("cuda", make_job(**PLAIN), sink=full)
    weights = on("cuda", make_job(**PLAIN, precision=precision), sink=reduced)
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float32}
    loss, expected = ([sink.metrics[epoch]["train/loss"] for epoch in (0, 1)] for sink in (reduced, full))
    assert loss == pytest.approx(expected, rel=0.02)
    assert loss != expected
    assert bool(unpack(reduced.states[-1]).scaler) == (precision == "fp16")


def test_scores_are_a_cpus_to_rounding() -> None:
    model = train(make_job(), Blobs(), Kept())
    protocol = Protocol(clips=2, crops="three")
    here = evaluate(model, Blobs(), protocol, "test", batch_size=4).probs
    there = evaluate(model.cuda(), Blobs(), protocol, "test", batch_size=4, device="cuda").probs
    torch.testing.assert_close(torch.from_numpy(there), torch.from_numpy(here), rtol=1e-4, atol=1e-6)


def test_speeds_are_of_the_gpu_that_the_machine_is_described_by() -> None:
    about = machine.describe(gpu=True)
    assert about is not None
    assert about["device"] == torch.cuda.get_device_name()
    found = speed.measure("videos_per_second", make_job().config, Blobs(), Protocol(), device="cuda")
    assert found["videos_per_second"] > 0


def test_two_ranks_with_synchronised_batch_norm_train_the_weights_of_one_process(tmp_path: Path) -> None:
    """Both on one GPU and through gloo: NCCL wants a GPU for each."""
    env = environment(GLOO_SOCKET_IFNAME="lo")
    command = [sys.executable, "-m", "tests.train.child", "synchronised"]
    ranks = [subprocess.Popen([*command, str(r), "2", str(tmp_path)], cwd=ROOT, env=env) for r in (0, 1)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    found = [torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1)]
    assert same(found[0]["synchronised"], found[1]["synchronised"])
    alone = on("cuda", make_job(**PLAIN))

    def off(weights: dict[str, Tensor]) -> float:
        return max(float((weights[name] - value).abs().max()) for name, value in alone.items())

    assert off(found[0]["synchronised"]) < 1e-4 < off(found[0]["apart"])
