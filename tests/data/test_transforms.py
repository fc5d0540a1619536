"""Crops, mirror and contrast treat all frames of a clip alike."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from retable.data import transforms as tf
from retable.data.windows import Window


def places(frames: int = 2, height: int = 12, width: int = 20) -> NDArray[np.uint8]:
    """Channel 0 holds the row, channel 1 the column, channel 2 the frame number."""
    clip = np.zeros((frames, height, width, 3), np.uint8)
    clip[..., 0] = np.arange(height)[None, :, None]
    clip[..., 1] = np.arange(width)[None, None, :]
    clip[..., 2] = np.arange(frames)[:, None, None]
    return clip


def corner(clip: NDArray[np.uint8]) -> tuple[int, int]:
    return int(clip[0, 0, 0, 0]), int(clip[0, 0, 0, 1])


def test_a_window_of_the_clip_size_is_cut_pixel_for_pixel_from_every_frame() -> None:
    clip = places(5)
    assert np.array_equal(tf.cut(clip, Window(3, 7, 8, 8), 8), clip[:, 3:11, 7:15])


def test_a_window_of_twice_the_size_becomes_the_mean_of_each_two_by_two() -> None:
    clip = np.random.default_rng(0).integers(0, 256, (2, 12, 20, 4), np.uint8)
    found = tf.cut(clip, Window(1, 2, 8, 8), 4)
    means = clip[:, 1:9, 2:10].reshape(2, 4, 2, 4, 2, 4).mean((2, 4))
    assert np.abs(found - means).max() <= 0.5


def test_a_smaller_window_is_enlarged_and_all_frames_alike() -> None:
    found = tf.cut(places(5), Window(2, 5, 6, 6), 12)
    assert found.shape == (5, 12, 12, 3)
    assert np.array_equal(found[0, ..., :2], found[4, ..., :2])
    assert (np.diff(found[0, :, 0, 0].astype(int)) >= 0).all()
    assert (found[0, 0, 0, :2].tolist(), found[0, -1, -1, :2].tolist()) == ([2, 5], [7, 10])


def test_many_channels_of_flow_are_resized_each_by_itself() -> None:
    clip = np.random.default_rng(0).integers(0, 256, (2, 9, 9, 20), np.uint8)
    whole = tf.cut(clip, Window(0, 0, 9, 9), 6)
    for c in range(0, 20, 7):
        assert np.array_equal(tf.cut(clip[..., c : c + 1], Window(0, 0, 9, 9), 6)[..., 0], whole[..., c])


def test_a_crop_that_does_not_fit_says_so() -> None:
    with pytest.raises(ValueError, match="crop 8 x 8 at"):
        tf.crop(places(), 5, 0, 8)


def test_three_crops_lie_along_the_longer_side() -> None:
    assert [corner(c) for c in tf.three_crops(places(), 12)] == [(0, 0), (0, 4), (0, 8)]
    assert [corner(c) for c in tf.three_crops(places(2, 20, 12), 12)] == [(0, 0), (4, 0), (8, 0)]


def test_ten_crops_are_five_places_and_their_mirror_images() -> None:
    views = tf.ten_crops(places(), 8)
    assert [corner(v) for v in views[:5]] == [(0, 0), (0, 12), (4, 0), (4, 12), (2, 6)]
    assert all(np.array_equal(tf.mirror(v), w) for v, w in zip(views[:5], views[5:], strict=True))


def test_the_view_tables_agree() -> None:
    for name, make in tf.CROPS.items():
        assert len(make(places(), 8)) == len(tf.MIRRORED_VIEWS[name])


def test_a_mirror_turns_left_to_right_only() -> None:
    clip = places()
    assert np.array_equal(tf.mirror(clip)[..., 1], clip[..., ::-1, 1])
    assert np.array_equal(tf.mirror(tf.mirror(clip)), clip)


def test_contrast_keeps_the_mean_and_scales_the_spread() -> None:
    clip = np.random.default_rng(0).integers(90, 160, (4, 16, 16, 3), np.uint8)
    out = tf.contrast(clip, 1.5)
    assert out.mean() == pytest.approx(clip.mean(), abs=0.5)
    assert out.std() == pytest.approx(1.5 * clip.std(), rel=0.01)
    assert np.array_equal(tf.contrast(clip, 1.0), clip)


def test_contrast_saturates_instead_of_wrapping() -> None:
    clip = np.array([0, 255], np.uint8).reshape(1, 1, 2, 1).repeat(3, -1)
    assert tf.contrast(clip, 1.9).tolist() == clip.tolist()
