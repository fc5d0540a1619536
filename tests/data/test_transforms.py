"""Crops, mirror and contrast treat all frames of a clip alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from retable.data import transforms as tf


def places(frames: int = 2, height: int = 12, width: int = 20) -> NDArray[np.uint8]:
    """Channel 0 holds the row, channel 1 the column, channel 2 the frame number."""
    clip = np.zeros((frames, height, width, 3), np.uint8)
    clip[..., 0] = np.arange(height)[None, :, None]
    clip[..., 1] = np.arange(width)[None, None, :]
    clip[..., 2] = np.arange(frames)[:, None, None]
    return clip


def corner(clip: NDArray[np.uint8]) -> tuple[int, int]:
    return int(clip[0, 0, 0, 0]), int(clip[0, 0, 0, 1])


shares_of_room = st.floats(0, 1, exclude_max=True)


@given(height=st.integers(8, 40), width=st.integers(8, 40), down=shares_of_room, right=shares_of_room)
def test_a_random_crop_lies_inside_for_every_draw(height: int, width: int, down: float, right: float) -> None:
    assert tf.crop_at(places(1, height, width), 8, down, right).shape == (1, 8, 8, 3)


def test_random_crops_reach_every_corner() -> None:
    shares = np.linspace(0, 1, 50, endpoint=False)
    assert {corner(tf.crop_at(places(), 8, s, s)) for s in shares} >= {(0, 0), (4, 12)}


def test_all_frames_of_a_clip_are_cropped_at_the_same_place() -> None:
    cut = tf.crop_at(places(5), 8, 0.3, 0.7)
    assert np.array_equal(cut[0, ..., :2], cut[4, ..., :2])


def test_a_crop_that_does_not_fit_says_so() -> None:
    with pytest.raises(ValueError, match="crop 8 at"):
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
