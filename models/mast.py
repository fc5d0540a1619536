"""MAST (Zhou, Qiu, Solanki, Multimedia Systems 2021): one frame per segment, spatiotemporal modules at several scales.

An image trunk and two extra convolutions see every frame by itself; after up to three of the stages a module adds what
self-attention over all points of the clip and what the motion between neighbouring frames say. A relation head reasons
over subsets of 2..N-1 frame vectors and weighs the scales.

Shapes: B clips, N frames, C channels, h x w grid, S = N h w points, d frame-vector width, M scales, K classes.
"""

from __future__ import annotations

import math
from typing import Literal, Self, TypeVar

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor, nn

from retable.nn import IMAGENET, InputSpec, Normalisation, Outputs, resnet
from retable.nn.bninception import BNInception, caffe_name, conv_bn
from retable.nn.pretrained import take

PAPER = "Zhou, Qiu, Solanki, Improved SSD using deep multi-scale attention features, Multimedia Systems 2021"
SEMANTICS = 1

T = TypeVar("T")
Position = Literal["conv4", "conv5", "conv6"]
POSITIONS: tuple[Position, ...] = ("conv4", "conv5", "conv6")
SQUEEZE = 16
"""Channel reduction of the temporal branch (section 3.2)."""
ATTEND = 64
"""Hidden width of the two linear layers behind a scale's weight; the paper gives none."""
CAFFE = Normalisation(mean=(128 / 255, 117 / 255, 104 / 255), std=(1 / 255,) * 3)
"""What BN-Inception's public weights were trained on: pixels from 0 to 255 less a mean, here in the order R, G, B."""


class Config(BaseModel):
    """The paper's knobs, those it leaves open, and sizes that fit a laptop (width, head_width, stem, blocks, halvings).

    Raises (as a validation error): an unknown knob, or values that contradict each other; the message says what to set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_classes: int = Field(101, ge=2)
    frames: int = Field(8, ge=2, description="N, one frame from each of N equal segments")
    size: int = Field(224, ge=8, description="side of the square input, pixels")
    backbone: Literal["resnet50", "vgg16", "bninception"] = "resnet50"
    weights: str = Field("none", description="none, imagenet, imagenet-v2, a path, or a URL with #sha256=")
    positions: tuple[Position, ...] = Field(POSITIONS, description="stages that a module follows; [] for none")
    modules: Literal["attention", "temporal", "both"] = "both"
    depthwise_motion: bool = Field(False, description="one 3x3 filter per channel in the temporal branch, as in STM")
    scales: tuple[int, ...] | None = Field(None, description="frames per relation; default 2..N-1 (equation 8)")
    k: int = Field(3, ge=1, description="relations per scale; all of them where a scale has fewer")
    alpha: float = Field(1e-4, ge=0, description="weight of the L1 penalty on the scales' weights (equation 10)")
    conv5_width: int | None = Field(None, ge=1, description="resnet50: width of conv5's 3x3; Table 2 prints 256")
    conv5_init: Literal["pretrained", "random"] = Field("pretrained", description="conv5, where weights are loaded")
    width: int = Field(64, ge=2, description="width of the trunk's first convolution; all others scale with it")
    head_width: int = Field(256, ge=SQUEEZE, description="width of conv6, conv7 and the relations, d")
    stem: Literal[3, 7] = Field(7, description="resnet50, bninception: kernel of the first convolution")
    blocks: tuple[int, int, int, int] = Field((3, 4, 6, 3), description="resnet50: blocks per stage")
    halvings: tuple[int, ...] = Field((1, 2, 3, 4, 5), description="which of the trunk's five halvings of the grid act")

    @field_validator("positions")
    @classmethod
    def _in_order(cls, positions: tuple[Position, ...]) -> tuple[Position, ...]:
        if len(set(positions)) < len(positions):
            raise ValueError(f"positions {list(positions)} names a stage twice: name each at most once")
        return tuple(p for p in POSITIONS if p in positions)

    @field_validator("halvings")
    @classmethod
    def _halvings_exist(cls, halvings: tuple[int, ...]) -> tuple[int, ...]:
        if list(halvings) != sorted(set(halvings) & {1, 2, 3, 4, 5}):
            raise ValueError(f"halvings {list(halvings)} must be increasing numbers from 1 to 5")
        return halvings

    @field_validator("blocks")
    @classmethod
    def _stages_have_blocks(cls, blocks: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        if min(blocks) < 1:
            raise ValueError(f"blocks {list(blocks)} leaves a stage empty: give every stage at least 1")
        return blocks

    @model_validator(mode="after")
    def _relations_exist(self) -> Self:
        if self.scales is None and self.frames < 3:
            raise ValueError(
                f"frames {self.frames} has no relation of 2..{self.frames - 1} frames:"
                " take at least 3 frames, or set scales to [2]"
            )
        wrong = [m for m in self.relation_scales if not 2 <= m <= self.frames]
        if wrong or not self.relation_scales or list(self.relation_scales) != sorted(set(self.relation_scales)):
            raise ValueError(
                f"scales {list(self.relation_scales)} must be increasing numbers from 2 to frames = {self.frames}"
            )
        return self

    @model_validator(mode="after")
    def _trunk_exists(self) -> Self:
        if self.size < 2 ** len(self.halvings):
            raise ValueError(
                f"size {self.size} vanishes in {len(self.halvings)} halvings:"
                f" set at least {2 ** len(self.halvings)}, or fewer halvings"
            )
        if self.backbone == "bninception" and self.width % 2:
            raise ValueError(f"width {self.width} splits bninception's channels: set an even width")
        if self.conv5_width is not None and self.backbone != "resnet50":
            raise ValueError(f"conv5_width {self.conv5_width} is resnet50's: leave it out with {self.backbone}")
        if self.conv5_width is not None and self.conv5_init == "pretrained":
            raise ValueError(f"no pretrained conv5 is {self.conv5_width} wide: set conv5_init to random")
        return self

    @property
    def relation_scales(self) -> tuple[int, ...]:
        return tuple(range(2, self.frames)) if self.scales is None else self.scales

    def stride(self, halving: int) -> int:
        """Stride of the trunk's ``halving``-th step: 2 where it acts, else 1."""
        return 2 if halving in self.halvings else 1


