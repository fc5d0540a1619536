"""RAFT (Teed and Deng, ECCV 2020) by torchvision, with weights from a file: a large or a small network, as they fit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.optical_flow import raft_large, raft_small

from retable.data.decode import Frames
from retable.data.errors import FlowUnavailable

LEAST = 128
"""Smallest side in pixels: the last level of the correlation pyramid is 1/64 of it, and must not be a single point."""
_BATCH = 8

Estimator = Callable[[Frames], NDArray[np.float32]]


@functools.lru_cache(maxsize=1)
def load(weights: Path) -> Estimator:
    """The estimator with these weights, on a GPU if there is one: ``(N, H, W, 3)`` to ``(N - 1, H, W, 2)`` pixels.

    Raises:
        FlowUnavailable: the file does not hold the weights of either network.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = _fitting(weights).to(device).eval()

    def estimate(frames: Frames) -> NDArray[np.float32]:
        found = []
        for start in range(0, len(frames) - 1, _BATCH):
            part = torch.from_numpy(frames[start : start + _BATCH + 1]).to(device)
            found.append(_fields(model, part).cpu().numpy())
        return np.concatenate(found)

    return estimate


def _fitting(weights: Path) -> nn.Module:
    try:
        state: Any = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zipfile and torch each have their own way to refuse a file
        raise FlowUnavailable(f"{weights} is no file of weights: {error}") from error
    for make in (raft_large, raft_small):
        model: nn.Module = make(weights=None)
        wanted = {name: value.shape for name, value in model.state_dict().items()}
        if isinstance(state, dict) and {n: getattr(v, "shape", None) for n, v in state.items()} == wanted:
            model.load_state_dict(state)
            return model
    raise FlowUnavailable(f"{weights} holds the weights of neither raft_large nor raft_small of torchvision")


@torch.no_grad()
def _fields(model: nn.Module, frames: Tensor) -> Tensor:
    """``(M, H, W, 3)`` uint8 -> ``(M - 1, H, W, 2)`` float, between consecutive frames; their borders are continued."""
    height, width = frames.shape[1:3]
    images = frames.permute(0, 3, 1, 2).float() / 127.5 - 1  # torchvision's preset: to [-1, 1]
    down, right = (max(LEAST, -(-side // 8) * 8) - side for side in (height, width))
    images = F.pad(images, (0, right, 0, down), mode="replicate")
    predictions: list[Tensor] = model(images[:-1], images[1:])
    return predictions[-1][:, :, :height, :width].permute(0, 2, 3, 1)
