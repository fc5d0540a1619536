"""MAAGN against its spec: published sizes, unit facts of SDM, MTAM and AGM, and the compositions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck, ResNet

from retable import registry
from retable.nn import resnet
from retable.nn.count import macs, on_meta, parameters

maagn = registry.load("maagn").module
Config = maagn.Config
PLAIN = {"spatial": "none", "temporal": "none"}
OFFICIAL = {**PLAIN, "neck": "tpn_official"}
KINETICS = {"backbone_temporal": "slowonly", "num_classes": 400}


def tiny(**knobs: Any) -> Any:
    return Config(**{**maagn.TINY.model_dump(), **knobs})


def model(config: Any) -> Any:
    torch.manual_seed(0)
    return maagn.Model(config)


def clip(config: Any, batch: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, config.frames, 3, config.size, config.size)


@pytest.mark.parametrize(
    ("knobs", "count"),
    [
        (PLAIN, 33_621_230),
        ({"temporal": "none"}, 34_604_270),
        ({"spatial": "none"}, 34_866_414),
        ({"spatial": "none", "mtam_masks": "max+avg"}, 33_621_230 + 655_360),
        ({"spatial": "none", "mtam_masks": "max"}, 33_621_230 + 655_360),
        ({"combine": "serial_spatial_first"}, 35_849_454),
        ({"combine": "serial_temporal_first"}, 35_849_454),
        ({"combine": "parallel_sum"}, 35_849_454),
        ({}, 36_190_446),
        ({"frames": 32, "size": 256}, 36_190_446),
        ({"agm_alpha": "scalar"}, 36_190_446 - 3_070),
        ({"levels": ("res4",)}, 33_621_230 + 196_608 + 327_680 + 113_664),
        (OFFICIAL, 63_210_734),
        ({**OFFICIAL, "aux_head": True}, 82_445_724),
        ({**OFFICIAL, "backbone_temporal": "slowonly"}, 71_337_198),
        ({**OFFICIAL, **KINETICS, "aux_head": True}, 91_498_336),
        ({"backbone": "resnet101"}, 55_182_574),
        (KINETICS, 44_779_984),
        ({**KINETICS, "backbone": "resnet101"}, 72_685_008),
        ({**KINETICS, "neck": "tpn_official"}, 74_369_488),
        ({**KINETICS, "neck": "tpn_official", "backbone": "resnet101"}, 102_274_512),
    ],
)
def test_full_size_parameter_counts(knobs: dict[str, Any], count: int) -> None:
    assert parameters(lambda: maagn.Model(Config(**knobs))) == count


@pytest.mark.parametrize(
    ("knobs", "count"),
    [
        ({}, 287_248),
        (PLAIN, 200_592),
        ({"temporal": "none"}, 200_592 + 3_072 + 12_288),
        ({"spatial": "none"}, 200_592 + 8_192 + 20_480),
        ({"neck": "tpn_official"}, 859_152),
        ({"backbone_temporal": "slowonly"}, 307_728),
    ],
)
def test_tiny_parameter_counts(knobs: dict[str, Any], count: int) -> None:
    assert parameters(lambda: maagn.Model(tiny(**knobs))) == count


@pytest.mark.parametrize(
    ("knobs", "count"),
    [({}, 23_508_032), ({"backbone_temporal": "slowonly"}, 31_634_496), ({"backbone": "resnet101"}, 42_500_160)],
)
def test_trunk_parameter_counts(knobs: dict[str, Any], count: int) -> None:
    assert parameters(lambda: maagn.trunk(Config(**knobs))) == count


def normalised_values(config: Any) -> int:
    """Output elements of all batch norms for one clip; the spec's counter adds two operations for each."""
    net, total = on_meta(lambda: maagn.Model(config)), 0

    def add(_module: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += output.numel()

    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.register_forward_hook(add)
    with torch.no_grad():
        net(clip(config, 1).to("meta"))
    return total


@pytest.mark.parametrize(
    ("knobs", "ours", "spec"),
    [
        (PLAIN, 35_170_119_680, 35.349),
        ({"temporal": "none"}, 35_174_051_840, 35.353),
        ({"spatial": "none"}, 35_185_324_032, 35.364),
        ({"combine": "parallel_sum"}, 35_189_256_192, 35.368),
        ({"combine": "serial_spatial_first"}, 35_189_256_192, 35.368),
        ({}, 35_454_185_472, 35.633),
    ],
)
def test_macs_equal_the_spec_once_batch_norm_is_counted_its_way(knobs: dict[str, Any], ours: int, spec: float) -> None:
    config = Config(**knobs)
    counted = macs(lambda: maagn.Model(config), maagn.inputs(config))
    assert counted == ours
    assert (counted + 2 * normalised_values(config)) / 1e9 == pytest.approx(spec, abs=0.0006)


@pytest.mark.parametrize("knobs", [{}, {"frames": 16}, {"frames": 32, "size": 256}, {"frames": 32, **KINETICS}])
def test_full_size_shapes(knobs: dict[str, Any]) -> None:
    config = Config(**knobs)
    net = on_meta(lambda: maagn.Model(config))
    shapes: dict[str, tuple[int, ...]] = {}
    for name in ("neck.spatial4", "neck.spatial5", "neck.temporal4", "neck.fuse_bottom_up", "neck.pyramid"):
        part = net.get_submodule(name)
        part.register_forward_hook(lambda _m, _i, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
    outputs = net(torch.empty(1, config.frames, 3, config.size, config.size, device="meta"))
    t, side = config.frames, config.size // 32
    assert shapes["neck.spatial4"] == shapes["neck.spatial5"] == (512, t, side, side)
    assert shapes["neck.temporal4"] == (512, t, side, side)
    assert shapes["neck.fuse_bottom_up"] == (512, 1, side, side)
    assert shapes["neck.pyramid"] == (2048, 1, side, side)
    assert outputs["logits"].shape == (1, config.num_classes)
    assert outputs["maps"]["res4_sdm_mask"].shape == (1, t, 1024)
    assert outputs["maps"]["res5_mtam_mask"].shape == (1, t, 2048)
    assert outputs["maps"]["res4_gate"].shape == (1, t, 1024, 2 * side, 2 * side)


def test_trunk_takes_torchvisions_weights_by_name_and_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    reference: Any = ResNet(Bottleneck, [1, 1, 1, 1]).eval()
    config = tiny(width=64, frames=1, spatial="none")
    net = model(config).eval()
    missing, unexpected = net.trunk.load_state_dict(reference.state_dict(), strict=False)
    assert missing == []
    assert unexpected == ["fc.weight", "fc.bias"]
    monkeypatch.setattr(resnet.ShiftConv, "forward", nn.Conv2d.forward)  # the shift apart, it is that ResNet
    reference.fc = nn.Identity()
    x = clip(config)
    torch.testing.assert_close(net.trunk(x[:, 0]).mean((2, 3)), reference(x[:, 0]))


def test_slow_only_trunk_has_torchvisions_names_with_time_taps_in_the_last_two_stages() -> None:
    ours = on_meta(lambda: maagn.trunk(Config(backbone_temporal="slowonly"))).state_dict()
    theirs = on_meta(lambda: ResNet(Bottleneck, [3, 4, 6, 3])).state_dict()
    assert list(ours) == [name for name in theirs if not name.startswith("fc.")]
    inflated = {name for name in ours if ours[name].shape != theirs[name].shape}
    expected = {f"layer3.{i}.conv1.weight" for i in range(6)} | {f"layer4.{i}.conv1.weight" for i in range(3)}
    assert inflated == expected
    assert all(ours[name].shape == (*theirs[name].shape[:2], 3, 1, 1) for name in inflated)


def test_shift_takes_the_next_then_the_previous_frame_within_the_clip() -> None:
    x = torch.arange(1.0, 7.0).view(6, 1, 1, 1).expand(6, 16, 1, 1)  # two clips of three frames
    y = resnet.shift(x, 3)[..., 0, 0]
    assert y[:, 0].tolist() == y[:, 1].tolist() == [2, 3, 0, 5, 6, 0]
    assert y[:, 2].tolist() == y[:, 3].tolist() == [0, 1, 2, 0, 4, 5]
    assert y[:, 4:].equal(x[:, 4:, 0, 0])


def test_time_conv_sees_neighbouring_frames_of_its_own_clip_only() -> None:
    conv = resnet.TimeConv(4, 4, frames=3)
    x = torch.randn(6, 4, 2, 2)
    changed = x.clone()
    changed[3] += 1  # the first frame of the second clip
    moved = (conv(x) != conv(changed)).flatten(1).any(1)
    assert moved.tolist() == [False, False, False, True, True, False]


def sdm(**knobs: Any) -> Any:
    torch.manual_seed(0)
    return maagn.SDM(32, tiny(**knobs))


def mtam(**knobs: Any) -> Any:
    torch.manual_seed(0)
    return maagn.MTAM(32, tiny(**knobs))


def agm(**knobs: Any) -> Any:
    torch.manual_seed(0)
    return maagn.AGM(8, tiny(**knobs))


def feature(channels: int = 32, t: int = 4, side: int = 3) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(2, channels, t, side, side)


def test_sdm_multiplies_a_static_clip_by_one_and_a_half() -> None:
    x = feature(t=1).expand(-1, -1, 4, -1, -1)
    y, mask = sdm()(x)
    assert (mask == 0.5).all()
    assert y.equal(1.5 * x)


def test_sdm_mask_depends_on_which_half_comes_first() -> None:
    module, x = sdm(), feature()
    swapped = torch.cat([x[:, :, 2:], x[:, :, :2]], dim=2)
    assert not torch.allclose(module(x)[1], module(swapped)[1])


def test_sdm_mask_follows_the_written_equations() -> None:
    module, x = sdm(), feature()
    w0, w1 = (p.squeeze(-1) for p in module.parameters())
    pooled = (x[:, :, 2:] - x[:, :, :2]).flatten(3).max(3).values  # (B, C, T/2)
    hidden = torch.einsum("hc,bct->bht", w0, pooled).relu()
    logits = torch.einsum("oh,bht->bot", w1, hidden)
    expected = torch.cat([logits[:, :32], logits[:, 32:]], dim=2).sigmoid()
    torch.testing.assert_close(module(x)[1], expected)


@pytest.mark.parametrize("fusion", ["residual_mul", "mul", "add", "sub"])
def test_sdm_fusions(fusion: str) -> None:
    x = feature()
    y, mask = sdm(sdm_fusion=fusion)(x)
    h = mask[..., None, None]
    expected = {"residual_mul": x + x * h, "mul": x * h, "add": x + h, "sub": x - h}[fusion]
    assert y.equal(expected)


def test_sdm_refuses_an_odd_number_of_frames_and_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"7 frames is odd: use 8, or spatial none"):
        sdm()(feature(t=7))
    with pytest.raises(ValidationError, match=r"7 frames is odd: use 8, or spatial none"):
        tiny(frames=7)
    assert tiny(frames=7, spatial="none").frames == 7


@pytest.mark.parametrize(("masks", "top"), [("max+avg+iso", 3), ("max+avg", 2), ("max", 1), ("avg", 1)])
def test_mtam_mask_range(masks: str, top: int) -> None:
    y, mask = mtam(mtam_masks=masks)(x := feature())
    assert mask.min() > 0
    assert mask.max() < top
    torch.testing.assert_close(y, x + x * mask[..., None, None])


def test_mtam_mask_ignores_where_in_the_frame_a_pixel_stands() -> None:
    module, x = mtam(), feature()
    order = torch.randperm(9)
    shuffled = x.flatten(3)[..., order].view_as(x)
    torch.testing.assert_close(module(x)[1], module(shuffled)[1])


def test_mtam_third_mask_reads_mean_and_maximum_of_the_same_channels_in_each_group() -> None:
    module, x = mtam(), feature()
    m, a = module.mlp(x.amax((3, 4))), module.mlp(x.mean((3, 4)))
    mask = module(x)[1]
    third = mask - m.sigmoid() - a.sigmoid()
    kernel = module.iso.weight.view(4, 8, 16, 3)
    for group in range(4):  # channels 8g to 8g + 7 of both, alternating
        own = slice(8 * group, 8 * group + 8)
        mixed = torch.stack([a[:, own], m[:, own]], dim=2).flatten(1, 2)
        torch.testing.assert_close(third[:, own], F.conv1d(mixed, kernel[group], padding=1).sigmoid())


def test_interleave_alternates_channels() -> None:
    mixed = maagn.interleave(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[3.0], [4.0]]]))
    assert mixed.flatten().tolist() == [1, 3, 2, 4]


