"""STA-TSN (Yang et al., PLoS ONE 17(3) e0265115, 2022): spatial and temporal attention in a temporal segment network.

One stream, RGB or optical flow: a ResNet sees every frame by itself, soft attention over the last map's positions adds
weight to some of them, and within each of N segments an LSTM decides how much each of the k frames counts. The weighted
frames are classified per segment and the scores averaged. Two-phase training and the fusion of streams live elsewhere.

Shapes: B clips, T = N k frames (segment by segment), C channels, K classes, h x w positions of the last map.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
import torchvision
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import Tensor, nn

from retable.nn import IMAGENET, InputSpec, Normalisation, Outputs
from retable.nn.pretrained import across_modalities, take

PAPER = "Yang et al., STA-TSN: Spatial-Temporal Attention Temporal Segment Network, PLoS ONE 17(3), 2022"
SEMANTICS = 1

Backbone = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "tiny"]
CHANNELS: dict[Backbone, int] = {
    **dict.fromkeys(("resnet50", "resnet101", "resnet152"), 2048),
    **dict.fromkeys(("resnet18", "resnet34"), 512),
    "tiny": 64,
}
FLOW = Normalisation(mean=(0.5,), std=(0.226,))
"""Of flow fields scaled to [0, 255], as TSN normalises them."""
AS_IS = Normalisation(mean=(0.0,), std=(1 / 255,))
"""Cached features pass unchanged."""


class Config(BaseModel):
    """Knobs of the paper's Table 2, and those for which it states one value or none.

    Raises (as a validation error): an unknown knob, or values that contradict each other; the message says what to set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_classes: int = Field(101, ge=2)
    frames: int = Field(30, ge=1, description="frames (or flow stacks) per clip, T")
    size: int = Field(224, ge=8, description="side of the square input, pixels")
    stream: Literal["rgb", "flow"] = "rgb"
    flow_length: int = Field(10, ge=1, description="consecutive flow fields per stack, two channels each")
    backbone: Backbone = "resnet152"
    weights: str = Field("none", description="none, imagenet, imagenet-v2, a path, or a URL with #sha256=")
    spatial_attention: bool = True
    tsn: bool = Field(True, description="several segments per clip; without it a clip is one frame")
    key_frames: bool = Field(True, description="weigh a segment's frames by LSTM attention; without it, equally")
    segments: int = Field(3, ge=1, description="N, with tsn")
    frames_per_segment: int = Field(10, ge=1, description="k, with key_frames")
    spp: Literal["same_pool", "bins"] = Field("same_pool", description="pyramid of max pools of stride 1, or of bins")
    spp_sizes: tuple[int, ...] = Field((1, 3, 5, 7), min_length=1, description="kernels, or bins per side")
    sf_scale: float = Field(1.0, gt=0, description="of the attended term; h * w would balance it with the plain one")
    regularisation: float = Field(1.0, ge=0, description="weight of the temporal-attention loss")
    judge_folds: int = Field(
        1, ge=1, description="folds of videos; the classifiers that judge a frame never saw its fold. 1: they saw all"
    )
    head_only: bool = Field(False, description="phase 2: what follows the frames' features, on cached features")

    @model_serializer(mode="wrap")
    def _without_one_fold(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Configs without folds look as they did before there were any, so that their runs keep their ids."""
        body: dict[str, Any] = dump(self)
        if body["judge_folds"] == 1:
            del body["judge_folds"]
        return body

    @model_validator(mode="after")
    def _mechanisms_have_what_they_need(self) -> Self:
        if self.key_frames and not self.tsn:
            raise ValueError("key_frames weighs the frames of segments and needs tsn: turn tsn on, or key_frames off")
        if self.key_frames and self.frames_per_segment < 2:
            raise ValueError(
                f"frames_per_segment {self.frames_per_segment} leaves no frames to choose between:"
                " set at least 2, or turn key_frames off"
            )
        if self.head_only and not self.key_frames:
            raise ValueError("head_only is the key-frame module and its classifier: turn key_frames on")
        if self.spatial_attention and not self.head_only and self.size <= self.stride:
            raise ValueError(
                f"size {self.size} leaves one position after {self.backbone}'s stride of {self.stride}:"
                f" set a size above {self.stride}, or turn spatial_attention off"
            )
        if bad := [n for n in self.spp_sizes if n < 1 or (self.spp == "same_pool" and n % 2 == 0)]:
            raise ValueError(f"spp_sizes {bad}: a pool that keeps the map's size has an odd kernel; set odd sizes")
        return self

    @model_validator(mode="after")
    def _frames_fill_the_segments(self) -> Self:
        expected = self.segments * self.frames_per_segment
        if self.key_frames and self.frames != expected:
            raise ValueError(
                f"frames {self.frames} is not segments {self.segments} x frames_per_segment {self.frames_per_segment}:"
                f" set clips of {expected} frames, or other segments"
            )
        if self.tsn and self.frames % self.segments:
            raise ValueError(
                f"frames {self.frames} cannot be cut into {self.segments} equal segments:"
                f" set frames to a multiple of {self.segments}"
            )
        if not self.tsn and self.frames != 1:
            raise ValueError(
                f"frames {self.frames} without tsn: such a network sees one frame;"
                " set frames 1 (and as many clips per video as the test needs), or turn tsn on"
            )
        return self

    @property
    def stride(self) -> int:
        """Input pixels per position of the last map."""
        return 8 if self.backbone == "tiny" else 32

    @property
    def source(self) -> Literal["rgb", "flow", "features"]:
        """Name of the model's one input."""
        return "features" if self.head_only else self.stream


def inputs(config: Config) -> dict[str, InputSpec]:
    """The stream's frames ``(T, 3 or 2 flow_length, size, size)``, or with ``head_only`` features ``(T, C, 1, 1)``."""
    t, s = config.frames, config.size
    if config.head_only:
        return {"features": InputSpec((t, CHANNELS[config.backbone], 1, 1), config.stream, AS_IS)}
    if config.stream == "flow":
        return {"flow": InputSpec((t, 2 * config.flow_length, s, s), "flow", FLOW, fields=config.flow_length)}
    return {"rgb": InputSpec((t, 3, s, s), "rgb", IMAGENET)}


def architecture(config: Config) -> str:
    """The image network whose published weights fit the trunk.

    Raises:
        ValueError: there is no trunk, or a tiny one.
    """
    if config.head_only:
        raise ValueError("head_only works on features and has no trunk to fill: set weights none")
    if config.backbone == "tiny":
        raise ValueError("there are no weights for backbone tiny: set weights none, or a resnet")
    return config.backbone


def resnet_trunk(name: Backbone, in_channels: int) -> nn.Sequential:
    """torchvision's ResNet up to layer4, its parameter names kept: ``(M, in_channels, H, W)`` to ``(M, C, h, w)``."""
    net = torchvision.models.get_model(name, weights=None)
    if in_channels != 3:
        net.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's own
    return nn.Sequential(OrderedDict((n, m) for n, m in net.named_children() if n not in ("avgpool", "fc")))


def tiny_trunk(in_channels: int) -> nn.Sequential:
    """Four layers of stride 8 in all, for tests and small machines: ``(M, in_channels, H, W)`` to ``(M, 64, h, w)``."""
    layers = nn.Sequential()
    for out_channels, stride in ((8, 2), (16, 2), (32, 2), (64, 1)):
        layers += nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU()
        )
        in_channels = out_channels
    return layers


