"""MAAGN: multipath attention and adaptive gating on a temporal pyramid network (Neural Processing Letters 2024).

ResNet trunk -> pyramid levels res4 and res5 -> on each level a spatial difference module (SDM) and a multi-angle
temporal attention module (MTAM), merged by an adaptive gating module (AGM) -> TPN neck -> linear classifier. Without
the two modules it is a plain TPN (Yang et al., CVPR 2020). The trunk runs on flat frames (B*T, C, H, W) and has
torchvision's parameter names under ``trunk.``; levels and neck are (B, C, T, H, W); C is 16 and 32 times ``width``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from retable.nn import InputSpec, Outputs, resnet
from retable.nn.pretrained import inflate, take

PAPER = "Zhang et al., Multipath Attention and Adaptive Gating Network for Video Action Recognition, NPL 2024"
SEMANTICS = 1

Level = Literal["res4", "res5"]
LAYERS: dict[str, Level] = {"layer3": "res4", "layer4": "res5"}
AUX_WEIGHT = 0.5


class Config(BaseModel):
    """MAAGN's knobs; ``width``, ``depth_divisor``, ``neck_width`` and ``neck_groups`` shrink it for small machines."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_classes: int = Field(174, ge=2)
    frames: int = Field(8, ge=1)
    size: int = Field(224, ge=8, description="side of a frame, pixels; below 48 the res5 map is a single pixel")
    weights: str = Field("none", description="none, imagenet, imagenet-v2, a path, or a URL with #sha256=")
    backbone: resnet.Backbone = "resnet50"
    backbone_temporal: Literal["tsm", "slowonly"] = "tsm"
    width: int = Field(64, ge=4, description="channels of the stem")
    depth_divisor: int = Field(1, ge=1, description="bottlenecks per stage = the backbone's / this, rounded up")
    neck: Literal["tpn_slim", "tpn_official"] = "tpn_slim"
    neck_width: int | None = Field(None, ge=1, description="channels inside tpn_slim; default 8 x width")
    neck_groups: int = Field(32, ge=1, description="groups of the neck's grouped convolutions")
    spatial: Literal["sdm", "none"] = "sdm"
    temporal: Literal["mtam", "none"] = "mtam"
    combine: Literal["parallel_agm", "parallel_sum", "serial_spatial_first", "serial_temporal_first"] = "parallel_agm"
    levels: tuple[Level, ...] = Field(("res4", "res5"), min_length=1, description="pyramid levels with the modules")
    sdm_fusion: Literal["residual_mul", "mul", "add", "sub"] = "residual_mul"
    mtam_masks: Literal["max+avg+iso", "max+avg", "avg", "max"] = "max+avg+iso"
    r: int = Field(16, ge=1, description="channel reduction inside SDM and MTAM")
    iso_group_width: int = Field(32, ge=1, description="output channels per group of MTAM's third mask")
    agm_softmax: Literal["time", "channel"] = "time"
    agm_alpha: Literal["channel", "scalar"] = "channel"
    agm_live_gate: bool = Field(False, description="multiply AGM's softmax by the length of its axis; not in the paper")
    dropout: float = Field(0.5, ge=0.0, lt=1.0)
    aux_head: bool = Field(False, description="auxiliary classifier on raw res4 while training, weight 0.5")

    @property
    def blocks(self) -> tuple[int, ...]:
        """Bottlenecks in each of the four stages."""
        return resnet.depths(self.backbone, self.depth_divisor)

    @property
    def channels(self) -> dict[Level, int]:
        return {"res4": 16 * self.width, "res5": 32 * self.width}

    @property
    def slim_width(self) -> int:
        return 8 * self.width if self.neck_width is None else self.neck_width

    @property
    def branches(self) -> tuple[str, ...]:
        """The modules of a level, in the order in which a serial composition applies them."""
        order = ("mtam", "sdm") if self.combine == "serial_temporal_first" else ("sdm", "mtam")
        return tuple(name for name in order if name in (self.spatial, self.temporal))

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if problems := list(self._problems()):
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        narrowest = min(self.channels[level] for level in self.levels)
        if len(set(self.levels)) < len(self.levels):
            yield f"levels {list(self.levels)} names a level twice"
        if self.backbone_temporal == "tsm" and self.width % 8:
            yield f"width {self.width} with tsm must be a multiple of 8, as an eighth of the channels is shifted"
        if self.spatial == "sdm" and self.frames % 2:
            yield _odd(self.frames)
        if self.branches and self.r > narrowest:
            yield f"r {self.r} leaves no hidden channel: {narrowest} channels allow r <= {narrowest}"
        if self.temporal == "mtam" and "iso" in self.mtam_masks and narrowest % self.iso_group_width:
            yield f"iso_group_width {self.iso_group_width} must divide the level's {narrowest} channels"
        deep = self.slim_width if self.neck == "tpn_slim" else 16 * self.width
        if deep % self.neck_groups:
            yield f"neck_groups {self.neck_groups} must divide the {deep} channels of {self.neck}"