def test_agm_starts_as_the_sum_of_its_branches() -> None:
    s, t = feature(8), feature(8).flip(0)
    y, gate = agm()(s, t)
    assert (gate == 0).all()
    torch.testing.assert_close(y, s + t, rtol=0, atol=1e-6)


def test_agm_with_zero_alpha_is_two_depthwise_convolutions() -> None:
    module, s, t = agm(), feature(8), feature(8).flip(0)
    for conv in (module.conv2, module.conv3):
        nn.init.normal_(conv.weight)
    expected = module.conv3(s + module.conv2(t))
    assert module(s, t)[0].equal(expected)


def test_agm_gate_wakes_up_through_alpha() -> None:
    module, s, t = agm(), feature(8), feature(8).flip(0)
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)

    def gradients() -> dict[str, float]:
        optimizer.zero_grad()
        torch.autograd.backward((module(s, t)[0] * torch.linspace(-1, 1, s.numel()).view_as(s)).sum())
        return {name: float(p.grad.abs().max()) for name, p in module.named_parameters() if p.grad is not None}

    first = gradients()
    asleep = {"conv1.weight", "conv_a.weight", "conv_b.weight"}
    assert {name for name, size in first.items() if size == 0} == asleep
    optimizer.step()
    assert min(gradients().values()) > 0


