"""MSF-Net: channels split into levels inside residual 3-D blocks, with frequency-channel and spatiotemporal attention.

Yan et al., CSSE 47(2), 2023, doi 10.32604/csse.2023.040132. Hosts: R3D-18 (its blocks are replaced) and C3D (its
cascaded pairs are). Details that the paper leaves open are chosen so that its published parameter counts come out.
Inside, clips are (B, C, T, H, W); S is the number of channel groups of a multilevel-split layer (MSL).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from retable.nn import InputSpec, Outputs

PAPER = "Yan et al., MSF-Net: A Multilevel Spatiotemporal Feature Fusion Network Combines Attention, CSSE 47(2), 2023"
SEMANTICS = 1

# FcaNet's sixteen 2-D DCT frequencies, strongest first, in a 7 x 7 space (Qin et al. 2021, the list called top16).
FREQ_H = (0, 0, 6, 0, 0, 1, 1, 4, 5, 1, 3, 0, 0, 0, 3, 2)
FREQ_W = (0, 1, 0, 5, 2, 0, 2, 0, 0, 6, 0, 4, 6, 3, 5, 2)

Weights = dict[str, Tensor]
"""Attention weights of one place: channel (B, C), time (B, 1, T), spacetime (B, 1, T, H, W)."""


class Stage(NamedTuple):
    """A stage of the host: its name, its output channels, and the side of its square frames before pooling."""

    name: str
    channels: int
    side: int


class Config(BaseModel):
    """Knobs of MSF-Net and its hosts. ``num_classes``, ``frames`` and ``size`` come from the data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_classes: int = Field(101, ge=2)
    frames: int = Field(8, ge=1)
    size: int = Field(112, ge=16, description="side of the square frame, pixels")
    backbone: Literal["r3d", "c3d"] = "r3d"
    width: int = Field(64, ge=1, description="channels of the first stage")
    msf: bool = Field(True, description="false: the plain host network")
    msl_position: Literal["a", "b", "c", "d"] = Field("b", description="which convolutions become MSL (Table 1)")
    groups: int = Field(4, ge=3, description="S, channel groups of an MSL (Table 2)")
    msl_bias: bool = True
    path_c: bool = Field(True, description="add the output of an MSF block's first layer to its sum")
    attention: Literal["none", "se", "cbam", "nst", "fsam", "fam", "sam"] = Field("none", description="Table 3")
    attention_at: tuple[int, ...] | None = Field(None, description="after which stages; default r3d (2, 4), c3d (3, 5)")
    reduction: int = Field(16, ge=1, description="channels per hidden unit of the channel attention")
    num_freq: Literal[1, 2, 4, 8, 16] = Field(16, description="DCT frequencies of FAM")
    sam_kernel: int = Field(7, ge=1, description="side of the cubic kernel of SAM")
    norm_repeat: Literal[1, 2] | None = Field(None, description="[BN, ReLU] pairs after a full conv; r3d 2, c3d 1")
    conv_bias: bool | None = Field(None, description="bias of the full convs in blocks; r3d false, c3d true")
    fc_hidden: int = Field(4096, ge=1, description="c3d only: units of fc6 and fc7")

    @property
    def stages(self) -> dict[int, Stage]:
        """Stages by the number that ``attention_at`` uses. R3D's strides round a side up, C3D's pools round it down."""
        if self.backbone == "r3d":
            return {i: Stage(f"layer{i}", self.width << i - 1, math.ceil(self.size / 2**i)) for i in (1, 2, 3, 4)}
        return {i: Stage(f"conv{i}", self.width << min(i - 1, 3), self.size >> i - 1) for i in (1, 2, 3, 4, 5)}

    @property
    def places(self) -> tuple[int, ...]:
        """Numbers of the stages that attention follows."""
        if self.attention == "none":
            return ()
        return self.attention_at if self.attention_at is not None else {"r3d": (2, 4), "c3d": (3, 5)}[self.backbone]

    @property
    def repeat(self) -> int:
        return self.norm_repeat or {"r3d": 2, "c3d": 1}[self.backbone]

    @property
    def bias(self) -> bool:
        return self.conv_bias if self.conv_bias is not None else self.backbone == "c3d"

    @model_validator(mode="after")
    def _realisable(self) -> Self:
        if self.backbone == "c3d" and self.msl_position != "b":
            raise ValueError(f"msl_position {self.msl_position} exists for backbone r3d only; c3d has b")
        unknown = [i for i in self.attention_at or () if i not in self.stages]
        if unknown:
            raise ValueError(f"attention_at {unknown} are not stages of {self.backbone}; it has {list(self.stages)}")
        if self.sam_kernel % 2 == 0:
            raise ValueError(f"sam_kernel must be odd to keep the clip's size, but is {self.sam_kernel}")
        if self.attention_at is not None and list(self.attention_at) != sorted(set(self.attention_at)):
            raise ValueError(f"attention_at must increase, but is {list(self.attention_at)}")
        if self.msf and (channels := _unsplittable(self.width, self)):
            made = len(group_widths(channels, self.groups))
            wider = next(w for w in range(self.width + 1, self.width + self.groups + 1) if not _unsplittable(w, self))
            raise ValueError(
                f"groups {self.groups}: {channels} channels split into {made} groups, not {self.groups};"
                f" use fewer groups or a wider net (the next width that works is {wider})"
            )
        for i in self.places if self.attention in ("fsam", "fam") else ():
            name, channels, _ = self.stages[i]
            if channels % self.num_freq:
                fits = math.gcd(channels, 16)
                raise ValueError(
                    f"num_freq {self.num_freq} does not divide the {channels} channels of {name};"
                    f" use num_freq {fits} or less, or a width that is a multiple of {self.num_freq}"
                )
        return self