def inputs(config: Config) -> dict[str, InputSpec]:
    return {"rgb": InputSpec(shape=(config.frames, 3, config.size, config.size))}


def architecture(config: Config) -> str:
    """The image network whose published weights fit the trunk.

    Raises:
        ValueError: the config shrinks the trunk.
    """
    return resnet.architecture(config.backbone, config.width, config.depth_divisor)


def _odd(frames: int) -> str:
    return f"SDM compares two halves of the clip, but {frames} frames is odd: use {frames + 1}, or spatial none"


def trunk(config: Config) -> nn.Sequential:
    """The ResNet, its bottlenecks shifting channels in time or, of slow-only, with time taps in res4 and res5."""
    return resnet.trunk(config.width, config.blocks, temporal=config.backbone_temporal, frames=config.frames)


# Pooling below is amax and mean: unlike MaxPool3d's and AdaptiveMaxPool's, their CUDA gradients are deterministic.


class Squeeze(nn.Sequential):
    """Bias-free channel MLP on pooled features (B, C, T): C -> C / r -> ReLU -> c_out, the same at every time step."""

    def __init__(self, channels: int, r: int, c_out: int) -> None:
        hidden = channels // r
        super().__init__(nn.Conv1d(channels, hidden, 1, bias=False), nn.ReLU(), nn.Conv1d(hidden, c_out, 1, bias=False))
        for part in self:
            if isinstance(part, nn.Conv1d):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")


class SDM(nn.Module):
    """Spatial difference module: a mask per frame and channel from the change between the clip's two halves."""

    def __init__(self, channels: int, config: Config) -> None:
        super().__init__()
        self.fusion = config.sdm_fusion
        self.mlp = Squeeze(channels, config.r, 2 * channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, T, H, W) -> the same shape, and the mask (B, C, T) in (0, 1).

        Raises:
            ValueError: T is odd.
        """
        if x.shape[2] % 2:
            raise ValueError(_odd(x.shape[2]))
        front, back = x.chunk(2, dim=2)
        logits = self.mlp((back - front).amax((3, 4)))  # (B, 2C, T/2): the front half's mask, then the back half's
        mask = torch.cat(logits.chunk(2, dim=1), dim=2).sigmoid()
        h = mask[..., None, None]
        match self.fusion:
            case "residual_mul":
                return x + x * h, mask
            case "mul":
                return x * h, mask
            case "add":
                return x + h, mask
            case "sub":
                return x - h, mask


class MTAM(nn.Module):
    """Multi-angle temporal attention: masks from the maximum, from the mean, and from both over neighbouring frames."""

    def __init__(self, channels: int, config: Config) -> None:
        super().__init__()
        self.masks = tuple(config.mtam_masks.split("+"))
        self.mlp = Squeeze(channels, config.r, channels)
        self.iso: nn.Conv1d | None = None
        if "iso" in self.masks:
            groups = channels // config.iso_group_width
            self.iso = nn.Conv1d(2 * channels, channels, 3, padding=1, groups=groups, bias=False)
            nn.init.kaiming_normal_(self.iso.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, T, H, W) -> the same shape, and the mask (B, C, T) in (0, number of masks)."""
        logits: dict[str, Tensor] = {}
        if "max" in self.masks:
            logits["max"] = self.mlp(x.amax((3, 4)))
        if "avg" in self.masks:
            logits["avg"] = self.mlp(x.mean((3, 4)))
        if self.iso is not None:
            logits["iso"] = self.iso(interleave(logits["avg"], logits["max"]))
        mask = torch.stack([logit.sigmoid() for logit in logits.values()]).sum(0)
        return x + x * mask[..., None, None], mask


def interleave(a: Tensor, b: Tensor) -> Tensor:
    """Channels a0, b0, a1, b1, ...: so a grouped convolution sees both sources in every group. Channels-last layout."""
    return torch.stack([a.movedim(1, -1), b.movedim(1, -1)], dim=-1).flatten(-2).movedim(-1, 1)


