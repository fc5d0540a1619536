"""Estimators against motion that is known exactly; displacements as bytes; stacks of fields around frames."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from torchvision.models.optical_flow import raft_large, raft_small

from retable.data.config import Flow, FlowMethod
from retable.data.errors import FlowUnavailable
from retable.data.flow import dequantise, estimate, pinned, quantise, require, weights_hash
from retable.data.sampling import flow_stacks
from retable.data.transforms import mirror, negate_x

HEIGHT, WIDTH = 48, 64
Array = NDArray[np.float64]


def texture(x: Array, y: Array) -> NDArray[np.uint8]:
    """Brightness at any position: 60 waves of 5 to 25 pixels, so that a moved picture needs no interpolation."""
    rng = np.random.default_rng(0)
    lengths, angles, phases = rng.uniform(5, 25, 60), rng.uniform(0, 2 * np.pi, 60), rng.uniform(0, 2 * np.pi, 60)
    k = 2 * np.pi / lengths
    waves = np.sin(k * (np.cos(angles) * x[..., None] + np.sin(angles) * y[..., None]) + phases)
    brightness: NDArray[np.uint8] = np.clip(127.5 + 20 * waves.sum(-1) / np.sqrt(30), 0, 255).round().astype(np.uint8)
    return brightness


def grid() -> tuple[Array, Array]:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    return x, y


def clip(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.stack([np.repeat(picture[..., None], 3, -1) for picture in pictures])


def translation(dx: float, dy: float, frames: int = 2) -> tuple[NDArray[np.uint8], Array]:
    """Frames of a picture that moves by (dx, dy) per frame, and the field."""
    x, y = grid()
    return clip([texture(x - t * dx, y - t * dy) for t in range(frames)]), np.broadcast_to(
        np.array([dx, dy]), (HEIGHT, WIDTH, 2)
    )


def rotation(angle: float) -> tuple[NDArray[np.uint8], Array]:
    """Two frames of a picture that turns about its middle by ``angle`` (x towards y), and the field."""
    x, y = grid()
    cx, cy = (WIDTH - 1) / 2, (HEIGHT - 1) / 2
    cos, sin, u, v = np.cos(angle), np.sin(angle), x - cx, y - cy
    turned = texture(cx + cos * u + sin * v, cy - sin * u + cos * v)
    return clip([texture(x, y), turned]), np.stack([(cos - 1) * u - sin * v, sin * u + (cos - 1) * v], -1)


def error(found: NDArray[np.float32], true: Array) -> float:
    """Mean end-point error, pixels."""
    return float(np.linalg.norm(found - true, axis=-1).mean())


@pytest.mark.parametrize(
    ("method", "half", "large", "turn"),
    [("dis", 0.05, 0.10, 0.06), ("farneback", 0.06, 0.20, 0.10), ("tvl1", 0.06, 0.10, 0.10)],
)
def test_known_motion_is_found(method: FlowMethod, half: float, large: float, turn: float) -> None:
    for (frames, true), limit in (
        (translation(0.5, 0.25), half),
        (translation(2.0, -1.0), large),
        (rotation(0.03), turn),
    ):
        found = estimate(frames, Flow(method=method))
        assert found.shape == (1, HEIGHT, WIDTH, 2)
        assert found.dtype == np.float32
        assert error(found[0], true) < limit
        assert error(found[0], true) < 0.3 * float(np.linalg.norm(true, axis=-1).mean())


@pytest.mark.parametrize("method", ["dis", "farneback"])
def test_a_field_depends_on_its_two_frames_only(method: FlowMethod) -> None:
    frames, _ = translation(1.0, 0.5, frames=4)
    flow = Flow(method=method)
    apart = [estimate(frames[t : t + 2], flow)[0] for t in range(3)]
    assert np.array_equal(estimate(frames, flow), np.stack(apart))


def test_one_frame_has_no_field() -> None:
    assert estimate(np.zeros((1, 20, 30, 3), np.uint8), Flow(method="dis")).shape == (0, 20, 30, 2)


def test_the_flow_of_a_mirrored_clip_is_the_mirrored_flow_with_x_reversed() -> None:
    frames, _ = translation(1.5, 0.5)
    flow = Flow(method="dis", bound=4)
    plain = quantise(estimate(frames, flow), 4)
    seen = dequantise(quantise(estimate(np.ascontiguousarray(mirror(frames)), flow), 4), 4)
    assert error(seen[0], dequantise(negate_x(mirror(plain)), 4)[0].astype(np.float64)) < 0.1
    assert error(seen[0], dequantise(np.ascontiguousarray(mirror(plain)), 4)[0].astype(np.float64)) > 2


@given(st.floats(-20, 20), st.sampled_from([2.0, 4.0, 20.0]))
def test_a_displacement_within_the_bound_comes_back_to_half_a_step(value: float, bound: float) -> None:
    cut = np.clip(np.full((1, 1, 1, 2), value, np.float32), -bound, bound)
    codes = quantise(cut, bound)
    assert np.abs(dequantise(codes, bound) - cut).max() <= bound / 255 * 1.0001


@given(st.floats(-19.9, 19.9))
def test_reversing_x_is_exact_and_leaves_y(value: float) -> None:
    field = np.full((1, 1, 1, 2), value, np.float32)
    reversed_ = field * np.array([-1, 1], np.float32)
    assert np.array_equal(negate_x(quantise(field, 20)), quantise(reversed_, 20))


def test_no_motion_is_128_also_when_mirrored_and_bytes_do_not_wrap() -> None:
    codes = quantise(np.array([[[[0.0, 0.0], [-99.0, 99.0], [99.0, -99.0]]]], np.float32), 20)
    assert codes.tolist() == [[[[128, 128], [0, 255], [255, 0]]]]
    assert negate_x(codes).tolist() == [[[[128, 128], [255, 255], [1, 0]]]]


def test_stacks_begin_at_their_frame_or_lie_around_it_and_repeat_the_outermost_field() -> None:
    indices = np.array([0, 5, 9])
    assert flow_stacks(indices, 10, 3, centred=False).tolist() == [[0, 1, 2], [5, 6, 7], [8, 8, 8]]
    assert flow_stacks(indices, 10, 4, centred=True).tolist() == [[0, 0, 0, 1], [3, 4, 5, 6], [7, 8, 8, 8]]
    assert flow_stacks(np.array([0]), 1, 2, centred=True).tolist() == [[-1, -1]]


@pytest.mark.parametrize("make", [raft_large, raft_small])
def test_raft_reads_its_weights_from_a_file_and_frames_of_any_size(make: object, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(make(weights=None).state_dict(), tmp_path / "raft.pth")  # type: ignore[operator]
    flow = pinned(Flow(method="raft", weights=str(tmp_path / "raft.pth")))
    assert len(weights_hash(str(flow.weights))) == 64
    found = estimate(np.random.default_rng(0).integers(0, 256, (2, 21, 30, 3)).astype(np.uint8), flow)
    assert found.shape == (1, 21, 30, 2)
    assert np.isfinite(found).all()


def test_a_file_that_is_no_raft_is_refused(tmp_path: Path) -> None:
    (tmp_path / "garbage.pth").write_bytes(b"no weights")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    for name, message in (
        ("none.pth", "no file of weights at"),
        ("garbage.pth", "is no file"),
        ("other.pth", "neither"),
    ):
        with pytest.raises(FlowUnavailable, match=message):
            estimate(frames, Flow(method="raft", weights=str(tmp_path / name)))


def test_a_missing_library_is_said_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(FlowUnavailable, match=r"flow by dis needs OpenCV.*pip install opencv-contrib"):
        require(Flow(method="dis"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "raft"}, "needs a file of weights"),
        ({"weights": "x.pth"}, "tvl1 takes no weights"),
        ({"bound": 0}, "greater than 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Flow.model_validate(settings)