def group_widths(channels: int, groups: int) -> list[int]:
    """Widths of the channel groups: ``ceil(C / S)`` each until the channels run out, which may be before S groups."""
    width = math.ceil(channels / groups)
    return [min(width, channels - start) for start in range(0, channels, width)]


def branch_widths(channels: int, groups: int) -> list[int]:
    """m_2..m_S: a branch takes its group and the half that the branch before it carried on."""
    widths: list[int] = []
    for group in group_widths(channels, groups)[1:]:
        widths.append(group + (widths[-1] // 2 if widths else 0))
    return widths


def _unsplittable(width: int, config: Config) -> int | None:
    """The channels of the first stage at ``width`` that do not make S groups; None when every stage does."""
    stages = (width << i for i in ((0, 1, 2, 3) if config.backbone == "r3d" else (2, 3)))
    return next((c for c in stages if len(group_widths(c, config.groups)) != config.groups), None)


def norm_relu(channels: int, repeat: int = 1) -> list[nn.Module]:
    return [layer for _ in range(repeat) for layer in (nn.BatchNorm3d(channels), nn.ReLU())]


class MSL(nn.Module):
    """Multilevel-split layer (Section 3.1), C -> C: group 1 passes through; branch i convolves group i with branch
    i-1's second half, and hands half of its own result on, so that later branches see further (2 S - 1 pixels)."""

    def __init__(self, channels: int, groups: int, *, bias: bool) -> None:
        super().__init__()
        self.widths = group_widths(channels, groups)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv3d(m, m, 3, padding=1, bias=bias), *norm_relu(m))
            for m in branch_widths(channels, groups)
        )

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = torch.split(x, self.widths, dim=1)
        out, carry = [first], rest[0][:, :0]
        for i, (group, branch) in enumerate(zip(rest, self.branches, strict=True), start=2):
            y = branch(torch.cat([group, carry], dim=1))
            kept = y.shape[1] if i == len(self.widths) else math.ceil(y.shape[1] / 2)
            out.append(y[:, :kept])
            carry = y[:, kept:]
        return torch.cat(out, dim=1)


