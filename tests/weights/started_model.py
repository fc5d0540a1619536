"""A model file for tests of training with initial weights: one inflated convolution and a linear layer."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from retable.nn import InputSpec, Outputs
from retable.nn.pretrained import inflate, take

PAPER = "none"
SEMANTICS = 1


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    num_classes: int = 3
    frames: int = 4
    size: int = 8
    weights: str = "none"


TINY = Config()
CONFIGS = {"started_model": TINY}


def inputs(config: Config) -> dict[str, InputSpec]:
    return {"rgb": InputSpec((config.frames, 3, config.size, config.size))}


def architecture(config: Config) -> str:
    return "resnet18"


class Model(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.conv = nn.Conv3d(3, 4, 3, padding=1, bias=False)
        self.head = nn.Linear(4, config.num_classes)

    def forward(self, rgb: Tensor) -> Outputs:
        return {"logits": self.head(self.conv(rgb.transpose(1, 2)).relu().mean((2, 3, 4)))}

    def pretrained(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        found = take(state, {"conv.weight": "conv1.weight"}, left_out=("fc.",))
        return {"conv.weight": inflate(found["conv.weight"], 3)}