class AGM(nn.Module):
    """Adaptive gating: adds a gated mixture of both branches to the temporal one, then merges the two."""

    def __init__(self, channels: int, config: Config) -> None:
        super().__init__()
        self.axis = 2 if config.agm_softmax == "time" else 1
        self.live = config.agm_live_gate
        self.conv1 = _depthwise(channels, 3, c_in=2 * channels)
        self.conv2 = _depthwise(channels, 3)
        self.conv3 = _depthwise(channels, 3)
        self.conv_a = _depthwise(channels, 1)
        self.conv_b = _depthwise(channels, 1)
        self.alpha = nn.Parameter(torch.zeros(1, channels if config.agm_alpha == "channel" else 1, 1, 1, 1))
        nn.init.kaiming_normal_(self.conv1.weight, nonlinearity="relu")
        for conv in (self.conv2, self.conv3):  # identity kernels: the block starts as the plain sum of its branches
            nn.init.zeros_(conv.weight)
            with torch.no_grad():
                conv.weight[:, :, 1, 1, 1] = 1.0

    def forward(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Spatial and temporal branch, both (B, C, T, H, W) -> their merge and the gate, both of the same shape."""
        u = self.conv1(interleave(s, t)).softmax(self.axis)
        if self.live:
            u = u * u.shape[self.axis]
        gate = self.conv_b(u * self.alpha * self.conv_a(u))
        return self.conv3(s + self.conv2(gate + t)), gate


def _depthwise(channels: int, kernel: int, c_in: int | None = None) -> nn.Conv3d:
    return nn.Conv3d(c_in or channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)


class LevelBlock(nn.Module):
    """SDM and MTAM on one pyramid level, in series or in parallel; parallel branches are summed or gated."""

    def __init__(self, channels: int, config: Config) -> None:
        super().__init__()
        parts = {"sdm": SDM, "mtam": MTAM}
        self.branches = nn.ModuleDict({name: parts[name](channels, config) for name in config.branches})
        parallel = config.combine.startswith("parallel") and len(config.branches) == 2
        self.serial = not parallel
        self.agm = AGM(channels, config) if parallel and config.combine == "parallel_agm" else None

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(B, C, T, H, W) -> the same shape, and maps: masks (B, T, C), the gate (B, T, C, H, W)."""
        maps: dict[str, Tensor] = {}
        outputs = []
        for name, branch in self.branches.items():
            y, mask = branch(x)
            outputs.append(y)
            maps[f"{name}_mask"] = mask.transpose(1, 2)
            if self.serial:
                x = y
        if self.serial:
            return x, maps
        s, t = outputs
        if self.agm is None:
            return s + t, maps
        y, gate = self.agm(s, t)
        maps["gate"] = gate.transpose(1, 2)
        return y, maps


def cbr(c_in: int, c_out: int, *, groups: int = 1, halve: bool = False) -> nn.Sequential:
    """Convolution, batch norm, ReLU: 1x1x1, or 1x3x3 with spatial stride 2 where it halves the map."""
    if halve:
        conv = nn.Conv3d(c_in, c_out, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), bias=False)
    else:
        conv = nn.Conv3d(c_in, c_out, 1, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm3d(c_out), nn.ReLU(inplace=True))


def _time_conv(c_in: int, c_out: int, groups: int = 1) -> nn.Conv3d:
    return nn.Conv3d(c_in, c_out, (3, 1, 1), padding=(1, 0, 0), groups=groups, bias=False)


class LevelFusion(nn.Module):
    """Two maps of ``c`` channels -> one: of ``c`` channels (slim), or of 2c after a grouped block each (official)."""

    def __init__(self, c: int, config: Config) -> None:
        super().__init__()
        official = config.neck == "tpn_official"
        self.each = nn.ModuleList(cbr(c, c, groups=config.neck_groups) if official else nn.Identity() for _ in range(2))
        self.merge = cbr(2 * c, 2 * c if official else c)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        fused: Tensor = self.merge(torch.cat([self.each[0](low), self.each[1](high)], dim=1))
        return fused


