"""TSN: the published size, torchvision's weights by name, and average consensus that is blind to frame order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet, resnet50, resnet101

from retable import registry
from retable.nn.count import macs, on_meta, parameters

tsn: Any = registry.load("tsn").module


def tiny(**knobs: Any) -> Any:
    return tsn.Config(**{**tsn.TINY.model_dump(), **knobs})


def model(config: Any) -> Any:
    torch.manual_seed(0)
    return tsn.Model(config).eval()


def clip(config: Any) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, config.frames, 3, config.size, config.size)


@pytest.mark.parametrize(("classes", "count"), [(174, 23_864_558), (400, 24_327_632)])
def test_size_is_resnet50_and_a_linear_layer(classes: int, count: int) -> None:
    assert parameters(lambda: tsn.Model(tsn.Config(num_classes=classes))) == count


def test_macs_are_those_of_eight_images() -> None:
    config = tsn.Config(num_classes=1000)
    one = macs(lambda: tsn.Model(config), tsn.inputs(tsn.Config(num_classes=1000, frames=1)))
    assert one == 4_089_184_256  # torchvision states 4.09 G for its ResNet-50
    assert macs(lambda: tsn.Model(config), tsn.inputs(config)) == 8 * one


@pytest.mark.parametrize(("backbone", "reference"), [("resnet50", resnet50), ("resnet101", resnet101)])
def test_trunk_has_torchvisions_names_and_shapes(backbone: str, reference: Any) -> None:
    ours = on_meta(lambda: tsn.trunk(tsn.Config(backbone=backbone))).state_dict()
    theirs = on_meta(reference).state_dict()
    assert {name: p.shape for name, p in ours.items()} == {
        name: p.shape for name, p in theirs.items() if not name.startswith("fc.")
    }


def test_with_torchvisions_weights_it_is_the_mean_of_torchvisions_scores() -> None:
    reference = ResNet(Bottleneck, [1, 1, 1, 1], num_classes=4).eval()
    net = model(config := tiny(width=64))
    weights = reference.state_dict()
    net.classifier.load_state_dict({"weight": weights.pop("fc.weight"), "bias": weights.pop("fc.bias")})
    net.trunk.load_state_dict(weights)
    x = clip(config)
    expected = torch.stack([reference(x[:, i]) for i in range(config.frames)]).mean(0)
    torch.testing.assert_close(net(x)["logits"], expected)


def test_logits_do_not_depend_on_the_order_of_the_frames() -> None:
    net, x = model(tsn.TINY), clip(tsn.TINY)
    torch.testing.assert_close(net(x)["logits"], net(x.flip(1))["logits"])


def test_segment_logits_average_to_the_logits() -> None:
    outputs = model(tsn.TINY)(clip(tsn.TINY))
    segments = outputs["maps"]["segment_logits"]
    assert segments.shape == (2, 4, 4)
    torch.testing.assert_close(segments.mean(1), outputs["logits"])


@pytest.mark.parametrize(("width", "size", "frames"), [(8, 32, 1), (4, 33, 3), (8, 64, 5)])
def test_small_and_odd_sizes_run(width: int, size: int, frames: int) -> None:
    config = tiny(width=width, size=size, frames=frames)
    assert model(config)(clip(config))["logits"].shape == (2, 4)


def test_unknown_knobs_are_refused() -> None:
    with pytest.raises(ValidationError, match="bakbone"):
        tsn.Config(bakbone="resnet50")


def test_depth_divisor_keeps_the_backbones_apart() -> None:
    assert tiny(depth_divisor=6).blocks == (1, 1, 1, 1)
    assert tiny(depth_divisor=6, backbone="resnet101").blocks == (1, 1, 4, 1)


def test_tiny_exports_and_the_exported_program_agrees() -> None:
    net, x = model(tsn.TINY), clip(tsn.TINY)
    program = torch.export.export(net, (), {"rgb": x})
    torch.testing.assert_close(program.module()(rgb=x)["logits"], net(x)["logits"])


def test_dropout_acts_while_training_only() -> None:
    net, x = model(tsn.TINY), clip(tsn.TINY)
    assert net(x)["logits"].equal(net(x)["logits"])
    for norm in (m for m in net.train().modules() if isinstance(m, nn.BatchNorm2d)):
        norm.eval()
    assert not net(x)["logits"].equal(net(x)["logits"])