# Trunks: ``conv4`` takes images (B N, 3, H, W), ``conv5`` what conv4 gave; ``channels`` are those of the two outputs.


class ResNet(nn.Module):
    """ResNet-50 to its last stage; parameters are named as torchvision's."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        w = config.width
        self.channels = (16 * w, 32 * w)
        self.conv1 = nn.Conv2d(3, w, config.stem, config.stride(1), config.stem // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(w)
        self.pool = nn.MaxPool2d(3, 2, 1) if config.stride(2) == 2 else nn.Identity()
        b = config.blocks
        self.layer1 = _stage(w, w, b[0], 1)
        self.layer2 = _stage(4 * w, 2 * w, b[1], config.stride(3))
        self.layer3 = _stage(8 * w, 4 * w, b[2], config.stride(4))
        self.layer4 = _stage(16 * w, 8 * w, b[3], config.stride(5), config.conv5_width)

    def conv4(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        out: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return out

    def conv5(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer4(x)
        return out


def _stage(cin: int, planes: int, blocks: int, stride: int, inner: int | None = None) -> nn.Sequential:
    stage = resnet.stage(cin, planes, blocks, stride)
    if inner is not None:
        for i, block in enumerate(stage):
            block.conv2 = nn.Conv2d(planes, inner, 3, stride if i == 0 else 1, 1, bias=False)
            block.bn2 = nn.BatchNorm2d(inner)
            block.conv3 = nn.Conv2d(inner, 4 * planes, 1, bias=False)
    return stage


class Vgg(nn.Module):
    """VGG-16's convolutions, named as torchvision's. conv4 ends with the fourth pool, conv5 with the fifth."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        cin = 3
        for stage, (convs, factor) in enumerate(((2, 1), (2, 2), (3, 4), (3, 8), (3, 8)), start=1):
            for _ in range(convs):
                layers += [nn.Conv2d(cin, factor * config.width, 3, padding=1), nn.ReLU(inplace=True)]
                cin = factor * config.width
            layers.append(nn.MaxPool2d(2) if config.stride(stage) == 2 else nn.Identity())
            if stage == 4:
                self.split = len(layers)
        self.channels = (cin, cin)
        self.features = nn.Sequential(*layers)

    def conv4(self, x: Tensor) -> Tensor:
        for layer in self.features[: self.split]:
            x = layer(x)
        return x

    def conv5(self, x: Tensor) -> Tensor:
        for layer in self.features[self.split :]:
            x = layer(x)
        return x


