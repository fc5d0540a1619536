"""torchvision's bottleneck ResNet on single frames, to its last map: the trunk that several models share.

Parameters are named as torchvision's, so that its weights fit at ``width`` 64. Maps are those of flat frames
``(B*T, C, H, W)``. The first convolution of a bottleneck may look at the neighbouring frames of the clip: ``tsm``
shifts channels to them (Lin et al., ICCV 2019), ``slowonly`` has kernels of 3 frames in the last two stages (Yang et
al., CVPR 2020).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck

Backbone = Literal["resnet50", "resnet101"]
Temporal = Literal["none", "tsm", "slowonly"]
Entry = Callable[[int, int], nn.Module]

_BLOCKS: dict[Backbone, tuple[int, ...]] = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


def depths(backbone: Backbone, divisor: int = 1) -> tuple[int, ...]:
    """Bottlenecks in each of the four stages, divided by ``divisor`` and rounded up."""
    return tuple(math.ceil(n / divisor) for n in _BLOCKS[backbone])


def architecture(backbone: Backbone, width: int, divisor: int) -> str:
    """The image network whose published weights fit a trunk of this width and these depths.

    Raises:
        ValueError: the trunk is shrunk.
    """
    if (width, divisor) != (64, 1):
        raise ValueError(
            f"published weights are of a whole {backbone}: set width 64 and depth_divisor 1"
            f" (not {width} and {divisor}), or weights none"
        )
    return backbone


def as_clip(x: Tensor, frames: int) -> Tensor:
    """(B*T, C, H, W) -> (B, C, T, H, W)."""
    return x.reshape(-1, frames, *x.shape[1:]).transpose(1, 2)


def shift(x: Tensor, frames: int) -> Tensor:
    """Temporal shift of flat frames (B*T, C, H, W) within their clips, zeros beyond the ends (TSM, section 3).

    The first eighth of the channels takes the next frame's values, the second eighth the previous frame's.
    """
    clip = x.reshape(-1, frames, *x.shape[1:])
    fold = x.shape[1] // 8
    following = F.pad(clip[:, 1:, :fold], (0, 0, 0, 0, 0, 0, 0, 1))
    previous = F.pad(clip[:, :-1, fold : 2 * fold], (0, 0, 0, 0, 0, 0, 1, 0))
    return torch.cat([following, previous, clip[:, :, 2 * fold :]], dim=2).flatten(0, 1)


class ShiftConv(nn.Conv2d):
    """1x1 convolution of shifted frames; as it is a bottleneck's ``conv1``, the identity path stays unshifted."""

    def __init__(self, c_in: int, c_out: int, frames: int) -> None:
        super().__init__(c_in, c_out, 1, bias=False)
        self.frames = frames

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(shift(x, self.frames))


class TimeConv(nn.Conv3d):
    """3x1x1 convolution over the frames of a clip, on flat frames."""

    def __init__(self, c_in: int, c_out: int, frames: int) -> None:
        super().__init__(c_in, c_out, (3, 1, 1), padding=(1, 0, 0), bias=False)
        self.frames = frames

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(as_clip(x, self.frames)).transpose(1, 2).flatten(0, 1)


def stage(c_in: int, planes: int, blocks: int, stride: int, entry: Entry | None = None) -> nn.Sequential:
    """``blocks`` bottlenecks to ``4 * planes`` channels; the first has the stride and a projection.

    ``entry(c_in, c_out)`` makes the first convolution of each; default torchvision's 1x1.
    """
    parts = []
    for i in range(blocks):
        # With an entry one is drawn for every block, used or not: initial weights stay those of recorded runs.
        project = _projection(c_in, 4 * planes, stride) if i == 0 or entry is not None else None
        block = Bottleneck(c_in, planes, 1 if i else stride, None if i else project)
        if entry is not None:
            block.conv1 = entry(c_in, planes)
        parts.append(block)
        c_in = 4 * planes
    return nn.Sequential(*parts)


def _projection(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))


def trunk(width: int, blocks: tuple[int, ...], *, temporal: Temporal = "none", frames: int = 1) -> nn.Sequential:
    """ResNet without pooling and classifier, initialised as torchvision's: (B*T, 3, H, W) -> (B*T, 32 width, h, w)."""
    net = nn.Sequential()
    net.add_module("conv1", nn.Conv2d(3, width, 7, 2, 3, bias=False))
    net.add_module("bn1", nn.BatchNorm2d(width))
    net.add_module("relu", nn.ReLU(inplace=True))
    net.add_module("maxpool", nn.MaxPool2d(3, 2, 1))
    for i, n in enumerate(blocks):
        entry = _entry(temporal, frames, last_two=i >= 2)
        net.add_module(
            f"layer{i + 1}", stage(width * 2 ** (i + 1) if i else width, width * 2**i, n, 2 if i else 1, entry)
        )
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def _entry(temporal: Temporal, frames: int, *, last_two: bool) -> Entry | None:
    match temporal:
        case "none":
            return None
        case "tsm":
            return functools.partial(ShiftConv, frames=frames)
        case "slowonly" if last_two:
            return functools.partial(TimeConv, frames=frames)
        case "slowonly":
            return functools.partial(nn.Conv2d, kernel_size=1, bias=False)
