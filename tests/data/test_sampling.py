"""Which frames make a clip: properties for every length of video, and the published readings by example."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retable.data import sampling
from retable.data.config import Clip

clips = st.builds(
    Clip,
    frames=st.integers(1, 32),
    sampling=st.sampled_from(["random_step", "interval", "segments", "window"]),
    max_step=st.integers(1, 10),
    stride=st.integers(1, 8),
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(n=st.integers(1, 500), clip=clips, seed=st.integers(0, 2**32 - 1))
def test_training_clips_have_their_length_stay_inside_and_run_forward(n: int, clip: Clip, seed: int) -> None:
    indices = sampling.train_clip(n, clip, rng(seed))
    assert indices.shape == (clip.frames,)
    assert indices.min() >= 0
    assert indices.max() < n
    assert (np.diff(indices) >= 0).all()


@given(n=st.integers(1, 500), clip=clips, seed=st.integers(0, 2**32 - 1))
def test_a_random_step_clip_is_evenly_spaced_within_the_cap_when_the_video_is_long_enough(
    n: int, clip: Clip, seed: int
) -> None:
    clip = clip.model_copy(update={"sampling": "random_step"})
    steps = set(np.diff(sampling.train_clip(n, clip, rng(seed))).tolist())
    if n >= clip.frames:
        assert len(steps) <= 1
        assert all(1 <= step <= clip.max_step for step in steps)


@given(n=st.integers(1, 500), clip=clips, seed=st.integers(0, 2**32 - 1))
def test_segments_gives_one_frame_from_each_equal_segment(n: int, clip: Clip, seed: int) -> None:
    clip = clip.model_copy(update={"sampling": "segments"})
    for k, index in enumerate(sampling.train_clip(n, clip, rng(seed)).tolist()):
        assert (k * n) // clip.frames <= index <= ((k + 1) * n) / clip.frames


@given(n=st.integers(1, 500), clip=clips, count=st.integers(1, 10))
def test_test_clips_are_fixed_valid_and_in_order(n: int, clip: Clip, count: int) -> None:
    found = sampling.test_clips(n, clip, count)
    assert len(found) == count
    for indices in found:
        assert indices.shape == (clip.frames,)
        assert indices.min() >= 0
        assert indices.max() < n
        assert (np.diff(indices) >= 0).all()
    firsts = [int(indices[0]) for indices in found]
    assert firsts == sorted(firsts)
    assert all(np.array_equal(a, b) for a, b in zip(found, sampling.test_clips(n, clip, count), strict=True))


@given(n=st.integers(1, 500), clip=clips)
def test_one_test_clip_lies_in_the_middle(n: int, clip: Clip) -> None:
    (indices,) = sampling.test_clips(n, clip, 1)
    if n >= clip.frames and clip.sampling == "random_step":
        assert abs(int(indices[0]) - (n - 1 - int(indices[-1]))) <= 1


def test_every_step_that_fits_is_drawn_about_equally_often() -> None:
    clip, draw = Clip(frames=8, max_step=4), rng()
    steps = [int(np.diff(sampling.train_clip(60, clip, draw))[0]) for _ in range(4000)]
    counts = np.bincount(steps)[1:]
    assert counts.size == 4
    assert (abs(counts / 4000 - 0.25) < 0.03).all()


def test_steps_that_do_not_fit_are_never_drawn() -> None:
    clip, draw = Clip(frames=8, max_step=4), rng()
    assert {int(np.diff(sampling.train_clip(15, clip, draw))[0]) for _ in range(200)} == {1, 2}


def test_a_short_video_repeats_its_last_frame_or_its_segments_frames() -> None:
    assert sampling.train_clip(3, Clip(frames=5), rng()).tolist() == [0, 1, 2, 2, 2]
    (segments,) = sampling.test_clips(3, Clip(frames=6, sampling="segments"), 1)
    assert segments.tolist() == [0, 0, 1, 1, 2, 2]


def test_published_readings() -> None:
    (centre,) = sampling.test_clips(100, Clip(frames=8, max_step=4), 1)
    assert centre.tolist() == [35, 39, 43, 47, 51, 55, 59, 63]
    three = sampling.test_clips(100, Clip(frames=32, max_step=2), 3)
    assert [int(c[0]) for c in three] == [0, 18, 37]
    (middles,) = sampling.test_clips(80, Clip(frames=8, sampling="segments"), 1)
    assert middles.tolist() == [5, 15, 25, 35, 45, 55, 65, 75]


def test_an_interval_is_two_or_more_where_the_video_is_long_enough() -> None:
    clip, draw = Clip(frames=17, sampling="interval", max_step=10), rng()
    steps = {n: {int(np.diff(sampling.train_clip(n, clip, draw))[0]) for _ in range(300)} for n in (400, 50, 33, 32)}
    assert steps == {400: set(range(2, 11)), 50: {2, 3}, 33: {2}, 32: {1}}


def test_stidf_is_tested_on_every_seventeenth_part_of_a_video() -> None:
    clip = Clip(frames=17, sampling="interval", max_step=10)
    (long,) = sampling.test_clips(400, clip, 1)
    assert long.tolist() == [23 * t - 1 for t in range(1, 18)]  # t' = 23, frames counted from 1
    (short,) = sampling.test_clips(22, clip, 1)
    assert short.tolist() == list(range(17))  # t' = 1: the clip's head only
    two = sampling.test_clips(400, clip, 2)
    assert [int(c[0]) for c in two] == [10, 22]
    (tiny,) = sampling.test_clips(3, clip, 1)
    assert tiny.tolist() == [0, 1, *[2] * 15]


@given(n=st.integers(1, 500), frames=st.integers(1, 32), stride=st.integers(1, 8), seed=st.integers(0, 2**32 - 1))
def test_a_window_has_frames_times_stride_frames_and_lies_inside(n: int, frames: int, stride: int, seed: int) -> None:
    clip = Clip(frames=frames, sampling="window", stride=stride)
    indices = sampling.train_clip(n, clip, rng(seed))
    start = int(indices[0])
    assert start <= max(0, n - frames * stride)
    assert indices.tolist() == [min(start + stride * i, n - 1) for i in range(frames)]


def test_kinetics_windows_of_64_frames_start_everywhere_and_are_evenly_spaced_at_test() -> None:
    clip, draw = Clip(frames=32, sampling="window", stride=2), rng()
    assert {int(sampling.train_clip(70, clip, draw)[0]) for _ in range(300)} == set(range(7))
    assert [int(c[0]) for c in sampling.test_clips(300, clip, 10)] == [round(236 * i / 9) for i in range(10)]
    assert sampling.train_clip(64, clip, draw).tolist() == list(range(0, 64, 2))


def test_consecutive_frames_are_a_window_of_stride_one() -> None:
    indices = sampling.train_clip(50, Clip(frames=8, sampling="window"), rng())
    assert np.diff(indices).tolist() == [1] * 7


@given(n=st.integers(1, 500), segments=st.integers(1, 5), k=st.integers(1, 10), seed=st.integers(0, 2**32 - 1))
def test_k_frames_of_each_of_n_segments_are_one_of_each_of_n_times_k(n: int, segments: int, k: int, seed: int) -> None:
    clip = Clip(frames=segments * k, sampling="segments")
    for i, index in enumerate(sampling.train_clip(n, clip, rng(seed)).tolist()):
        segment, chunk = divmod(i, k)
        start = segment * n / segments + chunk * n / (segments * k)
        assert math.floor(round(start, 6)) <= index <= start + n / (segments * k)


def test_sta_tsn_tests_on_the_centres_of_thirty_chunks_as_one_clip_ten_of_three_or_thirty_of_one() -> None:
    seen = [
        sorted(np.concatenate(sampling.test_clips(300, Clip(frames=frames, sampling="segments"), 30 // frames)))
        for frames in (30, 3, 1)
    ]
    assert seen[0] == seen[1] == seen[2] == list(range(5, 300, 10))


def test_an_empty_video_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one frame but has 0"):
        sampling.train_clip(0, Clip(), rng())