def test_the_size_of_each_gates_alpha_is_watched() -> None:
    built = maagn.Model(tiny())
    with torch.no_grad():
        built.levels["res5"].agm.alpha[:, :4] = -2.0
    watched = built(clip(tiny()))["watched"]
    assert {name: float(value) for name, value in watched.items()} == {
        "alpha.res4": 0.0,
        "alpha.res5": pytest.approx(2.0 * 4 / built.levels["res5"].agm.alpha.numel()),
        "alpha.res4.max": 0.0,
        "alpha.res5.max": 2.0,
    }
    assert maagn.Model(tiny(combine="parallel_sum"))(clip(tiny()))["watched"] == {}


@pytest.mark.parametrize(("softmax", "axis"), [("time", 2), ("channel", 1)])
def test_agm_gate_follows_the_written_equation(softmax: str, axis: int) -> None:
    module, s, t = agm(agm_softmax=softmax), feature(8), feature(8).flip(0)
    nn.init.ones_(module.alpha)
    z = torch.stack([s, t], dim=2).flatten(1, 2)
    u = F.conv3d(z, module.conv1.weight, padding=1, groups=8).softmax(axis)
    a, b = (conv.weight.view(1, 8, 1, 1, 1) for conv in (module.conv_a, module.conv_b))
    torch.testing.assert_close(module(s, t)[1], b * u * a * u)