def _trunk(config: Config) -> ResNet | Vgg | BNInception:
    match config.backbone:
        case "resnet50":
            return ResNet(config)
        case "vgg16":
            return Vgg(config)
        case "bninception":
            return BNInception(config.width, config.stem, tuple(config.stride(i) for i in range(1, 6)))


class Extra(nn.Module):
    """An unpadded 3x3 convolution on grids of at least ``least`` a side; on smaller ones it pads by one."""

    def __init__(self, cin: int, cout: int, stride: int, least: int) -> None:
        super().__init__()
        self.least = least
        self.conv = conv_bn(cin, cout, 3, stride, padding=0, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[-2:]) < self.least:
            x = F.pad(x, (1, 1, 1, 1))
        out: Tensor = self.conv(x)
        return out


class SelfAttention(nn.Module):
    """Embedded-Gaussian attention over all points of a clip (equations 1-3), without its own residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta = nn.Linear(channels, channels // 2)
        self.phi = nn.Linear(channels, channels // 2)
        self.g = nn.Linear(channels, channels // 2)
        self.out = nn.Linear(channels // 2, channels)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C, h, w) -> the same shape, T_att."""
        _, n, _, h, w = x.shape
        points = _points(x)
        q, k, v = (f(points).unsqueeze(1) for f in (self.theta, self.phi, self.g))
        y = F.scaled_dot_product_attention(q, k, v, scale=1.0).squeeze(1)
        z = self.out(y).unflatten(1, (n, h, w)).permute(0, 1, 4, 2, 3)
        return self.bn(z.flatten(0, 1)).unflatten(0, (-1, n))  # type: ignore[no-any-return]

    def received(self, x: Tensor) -> Tensor:
        """(B, N, C, h, w) -> (B, N, h, w): attention that a point gets, averaged over all points that look.

        Forms the S x S matrix, which ``forward`` avoids.
        """
        points = _points(x)
        scores = self.theta(points) @ self.phi(points).transpose(1, 2)
        return torch.unflatten(scores.softmax(-1).mean(1), 1, (x.shape[1], *x.shape[3:]))


def _points(x: Tensor) -> Tensor:
    return x.permute(0, 1, 3, 4, 2).flatten(1, 3)  # (B, S, C)


class Motion(nn.Module):
    """Each frame's reduced features, taken from the convolved ones of the next frame (equation 4)."""

    def __init__(self, channels: int, *, depthwise: bool) -> None:
        super().__init__()
        r = channels // SQUEEZE
        self.reduce = nn.Sequential(nn.Conv2d(channels, r, 1, bias=False), nn.BatchNorm2d(r))
        self.conv = nn.Conv2d(r, r, 3, padding=1, groups=r if depthwise else 1, bias=False)
        self.restore = nn.Conv2d(r, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, C, h, w) -> T' of the same shape, and the motion (B, N, C / 16, h, w) that it restores."""
        n = x.shape[1]
        q = self.reduce(x.flatten(0, 1)).unflatten(0, (-1, n))
        ahead = self.conv(q[:, 1:].flatten(0, 1)).unflatten(0, (-1, n - 1))
        motion = torch.cat((ahead - q[:, :-1], torch.zeros_like(q[:, :1])), 1)
        return self.bn(self.restore(motion.flatten(0, 1))).unflatten(0, (-1, n)), motion


