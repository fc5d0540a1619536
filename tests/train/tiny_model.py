"""A model file for tests of training: a 3-D convolution and a linear layer, and every mechanism a run must survive."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from retable.nn import InputSpec, Outputs

PAPER = "none"
SEMANTICS = 1


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    num_classes: int = 3
    frames: int = 4
    size: int = 8
    width: int = 4
    norm: bool = True
    dropout: float = 0.0
    penalty: float = 0.0
    smooth: float = 0.0
    double: bool = False
    explode: bool = False


TINY = Config()
CONFIGS = {"tiny_model": TINY}


def inputs(config: Config) -> dict[str, InputSpec]:
    dtype = "float64" if config.double else "float32"
    return {"rgb": InputSpec(shape=(config.frames, 3, config.size, config.size), dtype=dtype)}


class Model(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.conv = nn.Conv3d(3, config.width, 3, padding=1)
        self.norm = nn.BatchNorm3d(config.width) if config.norm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.width * config.frames, config.num_classes)
        if config.double:
            self.double()

    def forward(self, rgb: Tensor) -> Outputs:
        x = self.norm(self.conv(rgb.transpose(1, 2))).relu().mean(dim=(3, 4))
        logits = self.head(self.dropout(x.flatten(1)))
        if self.config.explode:
            logits = logits * float("inf")
        losses = {"penalty": self.config.penalty * x.square().mean()} if self.config.penalty else {}
        watched = {"size": x.detach().square().mean()}
        return {"logits": logits, "losses": losses, "maps": {"features": x}, "watched": watched}

    def label_losses(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        if not self.config.smooth:
            return {}
        true = outputs["logits"].gather(1, labels[:, None])
        return {"smooth": self.config.smooth * (torch.logsumexp(outputs["logits"], dim=1) - true[:, 0]).square().mean()}