def test_live_gate_undoes_the_softmax_scale() -> None:
    s, t = feature(8), feature(8).flip(0)
    gates = {}
    for live in (False, True):
        module = agm(agm_live_gate=live)
        nn.init.ones_(module.alpha)
        gates[live] = module(s, t)[1]
    torch.testing.assert_close(gates[True], 16 * gates[False])  # 4 frames, in both factors


def test_compositions_apply_the_modules_in_the_named_order() -> None:
    x = feature(32)
    order = {"serial_spatial_first": ("sdm", "mtam"), "serial_temporal_first": ("mtam", "sdm")}
    for combine in (*order, "parallel_sum", "parallel_agm"):
        torch.manual_seed(0)
        block = maagn.LevelBlock(32, tiny(combine=combine))
        y, maps = block(x)
        if combine in order:
            first, second = (block.branches[name] for name in order[combine])
            expected = second(first(x)[0])[0]
        else:
            expected = block.branches["sdm"](x)[0] + block.branches["mtam"](x)[0]  # at the start, AGM is that sum too
        torch.testing.assert_close(y, expected)
        assert set(maps) == {"sdm_mask", "mtam_mask"} | ({"gate"} if combine == "parallel_agm" else set())


def test_the_gate_is_added_to_the_temporal_branch() -> None:
    torch.manual_seed(0)
    block, x = maagn.LevelBlock(32, maagn.TINY), feature(32)
    for parameter in block.agm.parameters():
        nn.init.normal_(parameter)
    s, t = block.branches["sdm"](x)[0], block.branches["mtam"](x)[0]
    y, maps = block(x)
    torch.testing.assert_close(y, block.agm.conv3(s + block.agm.conv2(maps["gate"].transpose(1, 2) + t)))


def test_modules_stand_at_the_named_levels_only() -> None:
    config = tiny(levels=("res5",))
    maps = model(config)(clip(config))["maps"]
    assert set(maps) == {"res5_sdm_mask", "res5_mtam_mask", "res5_gate"}


