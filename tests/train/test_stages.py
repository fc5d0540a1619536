"""Binary classifiers on frozen features, features as inputs, and what training makes of both."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch

from retable.data.config import Protocol
from retable.data.errors import DatasetError
from retable.data.features import FeatureData, Views
from retable.data.loader import RunData
from retable.nn import InputSpec, Normalisation
from retable.train.classifiers import fit, judge, judge_all
from retable.train.model import to_inputs


def blobs(classes: int = 3, per_class: int = 8, frames: int = 4, channels: int = 6) -> tuple[Any, Any]:
    """Features whose class shows in one channel each, ``(N, T, C)``, and labels ``(N,)``."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), per_class)
    features = rng.normal(size=(len(labels), frames, channels)).astype(np.float32)
    features[np.arange(len(labels)), :, labels] += 8.0
    return features, labels


class Videos:
    """Four training videos and two test videos of three classes; a mirror swaps classes 0 and 1."""

    classes = ("left", "right", "up")
    dataset = "blobs"
    flip_permutation = torch.tensor([1, 0, 2])

    def videos(self, subset: str) -> tuple[str, ...]:
        return tuple(f"{subset}{i}" for i in range(4 if subset == "train" else 2))

    def labels(self, subset: str) -> tuple[int, ...]:
        return (0, 1, 2, 0)[: len(self.videos(subset))]

    def steps(self, batch_size: int) -> int:
        return 4 // batch_size


def data(judged: Any = None) -> FeatureData:
    """A feature is 100 x subset + 10 x video + view."""
    sets = {}
    for start, views in ((0, Views("train", mirror=True)), (100, Views.of("test", Protocol(clips=2)))):
        count, each = (4 if views.subset == "train" else 2), len(views.mirrored)
        numbers = start + 10 * np.arange(count)[:, None] + np.arange(each)
        sets[views] = np.broadcast_to(numbers[..., None, None], (count, each, 3, 5)).astype(np.float32)
    return FeatureData(cast("RunData", Videos()), sets, judged)


def test_classifiers_of_other_folds_do_not_know_a_videos_frames_by_heart() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(40, 2, 2, 400)).astype(np.float32)  # nothing to learn: only to remember
    labels = np.stack([rng.integers(0, 2, 40)] * 2, axis=1)
    remembered, unseen = (judge_all(noise, labels, 2, folds)[:, 0].mean() for folds in (1, 5))
    assert remembered > 0.95
    assert 0.3 < unseen < 0.7
    features, labels = blobs(per_class=32, frames=10)
    assert judge_all(features[:, None], labels[:, None], 3, folds=5).mean() > 0.9  # what is there to be learnt is
    one, other = (judge_all(features[:, None], labels[:, None], 3, folds=5) for _ in range(2))
    assert np.array_equal(one, other)


def test_classifiers_accept_frames_of_their_class_and_no_others() -> None:
    features, labels = blobs(per_class=32, frames=10)
    found = fit(features, labels, 3)
    assert judge(found, features[:, None], labels[:, None]).mean() > 0.95
    assert judge(found, features[:, None], (labels[:, None] + 1) % 3).mean() < 0.05


def test_classifiers_are_the_same_for_the_same_features_and_leave_the_random_state() -> None:
    features, labels = blobs()
    before = torch.get_rng_state()
    one, other = fit(features, labels, 3), fit(features, labels, 3)
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(one.bias, other.bias)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_class_without_videos_and_a_constant_feature_do_no_harm() -> None:
    features, labels = blobs()
    features[:, :, 5] = 1.0
    found = fit(features, labels, 4)
    assert torch.isfinite(found.weight).all()
    assert not judge(found, features[:, None], np.full((len(labels), 1), 3)).any()


def test_a_frame_is_accepted_where_its_classs_score_is_above_zero() -> None:
    features, labels = blobs(per_class=2, frames=2)
    found = fit(features, labels, 3)
    frames = torch.from_numpy(features[0])
    by_hand = frames @ found.weight[labels[0]] + found.bias[labels[0]]
    assert torch.equal(torch.from_numpy(judge(found, features[:1, None], labels[:1, None])[0, 0]), by_hand > 0)


def test_training_sees_centre_views_and_mirror_images_with_their_labels() -> None:
    seen: set[tuple[int, bool]] = set()
    for epoch in range(8):
        for batch in data().train_batches(epoch, 2, seed=0):
            assert batch.clips["features"].shape == (2, 3, 5, 1, 1)
            for clip, label, video, turned in zip(
                batch.clips["features"], batch.labels, batch.videos, batch.mirrored, strict=True
            ):
                assert float(clip.flatten()[0]) == 10 * int(video) + int(turned)
                plain = (0, 1, 2, 0)[int(video)]
                assert int(label) == ((1, 0, 2)[plain] if turned else plain)
                seen.add((int(video), bool(turned)))
    assert len(seen) == 8


def test_an_epoch_taken_up_again_goes_on_with_the_same_batches() -> None:
    whole = list(data().train_batches(3, 2, seed=1))
    rest = list(data().train_batches(3, 2, seed=1, start=1))
    assert [b.videos.tolist() for b in rest] == [b.videos.tolist() for b in whole[1:]]
    ranks = [next(data().train_batches(3, 2, seed=1, rank=r, world=2)).videos.tolist() for r in (0, 1)]
    assert ranks[0] + ranks[1] == whole[0].videos.tolist()


def test_every_video_is_evaluated_once_under_all_its_views_by_one_rank() -> None:
    protocol, seen = Protocol(clips=2), []
    for rank in (0, 1):
        for batch in data().eval_batches("test", protocol, 1, rank=rank, world=2):
            seen += [
                (int(v), float(c.flatten()[0])) for v, c in zip(batch.videos, batch.clips["features"], strict=True)
            ]
    assert seen == [(0, 100.0), (0, 101.0), (1, 110.0), (1, 111.0)]


def test_a_protocol_without_features_is_refused_by_name() -> None:
    with pytest.raises(DatasetError, match="no features of test videos under 1 x ten"):
        next(data().eval_batches("test", Protocol(crops="ten"), 1))


def test_what_was_judged_comes_with_the_view_that_it_was_judged_on() -> None:
    judged = np.zeros((4, 2, 3), np.bool_)
    judged[:, 1] = True  # only mirror images are accepted
    for batch in data(judged).train_batches(0, 4, seed=0):
        assert batch.side["judged"].shape == (4, 3)
        assert torch.equal(batch.side["judged"].all(1), batch.mirrored)


def test_features_reach_the_model_unchanged() -> None:
    spec = InputSpec((3, 5, 1, 1), normalisation=Normalisation(mean=(0.5,), std=(0.2,)))
    features = torch.randn(2, 3, 5, 1, 1, generator=torch.Generator().manual_seed(0))
    given = to_inputs({"features": features}, {"features": spec}, torch.device("cpu"))
    assert torch.equal(given["features"], features)
    with pytest.raises(ValueError, match=r"takes features clips \(T, C, H, W\) of \(3, 5, 1, 1\)"):
        to_inputs({"features": features[:, :2]}, {"features": spec}, torch.device("cpu"))
