"""STIDF (Ou and Sun, J. Electronic Imaging 28(2) 023009, 2019; our name): RGB and flow fused early, then LSTMs.

Two VGG-16 trunks see T frames and the flow around each. Their channels are interleaved and fused by one 3D convolution;
a recurrent stream over the fused maps and one over their fc6 features meet in a third recurrence over the frames.

Shapes: B clips, T frames, L flow fields per frame, C trunk channels, g x g grid, H hidden units, K classes.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor, nn

from retable.nn import InputSpec, Normalisation, Outputs
from retable.nn.pretrained import take

PAPER = "Ou, Sun, Spatiotemporal information deep fusion network with frame attention, J. Electron. Imaging 28(2), 2019"
SEMANTICS = 1

FLOW = Normalisation(mean=(128 / 255,), std=(128 / 255,))
"""Flow stored as bytes v becomes (v - 128) / 128, so that no motion is 0."""
HEAT_MAPS = {"conv1_1": 1, "conv3_2": 13, "conv4_2": 20}
"""Convolutions of the spatial trunk in Fig. 7 (the 1st, 6th and 9th) -> index of the ReLU after them."""
HEAT_CHANNELS = 6


class Config(BaseModel):
    """The paper's knobs, and sizes that fit a laptop (width, pools, fc6_width).

    Raises (as a validation error): an unknown knob, or values that contradict each other; the message says what to set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_classes: int = Field(101, ge=2)
    frames: int = Field(17, ge=1, description="T")
    size: int = Field(224, ge=8, description="side of the square inputs, pixels")
    weights: str = Field("none", description="none, imagenet, imagenet-v2, a path, or a URL with #sha256=")
    flow_length: int = Field(4, ge=1, description="L, flow fields centred on each frame")
    flow_channels: Literal[2, 3] = Field(2, description="channels per field: x and y, or a rendered image")
    fusion: Literal["conv3d", "conv2d", "sum"] = Field("conv3d", description="conv2d: 1x3x3; sum: of the two streams")
    head: Literal["linear", "direct"] = Field("linear", description="direct: the last hidden state are the logits")
    hidden: int = Field(101, ge=2, description="units of every LSTM, H")
    fc6_dropout: float = Field(0.5, ge=0, lt=1)
    lstm_dropout: float = Field(0.25, ge=0, lt=1, description="on the LSTMs' outputs, outside the recurrence")
    width: int = Field(64, ge=1, description="width of the trunks' first convolution; all others scale with it")
    pools: tuple[int, ...] = Field((1, 2, 3, 4), description="which of the trunks' first four poolings act")
    fc6_width: int = Field(4096, ge=1)

    @field_validator("pools")
    @classmethod
    def _pools_exist(cls, pools: tuple[int, ...]) -> tuple[int, ...]:
        if list(pools) != sorted(set(pools) & {1, 2, 3, 4}):
            raise ValueError(f"pools {list(pools)} must be increasing numbers from 1 to 4")
        return pools

    @model_validator(mode="after")
    def _hidden_state_can_be_logits(self) -> Self:
        if self.head == "direct" and self.hidden != self.num_classes:
            raise ValueError(
                f"head direct takes {self.hidden} hidden units for {self.num_classes} logits:"
                f" set hidden to {self.num_classes}, or head to linear"
            )
        return self

    @model_validator(mode="after")
    def _grid_is_left(self) -> Self:
        if self.grid < 2:
            raise ValueError(
                f"size {self.size} leaves a grid of {self.grid} after {len(self.pools)} pools, and pool5 halves it:"
                f" set at least {2 ** (len(self.pools) + 1)}, or fewer pools"
            )
        return self

    @property
    def grid(self) -> int:
        """Side of the fused maps, g."""
        return self.size >> len(self.pools)