def max_bins(maps: Tensor, n: int) -> Tensor:
    """``adaptive_max_pool2d(maps, n)``, whose backward pass on CUDA cannot be made deterministic."""
    for dim in (2, 3):
        side = maps.shape[dim]
        edges = [(i * side // n, -(-(i + 1) * side // n)) for i in range(n)]
        maps = torch.stack([maps.narrow(dim, start, end - start).amax(dim) for start, end in edges], dim)
    return maps


class SpatialAttention(nn.Module):
    """How much each position of a map counts (equations 3 to 5): ``(M, C, h, w)`` to alpha ``(M, 1, h, w)``, sum 1.

    Starts with equal weights: the paper names no initial values, and random ones would prefer some positions of
    pretrained maps, while the gradient that could correct it carries the factor 1 / (h w).
    """

    def __init__(self, channels: int, sizes: tuple[int, ...], *, bins: bool) -> None:
        super().__init__()
        self.sizes, self.bins = sizes, bins
        self.score = nn.Conv2d(len(sizes) * channels, 1, 1)
        nn.init.zeros_(self.score.weight)
        assert self.score.bias is not None
        nn.init.zeros_(self.score.bias)

    def forward(self, maps: Tensor) -> Tensor:
        scores: Tensor = self.score(torch.cat([self._pool(maps, n) for n in self.sizes], 1))
        return scores.flatten(1).softmax(1).view_as(scores)

    def _pool(self, maps: Tensor, n: int) -> Tensor:
        if self.bins:
            return F.interpolate(max_bins(maps, n), maps.shape[-2:])
        return F.max_pool2d(maps, n, stride=1, padding=n // 2) if n > 1 else maps


class LSTM(nn.Module):
    """One layer from a zero state, ``(M, k, C)`` to ``(M, k, C)``; the parameters of ``nn.LSTM``, gates i, f, g, o.

    Written as linear layers so that counters of operations see it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ih = nn.Linear(channels, 4 * channels)  # their default range is that of nn.LSTM: 1 / sqrt(C)
        self.hh = nn.Linear(channels, 4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        hidden = cell = torch.zeros_like(x[:, 0])
        states = []
        for step in self.ih(x).unbind(1):
            i, f, g, o = (step + self.hh(hidden)).chunk(4, 1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
            states.append(hidden)
        return torch.stack(states, 1)


class KeyFrames(nn.Module):
    """How much each frame of a segment counts (equations 8 to 10): ``(B, N, k, C)`` to beta ``(B, N, k)``, sum 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lstm = LSTM(channels)
        self.score = nn.Conv1d(channels, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.lstm(features.flatten(0, 1))
        scores: Tensor = self.score(hidden.transpose(1, 2))
        return scores.softmax(-1).view(features.shape[:3])


class Model(nn.Module):
    """One stream. Maps: ``alpha`` (B, T, h, w), ``features`` (B, T, C), ``beta`` (B, N, k), ``scores`` (B, N, K)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        channels = CHANNELS[config.backbone]
        if not config.head_only:
            in_channels = inputs(config)[config.stream].shape[1]
            tiny = config.backbone == "tiny"
            self.trunk = tiny_trunk(in_channels) if tiny else resnet_trunk(config.backbone, in_channels)
            if config.spatial_attention:
                self.spatial = SpatialAttention(channels, config.spp_sizes, bins=config.spp == "bins")
        if config.key_frames:
            self.key_frames = KeyFrames(channels)
        self.fc = nn.Linear(channels, config.num_classes)

    def forward(self, rgb: Tensor | None = None, flow: Tensor | None = None, features: Tensor | None = None) -> Outputs:
        """Scores of clips ``(B, T, channels, size, size)``, or of features ``(B, T, C, 1, 1)`` with ``head_only``.

        Raises:
            TypeError: the input that the config names is missing.
        """
        clips = {"rgb": rgb, "flow": flow, "features": features}[self.config.source]
        if clips is None:
            raise TypeError(f"this model reads the input {self.config.source!r}, which was not given")
        maps = {"features": clips.flatten(2)} if self.config.head_only else self.embed(clips)
        b, _, c = maps["features"].shape
        segments = maps["features"].view(b, self.config.segments if self.config.tsn else 1, -1, c)
        if self.config.key_frames:
            maps["beta"] = self.key_frames(segments)
            segment = (maps["beta"].unsqueeze(-1) * segments).sum(2)  # equation 11, which prints k for t
        else:
            segment = segments.mean(2)
        maps["scores"] = self.fc(segment)
        return {"logits": maps["scores"].mean(1), "maps": maps}

    def embed(self, clips: Tensor) -> dict[str, Tensor]:
        """Every frame by itself: ``features`` (B, T, C), and ``alpha`` (B, T, h, w) if attended (equations 6, 7)."""
        b, t = clips.shape[:2]
        last = self.trunk(clips.flatten(0, 1))
        if not self.config.spatial_attention:
            return {"features": last.mean((2, 3)).view(b, t, -1)}
        alpha = self.spatial(last)
        focus = (alpha * last).mean((2, 3))  # apart from the plain term: 1 + alpha would round alpha away in bf16
        features = last.mean((2, 3)) + self.config.sf_scale * focus
        return {"features": features.view(b, t, -1), "alpha": alpha.view(b, t, *alpha.shape[2:])}

    def pretrained(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The trunk's tensors from those of torchvision's ResNet; flow's first convolution sees RGB's mean."""
        found = take(state, {f"trunk.{name}": name for name in self.trunk.state_dict()}, left_out=("fc.",))
        if self.config.stream == "flow":
            first = "trunk.conv1.weight"
            found[first] = across_modalities(found[first], 2 * self.config.flow_length)
        return found

    def label_losses(self, outputs: Outputs, labels: Tensor, *, judged: Tensor | None = None) -> dict[str, Tensor]:
        """Temporal-attention regularisation (equations 12 to 14): attention on frames that do not show their class.

        Args:
            outputs: what ``forward`` returned.
            labels: ``(B,)``; already used by whoever judged the frames, and not read again.
            judged: bool ``(B, T)``, whether the binary classifier of the video's class accepts the frame.

        Returns:
            ``attention``: weighted mean over the batch of the mean squared beta over a video's rejected frames, 0 for
            a video without any. Empty without ``judged``, key frames or weight.
        """
        if judged is None or not self.config.key_frames or not self.config.regularisation:
            return {}
        beta = outputs["maps"]["beta"].flatten(1)
        rejected = ~judged.bool()
        per_video = (beta.square() * rejected).sum(1) / rejected.sum(1).clamp(min=1)
        return {"attention": self.config.regularisation * per_video.mean()}


CONFIGS = {
    "statsn": Config(),
    "statsn-flow": Config(stream="flow"),
    "statsn-head": Config(head_only=True),
    "sa-resnet152-tsn": Config(key_frames=False, frames=3),
    "sa-resnet152": Config(key_frames=False, tsn=False, frames=1),
    "resnet152": Config(key_frames=False, tsn=False, frames=1, spatial_attention=False),
}
TINY = Config(backbone="tiny", num_classes=5, frames=30, size=48)
