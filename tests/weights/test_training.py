"""A run starts from its weights, goes on from its checkpoint without their file, and stops if it cannot start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from retable import registry
from retable.train.checkpoint import unpack
from retable.train.evaluate import load_model
from retable.train.loop import train
from retable.weights import WeightsError, sources
from tests.train.fakes import Blobs, Kept, make_job, same

MODEL = str(Path(__file__).with_name("started_model.py"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "net.pth"
    torch.save({"conv1.weight": torch.randn(4, 3, 3, 3), "fc.bias": torch.zeros(7)}, path)
    return path


def job(path: Path | None, **recipe: Any) -> Any:
    file = registry.load(MODEL)
    pinned = "none" if path is None else sources.pinned(file, file.config_class(weights=str(path)))
    return make_job(model={"name": MODEL, "weights": pinned}, checkpoint_steps=1, **recipe)


@pytest.mark.parametrize("channels_last", [False, True])
def test_training_starts_from_the_weights(path: Path, channels_last: bool) -> None:
    kernel = torch.load(path, weights_only=True)["conv1.weight"]
    started = train(job(path, lr=1e-12, channels_last=channels_last), Blobs(), Kept()).state_dict()
    for t in range(3):
        torch.testing.assert_close(started["conv.weight"][:, :, t], kernel / 3)
    random = train(job(None, lr=1e-12, channels_last=channels_last), Blobs(), Kept()).state_dict()
    torch.testing.assert_close(started["head.weight"], random["head.weight"])


def test_a_run_goes_on_from_its_checkpoint_without_the_file(path: Path) -> None:
    asked, sink = job(path), Kept()
    whole = train(asked, Blobs(), sink).state_dict()
    path.unlink()
    for state in sink.states:
        assert same(whole, train(asked, Blobs(), Kept(), state=state).state_dict())
    assert same(whole, load_model(asked.config, sink.states[-1]).state_dict())
    assert unpack(sink.states[-1]).epoch == 2


def test_a_run_whose_file_is_gone_or_changed_does_not_start(path: Path) -> None:
    asked = job(path)
    torch.save({"conv1.weight": torch.zeros(4, 3, 3, 3)}, path)
    with pytest.raises(WeightsError, match=r"net\.pth .* is damaged or another file"):
        train(asked, Blobs(), Kept())
    path.unlink()
    with pytest.raises(
        WeightsError, match=r"there is no file of weights at .*net\.pth: put it there, on every machine"
    ):
        train(asked, Blobs(), Kept())
