"""BN-Inception's public conversion from Caffe, against a plain reading of the Caffe model: its names, blue first."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from retable import registry
from retable.nn import InputSpec
from retable.nn.bninception import INCEPTION
from retable.nn.pretrained import OtherArchitecture
from retable.train.model import to_inputs

FILE = registry.load("mast")
KNOBS = {"num_classes": 3, "frames": 3, "size": 64, "backbone": "bninception"}


class Caffe:
    """Computes the network's last map and notes every tensor it reads, made up as it goes."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}
        self.random = torch.Generator().manual_seed(3)

    def _tensor(self, name: str, *shape: int, positive: bool = False) -> Tensor:
        if name not in self.state:
            x = torch.rand(*shape, generator=self.random) - (0.0 if positive else 0.5)
            self.state[name] = x + 0.5 if positive else x * (24 * shape[0] / x.numel()) ** 0.5  # keeps the variance
        return self.state[name]

    def layer(self, x: Tensor, name: str, out: int, kernel: int, stride: int = 1) -> Tensor:
        weight = self._tensor(f"{name}.weight", out, x.shape[1], kernel, kernel)
        x = F.conv2d(x, weight, self._tensor(f"{name}.bias", 1, out)[0], stride, kernel // 2)
        self.state[f"{name}.bias"] = self.state[f"{name}.bias"].flatten()
        mean, bias = (self._tensor(f"{name}_bn.{k}", 1, out)[0] for k in ("running_mean", "bias"))
        var, weight = (
            self._tensor(f"{name}_bn.{kind}", 1, out, positive=True)[0] for kind in ("running_var", "weight")
        )
        return F.relu(F.batch_norm(x, mean, var, weight, bias))

    def block(self, x: Tensor, name: str, channels: Any) -> Tensor:
        one, (r3, c3), (rd, cd), kind, proj = channels
        stride, at = (2 if kind == "pass" else 1), f"inception_{name}_"
        three = self.layer(self.layer(x, f"{at}3x3_reduce", r3, 1), f"{at}3x3", c3, 3, stride)
        double = self.layer(x, f"{at}double_3x3_reduce", rd, 1)
        double = self.layer(self.layer(double, f"{at}double_3x3_1", cd, 3), f"{at}double_3x3_2", cd, 3, stride)
        if kind == "pass":
            return torch.cat([three, double, F.max_pool2d(x, 3, 2, ceil_mode=True)], 1)
        pooled = F.max_pool2d(x, 3, 1, 1) if kind == "max" else F.avg_pool2d(x, 3, 1, 1)
        first = self.layer(x, f"{at}1x1", one, 1)
        return torch.cat([first, three, double, self.layer(pooled, f"{at}pool_proj", proj, 1)], 1)

    def __call__(self, x: Tensor) -> Tensor:
        """Blue, green, red from 0 to 255, less their means: ``(M, 3, H, W)`` -> ``(M, 1024, H / 32, W / 32)``."""
        x = F.max_pool2d(self.layer(x, "conv1_7x7_s2", 64, 7, 2), 3, 2, ceil_mode=True)
        x = self.layer(self.layer(x, "conv2_3x3_reduce", 64, 1), "conv2_3x3", 192, 3)
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        for name, channels in INCEPTION.items():
            x = self.block(x, name, channels)
        return x


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randint(0, 256, (1, 3, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def caffe() -> Caffe:
    return Caffe()


@pytest.fixture(scope="module")
def expected(caffe: Caffe, pixels: Tensor) -> Tensor:
    bgr = pixels[0].flip(-1).float() - torch.tensor([104.0, 117.0, 128.0])
    return caffe(bgr.permute(0, 3, 1, 2))


def filled(state: dict[str, Tensor], **knobs: Any) -> Any:
    torch.manual_seed(0)
    model: Any = FILE.build(FILE.config_class(**KNOBS, **knobs))
    model.load_state_dict(model.pretrained(dict(state)), strict=False)
    return model.eval()


def test_frames_as_training_normalises_them_give_what_the_caffe_model_gives(
    caffe: Caffe, expected: Tensor, pixels: Tensor
) -> None:
    specs: dict[str, InputSpec] = FILE.inputs(FILE.config_class(**KNOBS, weights="imagenet"))
    trunk = filled({**caffe.state, "last_linear.weight": torch.zeros(1), "last_linear.bias": torch.zeros(1)}).trunk
    with torch.no_grad():
        rgb = to_inputs({"rgb": pixels}, specs, torch.device("cpu"))["rgb"]
        torch.testing.assert_close(trunk.conv5(trunk.conv4(rgb[0])), expected, rtol=1e-3, atol=5e-3)
    assert expected.std() > 0.1  # something to compare


def test_every_tensor_of_the_file_has_its_own_place(caffe: Caffe, expected: Tensor) -> None:
    found = FILE.build(FILE.config_class(**KNOBS)).pretrained(dict(caffe.state))  # type: ignore[operator]
    assert len(found) == len(caffe.state) == 69 * 6


def test_batch_norms_vectors_with_a_leading_axis_are_taken(caffe: Caffe, expected: Tensor) -> None:
    assert caffe.state["conv1_7x7_s2_bn.weight"].shape == (1, 64)
    mean = filled(caffe.state).trunk.conv1[1].running_mean
    assert torch.equal(mean, caffe.state["conv1_7x7_s2_bn.running_mean"][0])


def test_a_random_conv5_is_left_out(caffe: Caffe, expected: Tensor) -> None:
    model: Any = FILE.build(FILE.config_class(**KNOBS, conv5_init="random"))
    found = model.pretrained(dict(caffe.state))
    assert {name.split(".")[2] for name in found if ".blocks." in name} == {"3a", "3b", "3c", "4a", "4b", "4c", "4d"}


def test_only_these_weights_change_what_the_network_is_shown() -> None:
    means = [
        FILE.inputs(FILE.config_class(**{**KNOBS, "backbone": backbone}, weights=weights))["rgb"].normalisation.mean[0]
        for backbone, weights in (("bninception", "none"), ("resnet50", "imagenet"), ("bninception", "imagenet"))
    ]
    assert means == [0.485, 0.485, 128 / 255]


def test_a_file_that_lacks_a_branch_is_refused(caffe: Caffe, expected: Tensor) -> None:
    state = {name: x for name, x in caffe.state.items() if not name.startswith("inception_4d_1x1")}
    with pytest.raises(OtherArchitecture, match=r"it lacks inception_4d_1x1\.bias"):
        filled(state)
