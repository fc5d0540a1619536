"""BN-Inception (Ioffe and Szegedy 2015) as TSN uses it, which torchvision lacks, and its public weights' names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn(
    cin: int, cout: int, kernel: int, stride: int = 1, *, padding: int | None = None, bias: bool = True
) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU; at stride 1 the grid keeps its size unless padding is set."""
    pad = kernel // 2 if padding is None else padding
    return nn.Sequential(
        nn.Conv2d(cin, cout, kernel, stride, pad, bias=bias), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)
    )


Block = tuple[int, tuple[int, int], tuple[int, int], Literal["avg", "max", "pass"], int]
INCEPTION: dict[str, Block] = {
    "3a": (64, (64, 64), (64, 96), "avg", 32),
    "3b": (64, (64, 96), (64, 96), "avg", 64),
    "3c": (0, (128, 160), (64, 96), "pass", 0),
    "4a": (224, (64, 96), (96, 128), "avg", 128),
    "4b": (192, (96, 128), (96, 128), "avg", 128),
    "4c": (160, (128, 160), (128, 160), "avg", 128),
    "4d": (96, (128, 192), (160, 192), "avg", 128),
    "4e": (0, (128, 192), (192, 256), "pass", 0),
    "5a": (352, (192, 320), (160, 224), "avg", 128),
    "5b": (352, (192, 320), (192, 224), "max", 128),
}
"""Channels of BN-Inception's blocks: 1x1; 3x3 reduce, 3x3; double 3x3 reduce, both 3x3; kind of pool, its 1x1."""


class Inception(nn.Module):
    """One block; a "pass" block has neither 1x1 branch nor pool projection and may halve the grid."""

    def __init__(self, cin: int, block: Block, scale: float, stride: int = 1) -> None:
        super().__init__()
        one, r3, c3, rd, cd, proj = (
            int(scale * c) for c in (block[0], *block[1], *block[2], block[4] if block[3] != "pass" else 0)
        )
        self.kind, self.stride = block[3], stride
        self.channels = one + c3 + cd + (proj or cin)
        self.convs = nn.ModuleDict(  # the names that the Caffe model's layers end in
            {
                "3x3_reduce": conv_bn(cin, r3, 1),
                "3x3": conv_bn(r3, c3, 3, stride),
                "double_3x3_reduce": conv_bn(cin, rd, 1),
                "double_3x3_1": conv_bn(rd, cd, 3),
                "double_3x3_2": conv_bn(cd, cd, 3, stride),
            }
        )
        if self.kind != "pass":
            self.convs.update({"1x1": conv_bn(cin, one, 1), "pool_proj": conv_bn(cin, proj, 1)})

    def forward(self, x: Tensor) -> Tensor:
        c = self.convs
        three = c["3x3"](c["3x3_reduce"](x))
        double = c["double_3x3_2"](c["double_3x3_1"](c["double_3x3_reduce"](x)))
        if self.kind == "pass":
            return torch.cat((three, double, pool(x, self.stride)), 1)
        pooled = F.avg_pool2d(x, 3, 1, 1) if self.kind == "avg" else pool(x, 1)
        return torch.cat((c["1x1"](x), three, double, c["pool_proj"](pooled)), 1)


def pool(x: Tensor, stride: int) -> Tensor:
    """3x3 max pooling to ceil(side / stride), as the strided convolutions beside it round.

    Even sides are not padded and odd ones are: Caffe's pools round up, and at 224 pixels they see even sides only.
    """
    if stride == 1:
        return F.max_pool2d(x, 3, 1, 1)
    return F.max_pool2d(x, 3, 2, (x.shape[-2] % 2, x.shape[-1] % 2), ceil_mode=True)


class BNInception(nn.Module):
    """BN-Inception (Ioffe and Szegedy 2015) as TSN uses it. conv4 ends with 4d, conv5 with 5b.

    Its convolutions have biases, which batch normalisation makes redundant, because the public Caffe weights have them.
    """

    def __init__(self, width: int, stem: int, strides: tuple[int, ...]) -> None:
        """``stem``: kernel of the first convolution. ``strides``: 2 or 1 for each of the five halvings of the grid."""
        super().__init__()
        scale = width / 64
        self.strides = strides[1:3]
        self.conv1 = conv_bn(3, width, stem, strides[0])
        self.conv2_reduce = conv_bn(width, width, 1)
        self.conv2 = conv_bn(width, 3 * width, 3)
        self.blocks = nn.ModuleDict()
        cin, channels = 3 * width, {}
        for name, block in INCEPTION.items():
            made = Inception(cin, block, scale, {"3c": strides[3], "4e": strides[4]}.get(name, 1))
            self.blocks[name] = made
            cin = channels[name] = made.channels
        self.channels = (channels["4d"], channels["5b"])

    def conv4(self, x: Tensor) -> Tensor:
        x = pool(self.conv1(x), self.strides[0])
        x = pool(self.conv2(self.conv2_reduce(x)), self.strides[1])
        return self._through(("3a", "3b", "3c", "4a", "4b", "4c", "4d"), x)

    def conv5(self, x: Tensor) -> Tensor:
        return self._through(("4e", "5a", "5b"), x)

    def _through(self, names: Sequence[str], x: Tensor) -> Tensor:
        for name in names:
            x = self.blocks[name](x)
        return x


def caffe_name(name: str) -> str:
    """The Caffe model's name of a parameter of :class:`BNInception`: ``blocks.3a.convs.3x3.1.bias`` -> its
    ``inception_3a_3x3_bn.bias``."""
    *path, part, kind = name.split(".")
    stems = {"conv1": "conv1_7x7_s2", "conv2_reduce": "conv2_3x3_reduce", "conv2": "conv2_3x3"}
    layer = f"inception_{path[1]}_{path[3]}" if path[0] == "blocks" else stems[path[0]]
    return f"{layer}{'_bn' if part == '1' else ''}.{kind}"
