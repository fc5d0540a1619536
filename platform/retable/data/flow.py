"""Optical flow between consecutive frames: the methods, and displacements as bytes. Where they are kept is elsewhere.

A field is ``(H, W, 2)``: for every pixel of frame t, how far what it shows has moved in frame t + 1, to the right (x)
and down (y), in pixels.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import itertools
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retable.data.config import Flow, FlowMethod
from retable.data.errors import FlowUnavailable
from retable.data.transforms import Frames

Fields = NDArray[np.float32]
"""``(N, H, W, 2)`` float32, pixels per frame: x, y."""
Codes = NDArray[np.uint8]
"""``(N, H, W, 2)`` uint8: displacements in 256 steps, 128 is none."""

_DECLARED = "#sha256="
_Pair = Callable[[Any, Any], Any]
"""From two greyscale frames ``(H, W)`` uint8 to the field between them."""


def require(flow: Flow) -> None:
    """See to it that flow can be computed here, before anything that takes long begins.

    Raises:
        FlowUnavailable: a library or a file is missing; the message says how to get it.
    """
    if flow.method == "raft":
        weights_file(flow)
    else:
        _PAIRS[flow.method](_cv2(flow.method))


def estimate(frames: Frames, flow: Flow) -> Fields:
    """The fields between consecutive frames of ``(N, H, W, 3)`` RGB: ``(N - 1, H, W, 2)``.

    Raises:
        FlowUnavailable: as :func:`require`.
    """
    n, height, width, _ = frames.shape
    if n < 2:
        return np.empty((0, height, width, 2), np.float32)
    if flow.method == "raft":
        from retable.data.raft import load

        return load(weights_file(flow))(frames)
    cv2 = _cv2(flow.method)
    pair = _PAIRS[flow.method](cv2)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    return np.stack([pair(a, b) for a, b in itertools.pairwise(grey)]).astype(np.float32, copy=False)


def quantise(fields: Fields, bound: float) -> Codes:
    """Displacements cut to [-bound, bound], in steps of ``2 bound / 255``, rounded; no motion is exactly 128.

    The papers' linear scale to [0, 255] puts no motion at 127.5, between two bytes; ours is shifted by half a step, so
    that no motion is a byte and stays one when a clip is mirrored. A displacement within the bound comes back to half
    a step.
    """
    steps = np.rint(fields * np.float32(255 / (2 * bound))) + 128
    codes: Codes = np.clip(steps, 0, 255).astype(np.uint8)
    return codes


def dequantise(codes: Codes, bound: float) -> Fields:
    """Displacements in pixels of what :func:`quantise` made."""
    return (codes.astype(np.float32) - 128) * np.float32(2 * bound / 255)


def library(flow: Flow | None) -> dict[str, str]:
    """Name and version of the library that computes ``flow``; empty without flow. Other versions may give other bytes.

    A run that finds its flow computed may have it from another version than the one that is named here.
    """
    if flow is None:
        return {}
    name = "torchvision" if flow.method == "raft" else "opencv-contrib-python-headless"
    with contextlib.suppress(PackageNotFoundError):
        return {name: version(name)}
    return {}


def weights_file(flow: Flow) -> Path:
    """The file of RAFT's weights (without the hash that a planned config has behind it).

    Raises:
        FlowUnavailable: it is not there.
    """
    path = Path(str(flow.weights).partition(_DECLARED)[0]).expanduser()
    if not path.is_file():
        raise FlowUnavailable(f"flow by raft: there is no file of weights at {path}; put it there (torchvision's RAFT)")
    return path


def pinned(flow: Flow) -> Flow:
    """``flow`` with the absolute path of RAFT's weights and their hash behind it, so that it says what it computes.

    Raises:
        FlowUnavailable: as :func:`weights_file`.
    """
    if flow.weights is None or _DECLARED in flow.weights:
        return flow
    path = weights_file(flow).resolve()
    state = path.stat()
    return flow.model_copy(update={"weights": f"{path}{_DECLARED}{_hashed(path, state.st_size, state.st_mtime_ns)}"})


def weights_hash(weights: str) -> str:
    """The hash behind a :func:`pinned` path: what counts of it in an id."""
    return weights.partition(_DECLARED)[2]


@functools.cache
def _hashed(path: Path, _size: int, _mtime: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cv2(method: FlowMethod) -> Any:
    """OpenCV, on one thread: DIS cuts its work by the number of threads, and other cuts give other fields."""
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as error:
        raise FlowUnavailable(f"flow by {method} needs OpenCV ({error}): {_INSTALL}") from error
    cv2.setNumThreads(1)
    return cv2


_INSTALL = "pip install opencv-contrib-python-headless"


def _dis(cv2: Any) -> _Pair:
    """Kroeger et al., ECCV 2016; OpenCV's preset medium, but refined on the full size and not on its half.

    At the full size it errs half as much on our test fields and takes three times as long.
    """
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setFinestScale(0)
    return lambda a, b: dis.calc(a, b, None)


def _farneback(cv2: Any) -> _Pair:
    """Farneback, SCIA 2003: 3 scales, windows of 15 pixels, 3 iterations, polynomials of 5 pixels."""
    return lambda a, b: cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 3, 15, 3, 5, 1.2, 0)


def _tvl1(cv2: Any) -> _Pair:
    """Zach et al., DAGM 2007, with OpenCV's defaults: what the papers used."""
    if not hasattr(cv2, "optflow"):
        raise FlowUnavailable(f"flow by tvl1 needs OpenCV's contributed modules: {_INSTALL}")
    tvl1 = cv2.optflow.DualTVL1OpticalFlow_create()
    return lambda a, b: tvl1.calc(a, b, None)


_PAIRS: dict[FlowMethod, Callable[[Any], _Pair]] = {"dis": _dis, "farneback": _farneback, "tvl1": _tvl1}
