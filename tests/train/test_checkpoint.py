from __future__ import annotations

import io
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retable.train.checkpoint import CheckpointMismatch, CorruptCheckpoint, stamp, unpack
from retable.train.evaluate import load_model
from retable.train.loop import train
from tests.train.fakes import Blobs, Kept, make_job, same


def final_state(**recipe: Any) -> bytes:
    sink = Kept()
    train(make_job(epochs=1, **recipe), Blobs(), sink)
    return sink.states[-1]


WHOLE = final_state()


def test_a_checkpoint_loads_as_weights_only() -> None:
    body = torch.load(io.BytesIO(WHOLE), weights_only=True)
    assert (body["epoch"], body["step"], body["seed"]) == (1, 0, 0)


@settings(max_examples=30)
@given(st.floats(0.0, 1.0, exclude_max=True))
def test_a_truncated_checkpoint_is_corrupt(share: float) -> None:
    with pytest.raises(CorruptCheckpoint):
        unpack(WHOLE[: int(share * len(WHOLE))])


def test_one_wrong_byte_in_a_weight_is_corrupt() -> None:
    weights = unpack(WHOLE).model["conv.weight"].numpy().tobytes()
    damaged = bytearray(WHOLE)
    damaged[WHOLE.index(weights) + 7] ^= 1
    with pytest.raises(CorruptCheckpoint, match="checksum"):
        unpack(bytes(damaged))


def test_other_bytes_are_corrupt() -> None:
    buffer = io.BytesIO()
    torch.save({"weights": torch.ones(3)}, buffer)
    for data in (b"", b"nothing of the kind", buffer.getvalue()):
        with pytest.raises(CorruptCheckpoint):
            unpack(data)


def test_a_checkpoint_of_another_config_is_refused_with_both_ids_and_the_way_out() -> None:
    other = make_job(epochs=1, lr=0.01)
    with pytest.raises(CheckpointMismatch) as caught:
        train(other, Blobs(), Kept(), state=WHOLE)
    message = str(caught.value)
    assert stamp(other.config) in message
    assert stamp(make_job(epochs=1).config) in message
    assert "start this run without a checkpoint" in message
    with pytest.raises(CheckpointMismatch):
        load_model(other.config, WHOLE)


def test_a_checkpoint_of_another_seed_is_refused() -> None:
    with pytest.raises(CheckpointMismatch, match="is of seed 0, this run is of seed 3"):
        train(make_job(epochs=1, seed=3), Blobs(), Kept(), state=WHOLE)


def test_a_checkpoint_whose_weights_do_not_fit_says_so() -> None:
    body = torch.load(io.BytesIO(WHOLE), weights_only=True)
    body["model"]["head.bias"] = torch.zeros(4)
    buffer = io.BytesIO()
    torch.save(body, buffer)
    with pytest.raises(CheckpointMismatch, match="SEMANTICS"):
        train(make_job(epochs=1), Blobs(), Kept(), state=buffer.getvalue())


def test_a_dataset_may_be_renamed_but_not_changed_otherwise() -> None:
    config = make_job().config
    renamed = config.model_copy(update={"data": config.data.model_copy(update={"dataset": "elsewhere"})})
    resplit = config.model_copy(update={"data": config.data.model_copy(update={"split": 2})})
    assert stamp(renamed) == stamp(config) != stamp(resplit)


def test_the_model_of_a_final_checkpoint_is_the_trained_one() -> None:
    job, sink = make_job(), Kept()
    trained = train(job, Blobs(), sink)
    loaded = load_model(job.config, sink.states[-1])
    assert same(trained.state_dict(), loaded.state_dict())
    assert not loaded.training


@pytest.mark.parametrize("error", [CorruptCheckpoint("broken"), CheckpointMismatch("other")])
def test_errors_travel_between_processes(error: Exception) -> None:
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