@pytest.mark.parametrize("neck", ["tpn_slim", "tpn_official"])
def test_neck_passes_information_both_ways(neck: str) -> None:
    """The bottom-up flow starts from the top-down result, so either level alone reaches every fusion."""
    torch.manual_seed(0)
    config = tiny(neck=neck)
    module = maagn.Neck(config).eval()
    seen: list[Tensor] = []
    for fusion in (module.fuse_top_down, module.fuse_bottom_up):
        fusion.register_forward_hook(lambda _m, args, _o: seen.extend(args))
    res4, res5 = torch.randn(1, 128, 8, 3, 3), torch.randn(1, 256, 8, 2, 2)
    module(res4, res5)
    low, high, low_again, high_after = seen
    assert low.equal(low_again)
    torch.testing.assert_close(high_after, high + module.bottom_up(low))
    torch.testing.assert_close(low - high, module.temporal4(module.spatial4(res4)).amax(2, keepdim=True))


def test_auxiliary_head_reads_the_raw_level() -> None:
    config = tiny(aux_head=True)
    net, x = model(config), clip(config)
    seen: dict[str, Tensor] = {}
    net.trunk.layer3.register_forward_hook(lambda _m, _args, out: seen.update(raw=out))
    net.aux.register_forward_hook(lambda _m, args, _out: seen.update(read=args[0]))
    net(x)
    assert seen["read"].equal(resnet.as_clip(seen["raw"], config.frames))


def test_auxiliary_head_adds_half_its_cross_entropy_while_training_only() -> None:
    config = tiny(aux_head=True)
    net, x, labels = model(config), clip(config), torch.tensor([1, 5])
    outputs = net(x)
    losses = net.label_losses(outputs, labels)
    torch.testing.assert_close(losses["aux"], 0.5 * F.cross_entropy(outputs["maps"]["aux_logits"], labels))
    assert net.label_losses(net.eval()(x), labels) == {}
    assert model(tiny()).label_losses(outputs | {"maps": {}}, labels) == {}


@pytest.mark.parametrize(
    "knobs",
    [
        {"size": 32},
        {"frames": 16},
        {"frames": 2},
        {"backbone": "resnet101"},
        {"backbone_temporal": "slowonly"},
        {"neck": "tpn_official"},
        PLAIN,
        {"temporal": "none", "sdm_fusion": "sub"},
        {"spatial": "none", "mtam_masks": "avg", "frames": 5},
        {"combine": "serial_temporal_first"},
    ],
)
def test_variants_train_finitely(knobs: dict[str, Any]) -> None:
    config = tiny(**knobs)
    net = model(config)
    logits = net(clip(config))["logits"]
    assert logits.shape == (2, config.num_classes)
    torch.autograd.backward(F.cross_entropy(logits, torch.tensor([0, 1])))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_frames_need_not_be_square() -> None:
    assert model(tiny()).eval()(torch.randn(1, 8, 3, 48, 80))["logits"].shape == (1, 8)


def test_a_clip_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="the clip has 4 frames, the model was built for 8"):
        model(tiny())(torch.randn(1, 4, 3, 48, 48))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"width": 12}, "width 12 with tsm must be a multiple of 8"),
        ({"r": 200}, "r 200 leaves no hidden channel: 128 channels allow r <= 128"),
        ({"iso_group_width": 48}, "iso_group_width 48 must divide the level's 128 channels"),
        ({"neck_groups": 5}, "neck_groups 5 must divide the 32 channels of tpn_slim"),
        ({"neck_groups": 5, "neck": "tpn_official"}, "neck_groups 5 must divide the 128 channels of tpn_official"),
        ({"levels": ("res4", "res4")}, "names a level twice"),
        ({"levels": ()}, "at least 1 item"),
        ({"temporl": "none"}, "temporl"),
    ],
)
def test_impossible_configs_are_refused_with_value_and_way_out(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        tiny(**knobs)


def test_all_problems_of_a_config_are_named_at_once() -> None:
    with pytest.raises(ValidationError, match=r"7 frames is odd.*neck_groups 5"):
        tiny(frames=7, neck_groups=5)


def test_named_configs_differ_and_maagn_comes_first() -> None:
    assert next(iter(maagn.CONFIGS)) == "maagn"
    assert len({config.model_dump_json() for config in maagn.CONFIGS.values()}) == len(maagn.CONFIGS)


def test_tiny_exports_and_the_exported_program_agrees() -> None:
    net, x = model(maagn.TINY).eval(), clip(maagn.TINY, 1)
    program = torch.export.export(net, (), {"rgb": x})
    torch.testing.assert_close(program.module()(rgb=x)["logits"], net(x)["logits"])
