"""TSN: a 2D ResNet on every frame, class scores averaged over the frames (Wang et al., ECCV 2016).

The trunk has torchvision's parameter names under ``trunk.``, so ImageNet weights fit at ``width`` 64.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from retable.nn import InputSpec, Outputs, resnet
from retable.nn.pretrained import take

PAPER = "Wang et al., Temporal Segment Networks, ECCV 2016 (arXiv:1608.00859)"
SEMANTICS = 1


class Config(BaseModel):
    """TSN's knobs; ``width`` and ``depth_divisor`` shrink it for small machines."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_classes: int = Field(174, ge=2)
    frames: int = Field(8, ge=1, description="segments, one frame each")
    size: int = Field(224, ge=8, description="side of a frame, pixels")
    weights: str = Field("none", description="none, imagenet, imagenet-v2, a path, or a URL with #sha256=")
    backbone: resnet.Backbone = "resnet50"
    width: int = Field(64, ge=1, description="channels of the stem")
    depth_divisor: int = Field(1, ge=1, description="bottlenecks per stage = the backbone's / this, rounded up")
    dropout: float = Field(0.5, ge=0.0, lt=1.0)

    @property
    def blocks(self) -> tuple[int, ...]:
        """Bottlenecks in each of the four stages."""
        return resnet.depths(self.backbone, self.depth_divisor)


def inputs(config: Config) -> dict[str, InputSpec]:
    return {"rgb": InputSpec(shape=(config.frames, 3, config.size, config.size))}


def architecture(config: Config) -> str:
    """The image network whose published weights fit the trunk.

    Raises:
        ValueError: the config shrinks the trunk.
    """
    return resnet.architecture(config.backbone, config.width, config.depth_divisor)


def trunk(config: Config) -> nn.Sequential:
    """The ResNet on single frames."""
    return resnet.trunk(config.width, config.blocks)


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
