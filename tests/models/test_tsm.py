"""TSM: the size of a plain ResNet, the shift's directions, and scores that depend on the order of the frames."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet, resnet50, resnet101

from retable import registry
from retable.nn import resnet
from retable.nn.count import macs, on_meta, parameters

tsm: Any = registry.load("tsm").module


def tiny(**knobs: Any) -> Any:
    return tsm.Config(**{**tsm.TINY.model_dump(), **knobs})


def model(config: Any) -> Any:
    torch.manual_seed(0)
    return tsm.Model(config).eval()


def clip(config: Any) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, config.frames, 3, config.size, config.size)


@pytest.mark.parametrize("frames", [8, 16])
def test_the_shift_costs_no_parameters(frames: int) -> None:
    assert parameters(lambda: tsm.Model(tsm.Config(frames=frames))) == 23_864_558


def test_the_shift_costs_no_macs() -> None:
    config = tsm.Config(num_classes=1000)
    assert macs(lambda: tsm.Model(config), tsm.inputs(config)) == 8 * (4_089_184_256)  # ResNet-50 on eight images


@pytest.mark.parametrize(("backbone", "reference"), [("resnet50", resnet50), ("resnet101", resnet101)])
def test_trunk_has_torchvisions_names_and_shapes(backbone: str, reference: Any) -> None:
    ours = on_meta(lambda: tsm.trunk(tsm.Config(backbone=backbone))).state_dict()
    theirs = on_meta(reference).state_dict()
    assert {name: p.shape for name, p in ours.items()} == {
        name: p.shape for name, p in theirs.items() if not name.startswith("fc.")
    }


def test_shift_takes_the_next_then_the_previous_frame_within_the_clip() -> None:
    x = torch.arange(1.0, 7.0).view(6, 1, 1, 1).expand(6, 16, 1, 1)  # two clips of three frames
    y = resnet.shift(x, 3)[..., 0, 0]
    assert y[:, 0].tolist() == y[:, 1].tolist() == [2, 3, 0, 5, 6, 0]
    assert y[:, 2].tolist() == y[:, 3].tolist() == [0, 1, 2, 0, 4, 5]
    assert y[:, 4:].equal(x[:, 4:, 0, 0])


def test_bottlenecks_shift_the_residual_path_only() -> None:
    reference: Any = ResNet(Bottleneck, [1, 1, 1, 1]).eval()
    net = model(tiny(width=64, frames=2))
    net.trunk.load_state_dict({k: v for k, v in reference.state_dict().items() if not k.startswith("fc.")})
    ours, theirs, x = net.trunk.layer1[0], reference.layer1[0], torch.randn(4, 64, 6, 6)
    residual = theirs.bn3(
        theirs.conv3(theirs.bn2(theirs.conv2(theirs.bn1(theirs.conv1(resnet.shift(x, 2))).relu())).relu())
    )
    torch.testing.assert_close(ours(x), (residual + theirs.downsample(x)).relu())


def test_every_bottleneck_shifts() -> None:
    net = on_meta(lambda: tsm.Model(tsm.Config()))
    assert sum(isinstance(m, resnet.ShiftConv) for m in net.modules()) == 3 + 4 + 6 + 3


def test_logits_depend_on_the_order_of_the_frames() -> None:
    net, x = model(tsm.TINY), clip(tsm.TINY)
    assert not torch.allclose(net(x)["logits"], net(x.flip(1))["logits"])


def test_segment_logits_average_to_the_logits() -> None:
    outputs = model(tsm.TINY)(clip(tsm.TINY))
    segments = outputs["maps"]["segment_logits"]
    assert segments.shape == (2, 4, 4)
    torch.testing.assert_close(segments.mean(1), outputs["logits"])


@pytest.mark.parametrize(("width", "size", "frames"), [(8, 32, 1), (16, 33, 3), (8, 64, 5)])
def test_small_and_odd_sizes_run(width: int, size: int, frames: int) -> None:
    config = tiny(width=width, size=size, frames=frames)
    assert model(config)(clip(config))["logits"].shape == (2, 4)


def test_a_clip_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="the clip has 3 frames, the model was built for 4"):
        model(tsm.TINY)(torch.randn(1, 3, 3, 48, 48))


@pytest.mark.parametrize(("knobs", "message"), [({"width": 12}, "multiple of 8"), ({"bakbone": "x"}, "bakbone")])
def test_impossible_configs_are_refused(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        tsm.Config(**knobs)


def test_tiny_exports_and_the_exported_program_agrees() -> None:
    net, x = model(tsm.TINY), clip(tsm.TINY)
    program = torch.export.export(net, (), {"rgb": x})
    torch.testing.assert_close(program.module()(rgb=x)["logits"], net(x)["logits"])


def test_dropout_acts_while_training_only() -> None:
    net, x = model(tsm.TINY), clip(tsm.TINY)
    assert net(x)["logits"].equal(net(x)["logits"])
    for norm in (m for m in net.train().modules() if isinstance(m, nn.BatchNorm2d)):
        norm.eval()
    assert not net(x)["logits"].equal(net(x)["logits"])