class SpatioTemporal(nn.Module):
    """T + T' + T_att (equation 5), or one of the two terms; the identity at initialisation."""

    def __init__(self, channels: int, config: Config) -> None:
        super().__init__()
        self.attention = SelfAttention(channels) if config.modules != "temporal" else None
        self.motion = Motion(channels, depthwise=config.depthwise_motion) if config.modules != "attention" else None
        for branch in (self.attention, self.motion):
            if branch is not None:
                nn.init.zeros_(branch.bn.weight)

    def forward(self, x: Tensor, *, full_maps: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """(B, N, C, h, w) -> the same shape, and maps (B, N, h, w)."""
        out, maps = x, {}
        if self.motion is not None:
            term, motion = self.motion(x)
            out = out + term
            maps["motion"] = motion.detach().abs().mean(2)
        if self.attention is not None:
            out = out + self.attention(x)
            if full_maps:
                maps["attention"] = self.attention.received(x).detach()
        return out, maps


def _subset(rank: int, n: int, m: int) -> list[int]:
    """The ``rank``-th of the increasing m-tuples from 0..n-1 in lexicographic order."""
    chosen: list[int] = []
    for i in range(n):
        left = m - len(chosen)
        starting_here = math.comb(n - i - 1, left - 1) if left else 0
        if rank < starting_here:
            chosen.append(i)
        else:
            rank -= starting_here
    return chosen


def fixed_subsets(n: int, m: int, k: int) -> Tensor:
    """The middles of k equal parts of the list of m-subsets of n frames: (min(k, all), m) int64 on the CPU."""
    count = math.comb(n, m)
    k = min(k, count)
    return torch.tensor([_subset((2 * i + 1) * count // (2 * k), n, m) for i in range(k)], device="cpu")


@torch.compiler.disable  # type: ignore[untyped-decorator]
def random_subsets(n: int, m: int, k: int) -> Tensor:
    """Distinct m-subsets of n frames, every choice of k equally likely, from torch's global CPU generator."""
    count = math.comb(n, m)
    ranks: set[int] = set(range(count)) if k >= count else set()
    while len(ranks) < min(k, count):
        ranks.add(int(torch.randint(count, (), device="cpu")))
    return torch.tensor([_subset(rank, n, m) for rank in sorted(ranks)], device="cpu")


class RelationHead(nn.Module):
    """Sums g over k subsets of m frames, classifies the sum by f, and weighs the scales m (equations 6-9)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        d = config.head_width
        self.n, self.k, self.scales = config.frames, config.k, config.relation_scales
        self.g = nn.ModuleList(
            nn.Sequential(nn.Linear(m * d, d), nn.ReLU(inplace=True), nn.Linear(d, d), nn.ReLU(inplace=True))
            for m in self.scales
        )
        self.f = nn.ModuleList(nn.Linear(d, config.num_classes) for _ in self.scales)
        self.attend = nn.Sequential(nn.Linear(config.num_classes, ATTEND), nn.ReLU(inplace=True), nn.Linear(ATTEND, 1))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, d) -> R (B, M, K) and lambda (B, M) in (0, 1). Subsets: fresh in training, fixed in evaluation."""
        draw = random_subsets if self.training else fixed_subsets
        relations = []
        for m, g, f in zip(self.scales, self.g, self.f, strict=True):
            subsets = draw(self.n, m, self.k).to(frames.device)
            relations.append(f(g(frames[:, subsets].flatten(2)).sum(1)))
        stacked = torch.stack(relations, 1)
        return stacked, torch.sigmoid(self.attend(stacked)).squeeze(-1)


def inputs(config: Config) -> dict[str, InputSpec]:
    caffe = config.backbone == "bninception" and config.weights != "none"
    return {"rgb": InputSpec((config.frames, 3, config.size, config.size), "rgb", CAFFE if caffe else IMAGENET)}


def architecture(config: Config) -> str:
    """The image network whose published weights fit the trunk.

    Raises:
        ValueError: the config shrinks the trunk.
    """
    whole = config.width == 64 and (config.backbone == "vgg16" or config.stem == 7)
    if not whole or (config.backbone == "resnet50" and config.blocks != (3, 4, 6, 3)):
        raise ValueError(
            f"published weights are of a whole {config.backbone}: set width 64, stem 7 and blocks [3, 4, 6, 3] (not"
            f" {config.width}, {config.stem} and {list(config.blocks)}), or weights none"
        )
    return config.backbone


class Model(nn.Module):
    """MAST.

    ``forward`` returns the loss ``relation_l1`` (already times alpha) and the maps ``frames`` (B, N, d), ``relations``
    (B, M, K), ``lambda`` (B, M), per position ``conv4.motion`` (B, N, h, w), the mean magnitude of the reduced motion,
    and with ``full_maps`` also ``conv4.attention`` (B, N, h, w), what each point receives. It watches ``lambda.<m>``,
    the mean weight of scale m.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.full_maps = False
        self.trunk = _trunk(config)
        c4, c5 = self.trunk.channels
        d = config.head_width
        self.conv6 = Extra(c5, d, stride=2, least=7)
        self.conv7 = Extra(d, d, stride=1, least=3)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        channels = {"conv4": c4, "conv5": c5, "conv6": d}
        self.st = nn.ModuleDict({p: SpatioTemporal(channels[p], config) for p in config.positions})
        self.head = RelationHead(config)

    def forward(self, rgb: Tensor) -> Outputs:
        if rgb.shape[1] != self.config.frames:
            raise ValueError(f"the relations need {self.config.frames} frames, but the clips have {rgb.shape[1]}")
        maps: dict[str, Tensor] = {}
        x = self._module("conv4", self.trunk.conv4(rgb.flatten(0, 1)), maps)
        x = self._module("conv5", self.trunk.conv5(x), maps)
        x = self._module("conv6", self.conv6(x), maps)
        frames = self.conv7(x).mean((2, 3)).unflatten(0, (-1, self.config.frames))
        relations, lam = self.head(frames)
        maps |= {"frames": frames.detach(), "relations": relations.detach(), "lambda": lam.detach()}
        return {
            "logits": (lam.unsqueeze(-1) * relations).sum(1),
            "losses": {"relation_l1": self.config.alpha * lam.abs().sum(1).mean()},
            "maps": maps,
            "watched": {f"lambda.{m}": mean for m, mean in zip(self.head.scales, lam.detach().mean(0), strict=True)},
        }

    def _module(self, position: Position, x: Tensor, maps: dict[str, Tensor]) -> Tensor:
        if position not in self.st:
            return x
        out, found = self.st[position](torch.unflatten(x, 0, (-1, self.config.frames)), full_maps=self.full_maps)
        maps |= {f"{position}.{name}": value for name, value in found.items()}
        return out.flatten(0, 1)  # type: ignore[no-any-return]

    def torchvision_names(self) -> dict[str, str]:
        """Names of the parameters and buffers that torchvision's image model can fill -> its names for them."""
        if self.config.backbone == "bninception":
            return {}
        return self._to_fill({f"trunk.{name}": name for name in self.trunk.state_dict()})

    def pretrained(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The trunk's tensors from those of torchvision's image model, or of BN-Inception's public Caffe conversion.

        The latter expects blue first, and some of its files give batch norm's vectors a leading axis of 1.
        """
        caffe = self.config.backbone == "bninception"
        names = {f"trunk.{name}": caffe_name(name) if caffe else name for name in self.trunk.state_dict()}
        found = take(state, names, left_out=("fc.", "last_linear.", "classifier."))
        if caffe:
            found = {name: x.squeeze(0) if "_bn." in names[name] and x.dim() == 2 else x for name, x in found.items()}
            found["trunk.conv1.0.weight"] = found["trunk.conv1.0.weight"].flip(1)
        return self._to_fill(found)

    def _to_fill(self, named: dict[str, T]) -> dict[str, T]:
        """Without what is in conv5, if that starts from random values."""
        if self.config.conv5_init == "pretrained":
            return named
        return {name: value for name, value in named.items() if not _in_conv5(name)}


def _in_conv5(name: str) -> bool:
    _, stage, rest, *_ = name.split(".")
    return (stage, rest) in {("blocks", b) for b in ("4e", "5a", "5b")} or (
        stage == "layer4" or (stage == "features" and int(rest) >= 24)
    )


CONFIGS: dict[str, Config] = {
    "mast": Config(),
    "mast-vgg16": Config(backbone="vgg16"),
    "mast-bninception": Config(backbone="bninception"),
    "mast-conv4": Config(positions=("conv4",)),
    "mast-conv4-conv5": Config(positions=("conv4", "conv5")),
    "mast-conv5-conv6": Config(positions=("conv5", "conv6")),
    "mast-none": Config(positions=()),
    "mast-attention": Config(modules="attention"),
    "mast-temporal": Config(modules="temporal"),
    "mast-conv5-256": Config(conv5_width=256, conv5_init="random"),
}
TINY = Config(num_classes=5, size=48, width=8, head_width=32, stem=3, blocks=(1, 1, 1, 1), halvings=(1, 3, 5))
