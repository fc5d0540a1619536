"""TSN: a 2D ResNet on every frame, class scores averaged over the frames (Wang et al., ECCV 2016).

The trunk has torchvision's parameter names under ``trunk.``, so ImageNet weights fit at ``width`` 64.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from retable.nn import InputSpec, Outputs
from retable.nn.pretrained import take

PAPER = "Wang et al., Temporal Segment Networks, ECCV 2016 (arXiv:1608.00859)"
SEMANTICS = 1

BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


class Config(BaseModel):
    """TSN's knobs; ``width`` and ``depth_divisor`` shrink it for small machines."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_classes: int = Field(174, ge=2)
    frames: int = Field(8, ge=1, description="segments, one frame each")
    size: int = Field(224, ge=8, description="side of a frame, pixels")
    weights: str = Field("none", description="none, imagenet, imagenet-v2, a path, or a URL with #sha256=")
    backbone: Literal["resnet50", "resnet101"] = "resnet50"
    width: int = Field(64, ge=1, description="channels of the stem")
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


def stage(c_in: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    project = nn.Sequential(nn.Conv2d(c_in, 4 * planes, 1, stride, bias=False), nn.BatchNorm2d(4 * planes))
    first = Bottleneck(c_in, planes, stride, project)
    return nn.Sequential(first, *(Bottleneck(4 * planes, planes) for _ in range(1, blocks)))


def trunk(config: Config) -> nn.Sequential:
    """ResNet without pooling and classifier, with torchvision's names and initialisation."""
    w = config.width
    net = nn.Sequential()
    net.add_module("conv1", nn.Conv2d(3, w, 7, 2, 3, bias=False))
    net.add_module("bn1", nn.BatchNorm2d(w))
    net.add_module("relu", nn.ReLU(inplace=True))
    net.add_module("maxpool", nn.MaxPool2d(3, 2, 1))
    for i, blocks in enumerate(config.blocks):
        net.add_module(f"layer{i + 1}", stage(w * 2 ** (i + 1) if i else w, w * 2**i, blocks, stride=2 if i else 1))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


class Model(nn.Module):
    """Temporal segment network with average consensus; blind to the order of the frames."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.trunk = trunk(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(32 * config.width, config.num_classes)
        nn.init.normal_(self.classifier.weight, std=0.001)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, rgb: Tensor) -> Outputs:
        """(B, T, 3, H, W), normalised -> logits (B, K); map ``segment_logits`` (B, T, K)."""
        pooled = self.trunk(rgb.flatten(0, 1)).mean((2, 3))
        segment_logits = self.classifier(self.dropout(pooled)).unflatten(0, (-1, rgb.shape[1]))
        return {"logits": segment_logits.mean(1), "maps": {"segment_logits": segment_logits}}

    def pretrained(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The trunk's tensors from those of torchvision's ResNet."""
        return take(state, {f"trunk.{name}": name for name in self.trunk.state_dict()}, left_out=("fc.",))


CONFIGS = {"tsn": Config(), "tsn-r101": Config(backbone="resnet101")}

TINY = Config(num_classes=4, frames=4, size=48, width=8, depth_divisor=6)
