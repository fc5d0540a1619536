"""Two processes train one run over gloo."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from retable.data.config import Protocol
from retable.train.evaluate import evaluate, load_model
from retable.train.loop import train
from tests.train.child import ROOT, environment
from tests.train.fakes import Blobs, Kept, make_job, same

Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What both ranks of one session saw."""
    folder = tmp_path_factory.mktemp("ranks")
    env = environment(OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="lo")
    command = [sys.executable, "-W", "error", "-m", "tests.train.child", "rank"]
    ranks = [subprocess.Popen([*command, str(r), "2", str(folder)], cwd=ROOT, env=env) for r in (0, 1)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    return [torch.load(folder / f"{r}.pt", weights_only=True) for r in (0, 1)]


def test_both_ranks_end_with_equal_weights_and_buffers(found: Found) -> None:
    assert same(found[0]["weights"], found[1]["weights"])


def test_resuming_inside_an_epoch_changes_nothing_on_either_rank(found: Found) -> None:
    for rank in found:
        assert same(rank["weights"], rank["resumed"])


def test_shards_are_disjoint_and_make_up_every_batch(found: Found) -> None:
    one, two = (rank["trained"] for rank in found)
    whole = Blobs()
    train(make_job(), whole, Kept())
    joined = [sorted([*a, *b, *c, *d]) for a, b, c, d in zip(one[::2], one[1::2], two[::2], two[1::2], strict=True)]
    assert joined == [sorted(rows) for rows in whole.trained]


def test_ranks_drop_out_different_features(found: Found) -> None:
    assert not set(found[0]["draws"]) & set(found[1]["draws"])


def test_only_rank_0_calls_the_sink(found: Found) -> None:
    assert [rank["states"] for rank in found] == [6, 0]


def test_two_ranks_train_the_weights_of_one_process_without_batch_norm(found: Found) -> None:
    alone = train(make_job(model={"norm": False}), Blobs(), Kept()).state_dict()
    for name, value in found[0]["plain"].items():
        torch.testing.assert_close(value, alone[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("videos", [1, 7])
def test_every_video_is_scored_once_on_all_ranks_even_with_fewer_videos_than_ranks(found: Found, videos: int) -> None:
    job = make_job(workers=2, accumulation=2, model={"dropout": 0.4})
    scores = [rank[f"scores of {videos}"] for rank in found]
    assert torch.equal(*scores)
    assert scores[0].shape == (videos, 3)
    model = load_model(job.config, found[0]["last"])
    alone = evaluate(model, Blobs(test=videos), Protocol(clips=2), "test", batch_size=3)
    torch.testing.assert_close(scores[0], torch.from_numpy(alone.probs), rtol=1e-5, atol=1e-7)
