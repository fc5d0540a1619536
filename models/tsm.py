"""TSM: a 2D ResNet whose bottlenecks exchange channels between frames, scores averaged (Lin et al., ICCV 2019).

The trunk has torchvision's parameter names under ``trunk.``, so ImageNet weights fit at ``width`` 64. The shift has
no parameters.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck

from retable.nn import InputSpec, Outputs
from retable.nn.pretrained import take

PAPER = "Lin et al., TSM: Temporal Shift Module, ICCV 2019 (arXiv:1811.08383)"
SEMANTICS = 1

BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


class Config(BaseModel):
    """TSM's knobs; ``width`` and ``depth_divisor`` shrink it for small machines."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_classes: int = Field(174, ge=2)
    frames: int = Field(8, ge=1)
    size: int = Field(224, ge=8, description="side of a frame, pixels")
    weights: str = Field("none", description="none, imagenet, imagenet-v2, a path, or a URL with #sha256=")
    backbone: Literal["resnet50", "resnet101"] = "resnet50"
    width: int = Field(64, ge=8, multiple_of=8, description="channels of the stem; an eighth of them is shifted")
    depth_divisor: int = Field(1, ge=1, description="bottlenecks per stage = the backbone's / this, rounded up")
    dropout: float = Field(0.5, ge=0.0, lt=1.0)

    @property
    def blocks(self) -> tuple[int, ...]:
        """Bottlenecks in each of the four stages."""
        return tuple(math.ceil(n / self.depth_divisor) for n in BLOCKS[self.backbone])


def inputs(config: Config) -> dict[str, InputSpec]:
    return {"rgb": InputSpec(shape=(config.frames, 3, config.size, config.size))}


def architecture(config: Config) -> str:
    """The image network whose published weights fit the trunk.

    Raises:
        ValueError: the config shrinks the trunk.
    """
    if (config.width, config.depth_divisor) != (64, 1):
        raise ValueError(
            f"published weights are of a whole {config.backbone}: set width 64 and depth_divisor 1"
            f" (not {config.width} and {config.depth_divisor}), or weights none"
        )
    return config.backbone


def shift(x: Tensor, frames: int) -> Tensor:
    """Temporal shift of flat frames (B*T, C, H, W) within their clips, zeros beyond the ends (section 3).

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


def stage(c_in: int, planes: int, blocks: int, stride: int, frames: int) -> nn.Sequential:
    parts = []
    for i in range(blocks):
        project = nn.Sequential(nn.Conv2d(c_in, 4 * planes, 1, stride, bias=False), nn.BatchNorm2d(4 * planes))
        block = Bottleneck(c_in, planes, 1 if i else stride, None if i else project)
        block.conv1 = ShiftConv(c_in, planes, frames)
        parts.append(block)
        c_in = 4 * planes
    return nn.Sequential(*parts)


def trunk(config: Config) -> nn.Sequential:
    """ResNet without pooling and classifier, with torchvision's names and initialisation."""
    w = config.width
    net = nn.Sequential()
    net.add_module("conv1", nn.Conv2d(3, w, 7, 2, 3, bias=False))
    net.add_module("bn1", nn.BatchNorm2d(w))
    net.add_module("relu", nn.ReLU(inplace=True))
    net.add_module("maxpool", nn.MaxPool2d(3, 2, 1))
    for i, blocks in enumerate(config.blocks):
        layer = stage(w * 2 ** (i + 1) if i else w, w * 2**i, blocks, 2 if i else 1, config.frames)
        net.add_module(f"layer{i + 1}", layer)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


class Model(nn.Module):
    """Temporal shift network with average consensus."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.trunk = trunk(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(32 * config.width, config.num_classes)
        nn.init.normal_(self.classifier.weight, std=0.001)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, rgb: Tensor) -> Outputs:
        """(B, T, 3, H, W), normalised -> logits (B, K); map ``segment_logits`` (B, T, K).

        Raises:
            ValueError: T is not ``config.frames``.
        """
        if rgb.shape[1] != self.config.frames:
            raise ValueError(f"the clip has {rgb.shape[1]} frames, the model was built for {self.config.frames}")
        pooled = self.trunk(rgb.flatten(0, 1)).mean((2, 3))
        segment_logits = self.classifier(self.dropout(pooled)).unflatten(0, (-1, self.config.frames))
        return {"logits": segment_logits.mean(1), "maps": {"segment_logits": segment_logits}}

    def pretrained(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The trunk's tensors from those of torchvision's ResNet."""
        return take(state, {f"trunk.{name}": name for name in self.trunk.state_dict()}, left_out=("fc.",))


CONFIGS = {"tsm": Config(), "tsm-r101": Config(backbone="resnet101")}

TINY = Config(num_classes=4, frames=4, size=48, width=8, depth_divisor=6)