class Block(nn.Module):
    """ReLU(second(X) + shortcut(in)), X = first(in); with ``path_c`` X joins the sum (the paper's third path)."""

    def __init__(self, first: nn.Module, second: nn.Module, shortcut: nn.Module, *, path_c: bool) -> None:
        super().__init__()
        self.first, self.second, self.shortcut = first, second, shortcut
        self.path_c = path_c

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        total = self.second(first) + self.shortcut(x)
        return F.relu(total + first if self.path_c else total)


def unit(config: Config, ci: int, co: int, stride: int = 1) -> list[nn.Module]:
    """A full 3 x 3 x 3 convolution and its norms."""
    return [nn.Conv3d(ci, co, 3, stride, padding=1, bias=config.bias), *norm_relu(co, config.repeat)]


def conv_norm(config: Config, ci: int, co: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """A convolution whose last ReLU waits for the block's sum. A 1 x 1 x 1 one has no bias."""
    conv = nn.Conv3d(ci, co, kernel, stride, padding=kernel // 2, bias=config.bias and kernel > 1)
    return [conv, *norm_relu(co, config.repeat - 1), nn.BatchNorm3d(co)]


def plain_block(config: Config, ci: int, co: int, stride: int) -> Block:
    same = stride == 1 and ci == co
    shortcut = nn.Identity() if same else nn.Sequential(*conv_norm(config, ci, co, 1, stride))
    second = conv_norm(config, co, co, 3)
    return Block(nn.Sequential(*unit(config, ci, co, stride)), nn.Sequential(*second), shortcut, path_c=False)


def msf_block(config: Config, ci: int, co: int, stride: int, *, project: bool) -> Block:
    """The three-path block; ``project``: the input needs a 1 x 1 x 1 convolution to join the sum."""
    msl = MSL(co, config.groups, bias=config.msl_bias)
    second: list[nn.Module] = [msl, nn.BatchNorm3d(co)]
    match config.msl_position:
        case "a":
            second = conv_norm(config, co, co, 3)
            change = [nn.Conv3d(ci, co, 1, stride, bias=False), *norm_relu(co)] if project else []
            first = [*change, msl, *norm_relu(co)]
        case "c" if not project:
            first = [MSL(co, config.groups, bias=config.msl_bias), *norm_relu(co)]
        case "d":
            time = nn.Conv3d(ci, co, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=config.bias)
            space = nn.Conv3d(co, co, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=config.bias)
            first = [time, *norm_relu(co), space, *norm_relu(co, config.repeat)]
        case _:
            first = unit(config, ci, co, stride)
    pool = [nn.MaxPool3d(2, ceil_mode=True)] if stride == 2 else []
    join = [*pool, nn.Conv3d(ci, co, 1, bias=False), nn.BatchNorm3d(co)] if project else []
    return Block(nn.Sequential(*first), nn.Sequential(*second), nn.Sequential(*join), path_c=config.path_c)


def bottleneck(channels: int, reduction: int) -> nn.Sequential:
    hidden = max(channels // reduction, 1)
    return nn.Sequential(nn.Linear(channels, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, channels, bias=False))


class SE(nn.Module):
    """Squeeze and excitation: one weight per channel from the clip's mean."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.fc = bottleneck(channels, reduction)

    def describe(self, x: Tensor) -> Tensor:
        """What the channels (B, C) are weighed by."""
        return x.mean((2, 3, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, Weights]:
        weights = torch.sigmoid(self.fc(self.describe(x)))
        return x * weights[:, :, None, None, None], {"channel": weights}


class MaxSE(SE):
    """CBAM's channel half: mean and maximum through the same bottleneck."""

    def forward(self, x: Tensor) -> tuple[Tensor, Weights]:
        weights = torch.sigmoid(self.fc(x.mean((2, 3, 4))) + self.fc(x.amax((2, 3, 4))))
        return x * weights[:, :, None, None, None], {"channel": weights}


def dct_basis(frequency: int, tile: int) -> Tensor:
    """``cos(pi f (p + 1/2) / D) / sqrt(D)``, times sqrt(2) unless f = 0: an orthonormal DCT-II row (D,), float64."""
    position = torch.arange(tile, dtype=torch.float64) + 0.5
    scale = math.sqrt((2 if frequency else 1) / tile)
    return scale * torch.cos(math.pi * frequency * position / tile)


class FAM(SE):
    """Frequency channel attention: SE whose channel groups look at 16 spatial frequencies of the mean over time.

    The tile is D = 7 max(1, side // 7). Average pooling of side x side to D x D is linear, so it is folded into the
    basis: nothing is pooled at run time, and the backward pass stays deterministic on CUDA.
    """

    def __init__(self, channels: int, reduction: int, side: int, num_freq: int) -> None:
        super().__init__(channels, reduction)
        scale = max(1, side // 7)
        pool = F.adaptive_avg_pool1d(torch.eye(side, dtype=torch.float64), 7 * scale)  # (side, D)
        rows = [pool @ dct_basis(f * scale, 7 * scale) for f in FREQ_H[:num_freq]]
        columns = [pool @ dct_basis(f * scale, 7 * scale) for f in FREQ_W[:num_freq]]
        basis = torch.stack([torch.outer(u, v) for u, v in zip(rows, columns, strict=True)])
        self.basis: Tensor
        self.register_buffer("basis", basis.float()[:, None], persistent=False)  # (n, 1, side, side)

    def describe(self, x: Tensor) -> Tensor:
        b, c, _, h, w = x.shape
        n = len(self.basis)
        return (x.mean(2).view(b, n, c // n, h, w) * self.basis).sum((3, 4)).view(b, c)


def max_and_mean(x: Tensor) -> Tensor:
    """Maximum and mean over the channels, (B, 2, T, H, W)."""
    return torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)


class SAM(nn.Module):
    """Spatiotemporal attention: one weight per position from the channels' maximum and mean."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Weights]:
        weights = torch.sigmoid(self.conv(max_and_mean(x)))
        return x * weights, {"spacetime": weights}


class NST(nn.Module):
    """Temporal attention nested in a spatial one. The paper names it without detail; this design is ours."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.time = nn.Conv1d(channels, 1, 3, padding=1, bias=False)
        self.space = nn.Conv3d(2, 1, (1, 7, 7), padding=(0, 3, 3), bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Weights]:
        time = torch.sigmoid(self.time(x.mean((3, 4))))
        x = x * time[..., None, None]
        weights = torch.sigmoid(self.space(max_and_mean(x)))
        return x * weights, {"time": time, "spacetime": weights}


class Chain(nn.Sequential):
    """Attention modules one after another; each sees the clip that the one before it weighed."""

    def forward(self, x: Tensor) -> tuple[Tensor, Weights]:
        seen: Weights = {}
        for module in self:
            x, weights = module(x)
            seen |= weights
        return x, seen


def attention(config: Config, stage: Stage) -> nn.Module:
    """The modules of ``config.attention`` for the stage's output."""
    channels, side = stage.channels, stage.side
    match config.attention:
        case "se":
            parts: list[nn.Module] = [SE(channels, config.reduction)]
        case "cbam":
            parts = [MaxSE(channels, config.reduction), SAM(config.sam_kernel)]
        case "nst":
            parts = [NST(channels)]
        case "sam":
            parts = [SAM(config.sam_kernel)]
        case _:
            fam = FAM(channels, config.reduction, side, config.num_freq)
            parts = [fam] if config.attention == "fam" else [fam, SAM(config.sam_kernel)]
    return Chain(*parts)


def r3d_stages(config: Config) -> dict[str, nn.Module]:
    """Stem without pooling, then four stages of two blocks; each but the first halves the clip in time and space."""
    w = config.width
    stem = [nn.Conv3d(3, w, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False), *norm_relu(w)]
    stages: dict[str, nn.Module] = {"stem": nn.Sequential(*stem)}
    ci = w
    for i, (name, co, _) in config.stages.items():
        blocks = []
        for stride in (1 if i == 1 else 2, 1):
            changes = stride != 1 or ci != co
            blocks.append(
                msf_block(config, ci, co, stride, project=changes)
                if config.msf
                else plain_block(config, ci, co, stride)
            )
            ci = co
        stages[name] = nn.Sequential(*blocks)
    return stages


def c3d_stages(config: Config) -> dict[str, nn.Module]:
    """Two convolutions, then three pairs; an MSF block in a pair's place always projects (the counts need it)."""
    stages: dict[str, nn.Module] = {}
    ci = 3
    for i, (name, co, _) in config.stages.items():
        if i <= 2:
            stages[name] = nn.Sequential(nn.Conv3d(ci, co, 3, padding=1), nn.ReLU())
        elif config.msf:
            stages[name] = msf_block(config, ci, co, 1, project=True)
        else:
            pair = [nn.Conv3d(c, co, 3, padding=1, bias=config.bias) for c in (ci, co)]
            stages[name] = nn.Sequential(pair[0], nn.ReLU(), pair[1], nn.ReLU())
        ci = co
    return stages


def c3d_pools(config: Config) -> tuple[dict[str, nn.Module], int]:
    """The pool after each stage, and the features that reach fc6.

    Pools halve the clip, the first in space only. One that meets a single frame leaves time alone: with the paper's 8
    frames that is the last (16 frames reach it as two), so that fc6 keeps its 8192 inputs.
    """
    pools: dict[str, nn.Module] = {}
    t = config.frames
    for i, (name, _, _) in config.stages.items():
        kernel = (1 if i == 1 else min(t, 2), 2, 2)
        pools[name] = nn.MaxPool3d(kernel, padding=(0, 1, 1) if i == 5 else 0)
        t //= kernel[0]
    last = config.stages[5]
    return pools, last.channels * t * (last.side // 2 + 1) ** 2


def c3d_head(features: int, hidden: int, classes: int) -> nn.Sequential:
    fc6 = [nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*fc6, nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(0.5), nn.Linear(hidden, classes))


class Model(nn.Module):
    """Stages of the host, attention after some of them, C3D's pools, and the head.

    ``maps`` holds every stage's output by its name, after attention and before pooling, and the attention's weights as
    ``<stage>.channel``, ``<stage>.time`` and ``<stage>.spacetime``.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        pools: dict[str, nn.Module] = {}
        if config.backbone == "r3d":
            stages, features = r3d_stages(config), config.stages[4].channels
            self.head = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(features, config.num_classes))
        else:
            stages, (pools, features) = c3d_stages(config), c3d_pools(config)
            self.head = c3d_head(features, config.fc_hidden, config.num_classes)
        self.stages, self.pools = nn.ModuleDict(stages), nn.ModuleDict(pools)
        places = [config.stages[i] for i in config.places]
        self.attention = nn.ModuleDict({stage.name: attention(config, stage) for stage in places})
        self.apply(_initialise)

    def forward(self, rgb: Tensor) -> Outputs:
        """``rgb`` (B, T, 3, H, W) -> logits (B, K) and maps."""
        x, maps = rgb.transpose(1, 2), Weights()
        for name, stage in self.stages.items():
            x = stage(x)
            if name in self.attention:
                x, weights = self.attention[name](x)
                maps |= {f"{name}.{kind}": weight for kind, weight in weights.items()}
            maps[name] = x
            x = self.pools[name](x) if name in self.pools else x
        return {"logits": self.head(x), "maps": maps}


def _initialise(module: nn.Module) -> None:
    """He-normal 3-D convolutions without bias at the start; norms and linear layers keep PyTorch's defaults."""
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def inputs(config: Config) -> dict[str, InputSpec]:
    """One RGB clip."""
    return {"rgb": InputSpec(shape=(config.frames, 3, config.size, config.size))}


CONFIGS = {
    "msfnet": Config(),
    "msfnet-fsam": Config(attention="fsam"),
    "msf-c3d": Config(backbone="c3d"),
    "msf-c3d-fsam": Config(backbone="c3d", attention="fsam"),
    "r3d": Config(msf=False),
    "c3d": Config(backbone="c3d", msf=False),
}

TINY = Config(num_classes=5, size=32, width=8, reduction=4, attention="fsam", fc_hidden=64)
