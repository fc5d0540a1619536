"""VGG-16's tensors in MAST and STIDF, against torchvision's own layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import vgg

from retable import registry
from retable.nn.pretrained import OtherArchitecture

WIDTH = 4
LAYERS: list[Any] = [c if c == "M" else c * WIDTH // 64 for c in vgg.cfgs["D"]]


@pytest.fixture(scope="module")
def network() -> Any:
    """torchvision's VGG-16, every layer narrow, for images of 32 pixels."""
    torch.manual_seed(1)
    net = vgg.VGG(vgg.make_layers(LAYERS), num_classes=3, init_weights=False)
    net.classifier = nn.Sequential(
        nn.Linear(8 * WIDTH, 24), nn.ReLU(), nn.Dropout(), nn.Linear(24, 24), nn.ReLU(), nn.Dropout(), nn.Linear(24, 3)
    )
    return net.eval()


@pytest.fixture
def stidf(network: Any) -> Any:
    file = registry.load("stidf")
    model: Any = file.build(file.config_class(num_classes=3, frames=2, size=32, width=WIDTH, fc6_width=24, hidden=8))
    model.load_state_dict(model.pretrained(dict(network.state_dict())), strict=False)
    return model.eval()


def to_conv5_3(network: Any) -> Any:
    return network.features[:30]


def test_stidfs_spatial_trunk_computes_vggs_last_map(stidf: Any, network: Any) -> None:
    frames = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(stidf.spatial(frames), to_conv5_3(network)(frames))


def test_stidfs_temporal_trunk_is_vggs_behind_its_own_first_convolution(stidf: Any, network: Any) -> None:
    flow = torch.rand(2, 8, 32, 32)
    with torch.no_grad():
        first = stidf.temporal[0](flow)
        torch.testing.assert_close(stidf.temporal(flow), to_conv5_3(network)[1:](first))
    assert stidf.temporal[0].weight.shape == (WIDTH, 8, 3, 3)


def test_stidfs_fc6_is_vggs_first_linear_layer(stidf: Any, network: Any) -> None:
    assert torch.equal(stidf.fc6.weight, network.classifier[0].weight)


def test_masts_vgg_computes_vggs_last_map(network: Any) -> None:
    file = registry.load("mast")
    settings = file.config_class(num_classes=3, frames=3, size=32, backbone="vgg16", width=WIDTH, head_width=16)
    model: Any = file.build(settings)
    model.load_state_dict(model.pretrained(dict(network.state_dict())), strict=False)
    frames = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        mine = model.eval().trunk.conv5(model.trunk.conv4(frames))
        torch.testing.assert_close(mine, network.features(frames))


def test_a_vgg_with_batch_norm_is_refused() -> None:
    state: dict[str, Tensor] = vgg.make_layers(LAYERS, batch_norm=True).state_dict()
    model: Any = registry.load("stidf").build(registry.load("stidf").tiny)
    with pytest.raises(OtherArchitecture, match=r"it lacks .* it also has features\."):
        model.pretrained({f"features.{name}": value for name, value in state.items()})
