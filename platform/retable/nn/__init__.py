"""What every model file shares: the description of its inputs, its named outputs, and counting.

Imports torch and the standard library only, so that model files load without ray, mlflow, optuna and av.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict

from torch import Tensor

Modality = Literal["rgb", "flow"]


@dataclass(frozen=True)
class Normalisation:
    """``(pixel / 255 - mean) / std`` per channel, applied on the device; one value serves every channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""Channel statistics of torchvision's ImageNet weights (torchvision ``transforms`` page)."""


@dataclass(frozen=True)
class InputSpec:
    """One named input of a model's ``forward``: a clip ``(T, C, H, W)``, without the batch axis.

    With flow, every one of the T positions has a stack of ``fields`` consecutive flow fields, two channels each: x1,
    y1, x2, y2, ... It begins at the position's frame, or is ``centred`` on it.
    """

    shape: tuple[int, int, int, int]
    modality: Modality = "rgb"
    normalisation: Normalisation = IMAGENET
    dtype: str = "float32"
    fields: int = 0
    centred: bool = False


class Outputs(TypedDict):
    """What ``forward`` returns.

    ``logits`` is ``(B, K)``. ``losses`` are extra scalar terms, already weighted, that training adds to the
    cross-entropy and logs by name. ``maps`` are named intermediates for figures and tests. ``watched`` are scalars to
    look at while training, of the batch or of the parameters, without a gradient: their mean over an epoch is a curve.
    """

    logits: Tensor
    losses: NotRequired[dict[str, Tensor]]
    maps: NotRequired[dict[str, Tensor]]
    watched: NotRequired[dict[str, Tensor]]