def architecture(config: Config) -> str:
    """The image network whose published weights fit the trunks and fc6.

    Raises:
        ValueError: the config shrinks them.
    """
    if (config.width, config.grid // 2, config.fc6_width) != (64, 7, 4096):
        raise ValueError(
            f"published weights are of VGG-16 at 224 pixels: set width 64, size 224 and fc6_width 4096 (not"
            f" {config.width}, {config.size} and {config.fc6_width}) with all pools, or weights none"
        )
    return "vgg16"


def vgg(cin: int, config: Config) -> nn.Sequential:
    """VGG-16 to conv5_3's ReLU. Indices are torchvision's ``features``: a pool that does not act is an identity."""
    layers: list[nn.Module] = []
    for stage, (convs, factor) in enumerate(((2, 1), (2, 2), (3, 4), (3, 8), (3, 8)), start=1):
        for _ in range(convs):
            layers += [nn.Conv2d(cin, factor * config.width, 3, padding=1), nn.ReLU(inplace=True)]
            cin = factor * config.width
        if stage < 5:
            layers.append(nn.MaxPool2d(2) if stage in config.pools else nn.Identity())
    return nn.Sequential(*layers)


def interleave(spatial: Tensor, temporal: Tensor) -> Tensor:
    """(N, C, ...) and (N, C, ...) -> (N, 2C, ...): channel 2d is temporal's d, 2d + 1 spatial's d (equation 1)."""
    return torch.stack((temporal, spatial), 2).flatten(1, 2)


class Fusion(nn.Module):
    """Both streams' last maps -> one map per frame (equation 2, 3 x 3 x 3 over time and grid), ReLU."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = 8 * config.width
        depth = 3 if config.fusion == "conv3d" else 1
        self.conv = None if config.fusion == "sum" else nn.Conv3d(2 * c, c, (depth, 3, 3), padding=(depth // 2, 1, 1))

    def forward(self, spatial: Tensor, temporal: Tensor, frames: int) -> Tensor:
        """Twice (B T, C, g, g) -> (B, T, C, g, g)."""
        if self.conv is None:
            return torch.unflatten(spatial + temporal, 0, (-1, frames))
        stacked = torch.unflatten(interleave(spatial, temporal), 0, (-1, frames)).transpose(1, 2)
        out: Tensor = self.conv(stacked)
        return F.relu(out).transpose(1, 2)


class LayerNormLSTM(nn.Module):
    """LSTM whose gates, candidate and cell are each layer-normalised over the hidden units of one sample.

    The forget gate has a bias of 1 and the linear maps have none: the semantics of TensorFlow's LayerNormBasicLSTMCell.
    """

    def __init__(self, inputs: int, hidden: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.hidden, self.eps = hidden, eps
        self.w_x = nn.Linear(inputs, 4 * hidden, bias=False)
        self.w_h = nn.Linear(hidden, 4 * hidden, bias=False)
        self.gain = nn.Parameter(torch.ones(4, hidden))  # rows: input, candidate, forget, output
        self.shift = nn.Parameter(torch.zeros(4, hidden))
        self.norm = nn.LayerNorm(hidden, eps)
        nn.init.xavier_uniform_(self.w_x.weight)
        nn.init.orthogonal_(self.w_h.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, inputs) -> (B, T, H), the hidden state after each step, from a zero state."""
        drive = self.w_x(x)
        h = c = drive.new_zeros(x.shape[0], self.hidden)
        states = []
        for t in range(x.shape[1]):
            chunks = (drive[:, t] + self.w_h(h)).unflatten(-1, (4, self.hidden))
            i, j, f, o = (F.layer_norm(chunks, (self.hidden,), eps=self.eps) * self.gain + self.shift).unbind(1)
            c = self.norm(c * torch.sigmoid(f + 1) + torch.sigmoid(i) * torch.tanh(j))
            h = torch.tanh(c) * torch.sigmoid(o)
            states.append(h)
        return torch.stack(states, 1)


def inputs(config: Config) -> dict[str, InputSpec]:
    side = (config.size, config.size)
    return {
        "rgb": InputSpec((config.frames, 3, *side)),
        "flow": InputSpec(
            (config.frames, config.flow_length * config.flow_channels, *side),
            "flow",
            FLOW,
            fields=config.flow_length,
            centred=True,
        ),
    }


class Model(nn.Module):
    """STIDF.

    ``forward`` returns the maps ``h_conv``, ``h_fc``, ``h`` (B, T, H), the hidden states before dropout, and ``fused``
    (B, T, g, g), the fused maps' mean over channels. With ``full_maps`` also Fig. 7's ``conv1_1``, ``conv3_2`` and
    ``conv4_2`` (B, T, 6, height, width), the first channels after those convolutions of the spatial trunk.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.full_maps = False
        c, hidden, g = 8 * config.width, config.hidden, config.grid
        self.spatial = vgg(3, config)
        self.temporal = vgg(config.flow_length * config.flow_channels, config)
        self.fusion = Fusion(config)
        self.fc6 = nn.Linear(c * (g // 2) ** 2, config.fc6_width)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):  # fan-in, or frames look alike without weights
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.lstm_conv = LayerNormLSTM(c * g * g, hidden)
        self.lstm_fc = LayerNormLSTM(config.fc6_width, hidden)
        self.merge = nn.Linear(2 * hidden, hidden)
        self.lstm = LayerNormLSTM(hidden, hidden)
        self.head = nn.Linear(hidden, config.num_classes) if config.head == "linear" else nn.Identity()
        self.fc6_dropout = nn.Dropout(config.fc6_dropout)
        self.lstm_dropout = nn.Dropout(config.lstm_dropout)

    def forward(self, rgb: Tensor, flow: Tensor) -> Outputs:
        self._check(rgb, flow)
        t = rgb.shape[1]
        heat: dict[str, Tensor] = {}
        spatial = self._spatial(rgb.flatten(0, 1), heat)
        x_conv = self.fusion(spatial, self.temporal(flow.flatten(0, 1)), t)
        pooled = F.max_pool2d(x_conv.flatten(0, 1), 2).flatten(1)
        x_fc = self.fc6_dropout(F.relu(self.fc6(pooled)))
        h_conv = self.lstm_conv(x_conv.flatten(2))
        h_fc = self.lstm_fc(torch.unflatten(x_fc, 0, (-1, t)))
        merged = self.merge(torch.cat((self.lstm_dropout(h_conv), self.lstm_dropout(h_fc)), -1))
        h = self.lstm(merged)
        maps = {"h_conv": h_conv, "h_fc": h_fc, "h": h, "fused": x_conv.detach().mean(2)}
        maps |= {name: torch.unflatten(x, 0, (-1, t)) for name, x in heat.items()}
        return {
            "logits": self.head(self.lstm_dropout(h[:, -1])),
            "maps": {name: x.detach() for name, x in maps.items()},
        }

    def _check(self, rgb: Tensor, flow: Tensor) -> None:
        for name, clip in (("rgb", rgb), ("flow", flow)):
            got, want = (*clip.shape[:2], *clip.shape[3:]), (*rgb.shape[:2], self.config.size, self.config.size)
            if got != want:
                raise ValueError(f"{name} has (B, T, H, W) {got} but the model was built for {want}")

    def _spatial(self, x: Tensor, heat: dict[str, Tensor]) -> Tensor:
        if not self.full_maps:
            return self.spatial(x)  # type: ignore[no-any-return]
        names = {index: name for name, index in HEAT_MAPS.items()}
        for index, layer in enumerate(self.spatial):
            x = layer(x)
            if index in names:
                heat[names[index]] = x[:, :HEAT_CHANNELS]
        return x

    def torchvision_names(self) -> dict[str, str]:
        """Names of the parameters that torchvision's VGG-16 can fill -> its names; flow's first convolution is ours."""
        names = {f"spatial.{name}": f"features.{name}" for name in self.spatial.state_dict()}
        names |= {
            f"temporal.{name}": f"features.{name}" for name in self.temporal.state_dict() if not name.startswith("0.")
        }
        return names | {f"fc6.{kind}": f"classifier.0.{kind}" for kind in ("weight", "bias")}

    def pretrained(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Both trunks' and fc6's tensors from those of torchvision's VGG-16."""
        return take(state, self.torchvision_names(), left_out=("classifier.3.", "classifier.6."))


CONFIGS: dict[str, Config] = {
    "stidf": Config(),
    "stidf-conv2d": Config(fusion="conv2d"),
    "stidf-sum": Config(fusion="sum"),
    "stidf-direct": Config(head="direct"),
}
TINY = Config(
    num_classes=5,
    size=32,
    width=4,
    pools=(1, 2, 3),
    fc6_width=64,
    hidden=16,
    fc6_dropout=0.0,  # at this size dropout keeps the loss at the label prior (fc6 0.5, LSTMs 0.25)
    lstm_dropout=0.0,
)
