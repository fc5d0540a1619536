"""Initial weights: each of torchvision's tensors reaches its place, and nothing else passes for them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from retable import registry
from retable.weights import WeightsError
from retable.weights.load import load_pretrained
from retable.weights.sources import Source

SMALL = {"num_classes": 3, "size": 64}
Model = dict[str, Any]


def image_network(name: str) -> nn.Module:
    """torchvision's network with weights of its own, batch-norm statistics included, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        net: nn.Module = torchvision.models.get_model(name, weights=None)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


@pytest.fixture(scope="module")
def resnet50() -> nn.Module:
    return image_network("resnet50")


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Tensor]], Path]:
    """Publishes a state dict as the ImageNet weights of every network, in a folder of this test."""
    monkeypatch.setenv("RETABLE_WEIGHTS", str(tmp_path))

    def publish(state: dict[str, Tensor]) -> Path:
        path = tmp_path / "net.pth"
        torch.save(state, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        source = Source("net", path.name, digest[:8], "https://example.org/net.pth")
        monkeypatch.setattr("retable.weights.sources.published", lambda architecture, version: source)
        return path

    return publish


def started(model: Model, *, seed: int = 0) -> nn.Module:
    """The model of a config's ``model`` section, its weights loaded, in evaluation mode."""
    knobs = dict(model)
    file = registry.load(knobs.pop("name"))
    torch.manual_seed(seed)
    net = file.build(file.config_class(**knobs))
    load_pretrained(net, model)
    return net.eval()


@pytest.mark.parametrize(
    ("model", "network"),
    [
        ({"name": "tsn", "frames": 2, "backbone": "resnet50"}, "resnet50"),
        ({"name": "statsn", "frames": 1, "tsn": False, "key_frames": False, "backbone": "resnet18"}, "resnet18"),
    ],
    ids=["tsn", "statsn"],
)
def test_a_resnet_trunk_computes_what_torchvisions_does(published: Any, model: Model, network: str) -> None:
    theirs = image_network(network)
    published(theirs.state_dict())
    ours = started({**model, **SMALL, "weights": "imagenet"})
    frames = torch.rand(2, 3, 64, 64)
    trunk = nn.Sequential(*list(theirs.children())[:-2])
    with torch.no_grad():
        torch.testing.assert_close(ours.trunk(frames), trunk(frames), rtol=1e-5, atol=1e-5)  # type: ignore[operator]


def test_mast_on_a_resnet_computes_torchvisions_last_stage(published: Any, resnet50: nn.Module) -> None:
    published(resnet50.state_dict())
    trunk: Any = started({"name": "mast", "frames": 3, "weights": "imagenet", **SMALL}).trunk
    frames = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = nn.Sequential(*list(resnet50.children())[:-2])(frames)
        torch.testing.assert_close(trunk.conv5(trunk.conv4(frames)), expected, rtol=1e-5, atol=1e-5)


def test_a_random_conv5_keeps_its_random_values(published: Any, resnet50: nn.Module) -> None:
    published(resnet50.state_dict())
    knobs = {"name": "mast", "frames": 3, **SMALL, "conv5_width": 256, "conv5_init": "random"}
    random, filled = (started({**knobs, "weights": w}).state_dict() for w in ("none", "imagenet"))
    assert torch.equal(random["trunk.layer4.0.conv1.weight"], filled["trunk.layer4.0.conv1.weight"])
    assert torch.equal(filled["trunk.layer3.0.conv1.weight"], resnet50.state_dict()["layer3.0.conv1.weight"])


def test_new_layers_start_from_the_same_random_values_with_and_without_weights(
    published: Any, resnet50: nn.Module
) -> None:
    published(resnet50.state_dict())
    knobs = {"name": "tsm", "frames": 2, **SMALL}
    nets, draws = [], []
    for weights in ("none", "imagenet"):
        nets.append(started({**knobs, "weights": weights}).state_dict())
        draws.append(torch.rand(1))
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(nets[0]["classifier.weight"], nets[1]["classifier.weight"])
    assert not torch.equal(nets[0]["trunk.layer4.2.bn3.weight"], nets[1]["trunk.layer4.2.bn3.weight"])


def test_every_tensor_of_a_tsm_trunk_is_torchvisions(published: Any, resnet50: nn.Module) -> None:
    published(resnet50.state_dict())
    ours = started({"name": "tsm", "frames": 2, **SMALL, "weights": "imagenet"}).state_dict()
    theirs = {f"trunk.{k}": v for k, v in resnet50.state_dict().items() if not k.startswith("fc.")}
    assert {k for k in ours if k.startswith("trunk.")} == set(theirs)
    assert all(torch.equal(ours[k], v) for k, v in theirs.items())


def test_slow_only_on_a_static_clip_equals_the_image_network_away_from_the_clips_ends(
    published: Any, resnet50: nn.Module
) -> None:
    from torchvision.models.resnet import Bottleneck

    one_block_each = torchvision.models.ResNet(Bottleneck, [1, 1, 1, 1]).eval()
    kept = {k: v for k, v in resnet50.state_dict().items() if k in one_block_each.state_dict()}
    one_block_each.load_state_dict(kept)
    model: Any = registry.load("maagn").build(
        registry.load("maagn").config_class(frames=6, size=64, depth_divisor=6, backbone_temporal="slowonly")
    )
    model.load_state_dict(model.pretrained(kept), strict=False)
    frame = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        clip = model.eval().trunk(frame.expand(6, 3, 64, 64))
        image = nn.Sequential(*list(one_block_each.children())[:-2])(frame)
    torch.testing.assert_close(clip[2:4], image.expand(2, *image.shape[1:]), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(clip[0], image[0], rtol=1e-2)  # there a kernel reaches beyond the clip


def test_flows_first_convolution_sees_the_mean_of_the_rgb_kernels(published: Any) -> None:
    theirs = image_network("resnet18")
    published(theirs.state_dict())
    knobs = {"name": "statsn", "stream": "flow", "backbone": "resnet18", "tsn": False, "key_frames": False, "frames": 1}
    ours = started({**knobs, **SMALL, "weights": "imagenet"}).state_dict()
    rgb = theirs.state_dict()["conv1.weight"]
    assert ours["trunk.conv1.weight"].shape == (64, 20, 7, 7)
    for channel in (0, 19):
        torch.testing.assert_close(ours["trunk.conv1.weight"][:, channel], rgb.mean(1))
    assert torch.equal(ours["trunk.bn1.running_mean"], theirs.state_dict()["bn1.running_mean"])


def test_files_without_batch_norms_counter_load(published: Any, resnet50: nn.Module) -> None:
    published({k: v for k, v in resnet50.state_dict().items() if not k.endswith("num_batches_tracked")})
    ours = started({"name": "tsn", "frames": 2, **SMALL, "weights": "imagenet"}).state_dict()
    assert torch.equal(ours["trunk.bn1.running_var"], resnet50.state_dict()["bn1.running_var"])


def test_a_deeper_networks_file_is_refused_though_it_has_every_name_and_shape(published: Any) -> None:
    with torch.device("meta"):
        deeper = torchvision.models.resnet101(weights=None).state_dict()
    published({k: torch.zeros(()).expand(v.shape) for k, v in deeper.items()})
    with pytest.raises(WeightsError, match=r"do not fit tsn: it also has layer3\.10\."):
        started({"name": "tsn", "frames": 2, **SMALL, "weights": "imagenet"})


def test_another_networks_file_is_refused(published: Any) -> None:
    published({"features.0.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"it lacks bn1\.bias.* it also has features\.0\.weight"):
        started({"name": "tsn", "frames": 2, **SMALL, "weights": "imagenet"})


def test_tensors_of_another_shape_are_refused(published: Any, resnet50: nn.Module) -> None:
    published({**resnet50.state_dict(), "conv1.weight": torch.zeros(32, 3, 7, 7)})
    with pytest.raises(WeightsError, match=r"trunk\.conv1\.weight is \(32, 3, 7, 7\), but should be \(64, 3, 7, 7\)"):
        started({"name": "tsn", "frames": 2, **SMALL, "weights": "imagenet"})


@pytest.mark.parametrize("damage", ["truncated", "one byte"])
def test_a_damaged_file_is_refused_before_it_is_read(published: Any, damage: str) -> None:
    path = published({"conv1.weight": torch.zeros(64)})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content[: len(content) // 2] if damage == "truncated" else content)
    with pytest.raises(WeightsError, match=r"net\.pth \([\d,]+ bytes\) is damaged or another file: its SHA-256 is"):
        started({"name": "tsn", "frames": 2, **SMALL, "weights": "imagenet"})


def test_a_missing_file_is_named_with_its_place_its_address_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETABLE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError) as error:
        started({"name": "tsn", "frames": 2, **SMALL, "weights": "imagenet"})
    for part in (
        f"no file resnet50-0676ba61.pth in {tmp_path}",
        "retable weights fetch resnet50",
        "https://download.pytorch.org/models/resnet50-0676ba61.pth",
        "RETABLE_WEIGHTS",
    ):
        assert part in str(error.value)


def test_without_weights_no_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETABLE_WEIGHTS", str(tmp_path / "nowhere"))
    assert isinstance(started({"name": "tsn", "frames": 2, "width": 4, **SMALL}), nn.Module)
    load_pretrained(nn.Linear(1, 1), {"name": "msfnet"})
