"""Which maps speak of frames, and what is drawn of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from retable.report.pictures import BAR, CELL, GAP, LABEL, of_frames, picture, shown


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((8, 7, 7), "heat"),  # of every frame
        ((4, 7, 7), "heat"),  # of every second one
        ((8, 16, 7, 7), "heat"),
        ((1, 4, 7, 7), "heat"),  # channels first
        ((2, 4), "bars"),  # segments x frames
        ((8, 32), "bars"),
        ((1, 4), "bars"),
        ((6, 101), None),  # scales x classes
        ((8, 1, 1), None),
        ((3, 7, 7), None),
        ((5,), None),
    ],
)
def test_maps_are_told_apart_by_their_shape(shape: tuple[int, ...], kind: str | None) -> None:
    found = of_frames(np.ones(shape), 8)
    assert (None if found is None else found[0]) == kind
    assert found is None or len(found[1]) == 8


def test_channels_are_averaged_by_magnitude() -> None:
    found = of_frames(np.array([[-1.0, 3.0]] * 8), 8)
    assert found is not None
    assert found[1].tolist() == [2.0] * 8


def test_a_picture_has_a_row_of_frames_and_one_for_each_map() -> None:
    rgb = np.full((4, 16, 16, 3), 100, np.uint8)
    heat = np.zeros((4, 2, 2))
    heat[1, 0, 0] = 1.0
    view: dict[str, Any] = {
        "input.rgb": rgb,
        "maps.alpha": heat,
        "maps.beta": np.array([[0.1, 0.2], [0.3, 0.4]]),
        "maps.x": np.ones(5),
    }
    drawn = picture(view)
    assert drawn.shape == (2 * (CELL + GAP) + BAR + GAP, LABEL + 4 * (CELL + GAP), 3)
    attended = drawn[CELL + GAP : 2 * CELL + GAP, LABEL:]
    first, second = (attended[:, i * (CELL + GAP) : i * (CELL + GAP) + CELL].astype(int) for i in (0, 1))
    assert second[2, 2, 0] > first[2, 2, 0] + 50  # yellow where attention is, in the second frame alone
    assert (first == first[0, 0]).all()


def test_flow_is_shown_by_its_magnitude() -> None:
    flow = np.full((2, 4, 4, 4), 128, np.uint8)
    flow[1, ..., 0] = 228
    pixels = shown(flow)
    assert (pixels[0] == 255).all()
    assert (pixels[1] == 0).all()