class Neck(nn.Module):
    """Temporal pyramid neck; ``tpn_official`` has the released widths, ``tpn_slim`` one width throughout.

    Modulates both levels to one resolution and to one time step, adds top-down and bottom-up flows (the bottom-up
    flow starts from the top-down result), and fuses the levels after each flow.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        c4, c5 = config.channels["res4"], config.channels["res5"]
        official = config.neck == "tpn_official"
        wide, deep = (c5, c5 // 2) if official else (config.slim_width, config.slim_width)
        self.spatial4 = cbr(c4, wide, halve=True)
        self.spatial5 = nn.Identity() if official else cbr(c5, wide)
        self.temporal4 = _time_conv(wide, deep, config.neck_groups)
        self.temporal5 = _time_conv(wide, deep, config.neck_groups)
        self.bottom_up = _time_conv(deep, deep)
        self.fuse_top_down = LevelFusion(deep, config)
        self.fuse_bottom_up = LevelFusion(deep, config)
        self.pyramid = cbr(4 * deep if official else 2 * deep, c5)
        _xavier(self)

    def forward(self, res4: Tensor, res5: Tensor) -> Tensor:
        """(B, C4, T, 2H, 2W) and (B, C5, T, H, W) -> (B, C5, 1, H, W)."""
        low = self.temporal4(self.spatial4(res4)).amax(2, keepdim=True)
        high = self.temporal5(self.spatial5(res5)).amax(2, keepdim=True)
        low = low + high
        top_down = self.fuse_top_down(low, high)
        bottom_up = self.fuse_bottom_up(low, high + self.bottom_up(low))
        fused: Tensor = self.pyramid(torch.cat([top_down, bottom_up], dim=1))
        return fused


def _xavier(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Conv3d):
            nn.init.xavier_uniform_(part.weight)


class Head(nn.Module):
    """Global average pooling, dropout, linear: (B, C, T, H, W) -> (B, K)."""

    def __init__(self, channels: int, config: Config) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(channels, config.num_classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.dropout(x.mean((2, 3, 4))))
        return logits


class Model(nn.Module):
    """MAAGN, or a plain TPN when both modules are ``none``."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        c4, c5 = config.channels["res4"], config.channels["res5"]
        self.trunk = trunk(config)
        sites = config.levels if config.branches else ()
        self.levels = nn.ModuleDict({level: LevelBlock(config.channels[level], config) for level in sites})
        self.neck = Neck(config)
        self.head = Head(c5, config)
        self.aux: nn.Sequential | None = None
        if config.aux_head:
            self.aux = nn.Sequential(cbr(c4, c5, halve=True), Head(c5, config))
            _xavier(self.aux)

    def forward(self, rgb: Tensor) -> Outputs:
        """(B, T, 3, H, W), normalised -> logits (B, K) and maps.

        Maps: per level ``<level>_sdm_mask`` and ``<level>_mtam_mask`` (B, T, C), ``<level>_gate`` (B, T, C, H, W);
        while training with ``aux_head`` also ``aux_logits`` (B, K). Watched: the size of each gate's alpha.

        Raises:
            ValueError: T is not ``config.frames``.
        """
        if rgb.shape[1] != self.config.frames:
            raise ValueError(f"the clip has {rgb.shape[1]} frames, the model was built for {self.config.frames}")
        maps: dict[str, Tensor] = {}
        features = self._features(rgb)
        if self.aux is not None and self.training:
            maps["aux_logits"] = self.aux(features["res4"])
        for level, block in self.levels.items():
            features[level], named = block(features[level])
            maps |= {f"{level}_{name}": value for name, value in named.items()}
        logits = self.head(self.neck(features["res4"], features["res5"]))
        return {"logits": logits, "maps": maps, "watched": self._alphas()}

    def _alphas(self) -> dict[str, Tensor]:
        """Mean and largest magnitude of each gate's alpha, which starts at zero."""
        sizes = {name.split(".")[1]: p.detach().abs() for name, p in self.named_parameters() if name.endswith(".alpha")}
        means = {f"alpha.{level}": size.mean() for level, size in sizes.items()}
        return means | {f"alpha.{level}.max": size.max() for level, size in sizes.items()}

    def label_losses(self, outputs: Outputs, labels: Tensor, **side: Tensor) -> dict[str, Tensor]:
        """The auxiliary head's weighted cross-entropy, where there is one (it runs while training only)."""
        aux_logits = outputs.get("maps", {}).get("aux_logits")
        return {} if aux_logits is None else {"aux": AUX_WEIGHT * F.cross_entropy(aux_logits, labels)}

    def pretrained(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The trunk's tensors from those of torchvision's ResNet; slow-only's temporal kernels are inflated ones."""
        ours = {f"trunk.{name}": value for name, value in self.trunk.state_dict().items()}
        found = take(state, {name: name.removeprefix("trunk.") for name in ours}, left_out=("fc.",))
        return {name: inflate(x, ours[name].shape[2]) if ours[name].dim() == 5 else x for name, x in found.items()}

    def _features(self, rgb: Tensor) -> dict[str, Tensor]:
        """Raw outputs of the last two stages, (B, C, T, H, W)."""
        features: dict[str, Tensor] = {}
        x = rgb.flatten(0, 1)
        for name, part in self.trunk.named_children():
            x = part(x)
            if name in LAYERS:
                clip = resnet.as_clip(x, self.config.frames)
                # channels-last: the CPU's depthwise convolutions take a third less time per training step
                features[LAYERS[name]] = clip.contiguous(memory_format=torch.channels_last_3d)
        return features


CONFIGS = {
    "maagn": Config(),
    "maagn-serial": Config(combine="serial_spatial_first"),
    "maagn-sum": Config(combine="parallel_sum"),
    "maagn-k400": Config(num_classes=400, frames=32, backbone_temporal="slowonly"),
    "tpn": Config(spatial="none", temporal="none"),
    "tpn-sdm": Config(temporal="none"),
    "tpn-mtam": Config(spatial="none"),
    "tpn-official": Config(spatial="none", temporal="none", neck="tpn_official", aux_head=True),
}

TINY = Config(num_classes=8, size=48, width=8, depth_divisor=6, neck_width=32, neck_groups=8, iso_group_width=8)
