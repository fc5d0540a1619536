"""R(2+1)D-18: a residual network whose 3-D convolutions are a spatial one, then a temporal one.

Tran et al., CVPR 2018, in the variant with a norm after each half and another after the pair, in which a shortcut that
changes shape is factorised too: 33,226,750 parameters at 101 classes, the count that MSF-Net's Table 5 prints.
Inside, clips are (B, C, T, H, W).
"""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from retable.nn import InputSpec, Outputs

PAPER = "Tran et al., A Closer Look at Spatiotemporal Convolutions for Action Recognition, CVPR 2018"
SEMANTICS = 1


class Config(BaseModel):
    """Knobs of R(2+1)D-18. ``num_classes``, ``frames`` and ``size`` come from the data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_classes: int = Field(101, ge=2)
    frames: int = Field(8, ge=1)
    size: int = Field(112, ge=8, description="side of the square frame, pixels")
    width: int = Field(64, ge=2, description="channels of the stem and of layer1; each later layer has twice as many")


def middle(ci: int, co: int, time: int, space: int) -> int:
    """Channels between the halves, so that the pair has as many weights as a full time x space x space convolution.

    ``floor(t d d ci co / (d d ci + t co))``, the paper's Section 3.5: 144 for 64 -> 64 with 3 x 3 x 3.
    """
    return time * space**2 * ci * co // (space**2 * ci + time * co)


def stem_middle(width: int) -> int:
    """Channels between the stem's halves: 45 at width 64, which the paper's networks use and its formula does not give.

    For a 3 x 7 x 7 stem that formula gives 83. Leaving the temporal extent out gives 44.6, so 45 is that rounded up:
    a spatial 7 x 7 and a pointwise half weigh what a full 7 x 7 would. Other widths follow the same rule.
    """
    return math.ceil(49 * 3 * width / (49 * 3 + width))


class Factorised(nn.Sequential):
    """Spatial convolution, norm, ReLU, temporal convolution, norm. ``kernel`` and ``stride`` are of the full one."""

    def __init__(self, ci: int, co: int, kernel: int, stride: int) -> None:
        m, pad = middle(ci, co, kernel, kernel), kernel // 2
        super().__init__(
            nn.Conv3d(ci, m, (1, kernel, kernel), (1, stride, stride), (0, pad, pad), bias=False),
            nn.BatchNorm3d(m),
            nn.ReLU(),
            nn.Conv3d(m, co, (kernel, 1, 1), (stride, 1, 1), (pad, 0, 0), bias=False),
            nn.BatchNorm3d(co),
        )


class Block(nn.Module):
    """Two factorised convolutions and a shortcut, each with one more norm after its pair; ReLU after the sum."""

    def __init__(self, ci: int, co: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(Factorised(ci, co, 3, stride), nn.BatchNorm3d(co), nn.ReLU())
        self.second = nn.Sequential(Factorised(co, co, 3, 1), nn.BatchNorm3d(co))
        changes = stride != 1 or ci != co
        self.shortcut = nn.Sequential(*([Factorised(ci, co, 1, stride), nn.BatchNorm3d(co)] if changes else []))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


class Model(nn.Module):
    """Factorised stem, four layers of two blocks (layer2 to layer4 halve the clip), average over the clip, classifier.

    ``maps`` holds the outputs of the stem and of the layers by name.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        w, m = config.width, stem_middle(config.width)
        stem = nn.Sequential(
            nn.Conv3d(3, m, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
            nn.BatchNorm3d(m),
            nn.ReLU(),
            nn.Conv3d(m, w, (3, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(w),
            nn.ReLU(),
        )
        self.stages = nn.ModuleDict({"stem": stem, "layer1": nn.Sequential(Block(w, w, 1), Block(w, w, 1))})
        for i in (2, 3, 4):
            co = w << i - 1
            self.stages[f"layer{i}"] = nn.Sequential(Block(co // 2, co, 2), Block(co, co, 1))
        self.classifier = nn.Linear(w << 3, config.num_classes)
        self.apply(_initialise)

    def forward(self, rgb: Tensor) -> Outputs:
        """``rgb`` (B, T, 3, H, W) -> logits (B, K) and maps (B, C, T, H, W)."""
        x, maps = rgb.transpose(1, 2), {}
        for name, stage in self.stages.items():
            x = maps[name] = stage(x)
        return {"logits": self.classifier(x.mean((2, 3, 4))), "maps": maps}


def _initialise(module: nn.Module) -> None:
    """He-normal convolutions; norms and the classifier keep PyTorch's defaults."""
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def inputs(config: Config) -> dict[str, InputSpec]:
    """One RGB clip."""
    return {"rgb": InputSpec(shape=(config.frames, 3, config.size, config.size))}


CONFIGS = {"r2plus1d": Config()}

TINY = Config(num_classes=5, size=32, width=8)
