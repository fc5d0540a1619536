"""Where training crops are cut: inside the frame for every draw, and where TSN, TPN and Inception say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retable.data.config import Augment
from retable.data.windows import Draw, Window, train_window

TSN = (1.0, 0.875, 0.75, 0.66)
CROPS = ["random", "center", "multi_scale", "jitter", "area"]

numbers = st.floats(0, 1, exclude_max=True)
draws = st.builds(Draw, numbers, numbers, numbers, numbers, numbers, numbers)


def many(crop: Any, height: int = 256, width: int = 340, size: int = 224, **settings: Any) -> list[Window]:
    rng = np.random.default_rng(0)
    augment = Augment(crop=crop, **settings)
    return [train_window(height, width, size, augment, Draw.of(rng), TSN) for _ in range(2000)]


@given(
    height=st.integers(16, 60),
    width=st.integers(16, 60),
    crop=st.sampled_from(CROPS),
    jitter=st.sampled_from([(1.0, 1.25), (0.5, 1.0)]),
    draw=draws,
)
def test_a_window_lies_inside_for_every_draw(
    height: int, width: int, crop: Any, jitter: tuple[float, float], draw: Draw
) -> None:
    top, left, tall, wide = train_window(height, width, 16, Augment(crop=crop, jitter=jitter), draw, TSN)
    assert tall >= 1
    assert wide >= 1
    assert 0 <= top <= height - tall
    assert 0 <= left <= width - wide


def test_random_crops_have_the_clips_size_and_reach_every_place() -> None:
    windows = many("random", 12, 20, 8)
    assert {(w.height, w.width) for w in windows} == {(8, 8)}
    assert {(w.top, w.left) for w in windows} == {(y, x) for y in range(5) for x in range(13)}


def test_multi_scale_crops_are_tsns_sides_at_corners_and_centre_at_most_one_scale_apart() -> None:
    sides = [256, 224, 192, 169]
    windows = many("multi_scale")
    assert {(w.height, w.width) for w in windows} == {
        (a, b) for i, a in enumerate(sides) for j, b in enumerate(sides) if abs(i - j) <= 1
    }
    at_224 = {(w.top, w.left) for w in windows if (w.height, w.width) == (224, 224)}
    assert at_224 == {(0, 0), (0, 116), (32, 0), (32, 116), (16, 58)}


def test_a_jitter_of_256_to_320_cuts_what_224_pixels_of_such_a_frame_show() -> None:
    windows = many("jitter")
    assert all(w.height == w.width for w in windows)
    sides = {w.height for w in windows}
    assert (min(sides), max(sides)) == (179, 224)  # 224 of 320 is 179 of 256
    assert len({(w.top, w.left) for w in windows}) > 1000


def test_area_crops_hold_the_shares_and_aspects_asked_for() -> None:
    windows = many("area", 400, 400, area=(0.1, 0.5))
    shares = [w.height * w.width / 400**2 for w in windows]
    aspects = [w.width / w.height for w in windows]
    assert (round(min(shares), 2), round(max(shares), 2)) == (0.1, 0.5)
    assert (round(min(aspects), 1), round(max(aspects), 1)) == (0.7, 1.3)


@pytest.mark.parametrize("settings", [{"jitter": (1.25, 1.0)}, {"area": (0.5, 0.1)}, {"jitter": (0.0, 1.0)}])
def test_a_range_that_does_not_increase_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a smallest and a largest factor above 0"):
        Augment(**settings)
