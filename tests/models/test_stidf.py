"""STIDF: published sizes, early fusion, the layer-normalised LSTM, the head, and what its config refuses."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torchvision
from pydantic import ValidationError
from torch import Tensor, nn

from retable import registry
from retable.nn import count

stidf = registry.load("stidf").module
Config = stidf.Config
TINY = stidf.TINY

Array = npt.NDArray[np.float64]


def tiny(**knobs: Any) -> Any:
    return Config(**{**TINY.model_dump(), **knobs})


def clips(config: Any, batch: int = 2) -> dict[str, Tensor]:
    return {name: torch.randn(batch, *spec.shape) for name, spec in stidf.inputs(config).items()}


@pytest.mark.parametrize(
    ("config", "parameters", "gmacs"),
    [
        (Config(), 188_747_131, 573.88),
        (Config(num_classes=11), 188_737_951, 573.88),
        (Config(num_classes=10), 188_737_849, 573.88),
        (Config(head="direct"), 188_736_829, 573.88),
        (Config(fusion="conv2d"), 179_309_947, 542.43),
        (Config(fusion="sum"), 188_747_131 - 14_156_288, 573.88 - 47.17),
    ],
    ids=["K = 101", "K = 11", "K = 10", "direct", "conv2d", "sum"],
)
def test_full_size_costs_what_the_spec_says(config: Any, parameters: int, gmacs: float) -> None:
    assert count.parameters(lambda: stidf.Model(config)) == parameters
    assert count.macs(lambda: stidf.Model(config), stidf.inputs(config)) / 1e9 == pytest.approx(gmacs, rel=5e-3)


def test_tiny_has_the_specs_size() -> None:
    assert count.parameters(lambda: stidf.Model(TINY)) == 221_473


def test_parts_have_the_specs_sizes() -> None:
    model = count.on_meta(lambda: stidf.Model(Config()))
    assert {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()} == {
        "spatial": 14_714_688,
        "temporal": 14_717_568,
        "fusion": 14_156_288,
        "fc6": 102_764_544,
        "lstm_conv": 40_584_022,
        "lstm_fc": 1_696_598,
        "merge": 20_503,
        "lstm": 82_618,
        "head": 10_302,
        "fc6_dropout": 0,
        "lstm_dropout": 0,
    }


def test_inputs_are_frames_and_the_flow_around_each() -> None:
    specs = stidf.inputs(Config())
    assert specs["rgb"].shape == (17, 3, 224, 224)
    assert specs["flow"].shape == (17, 8, 224, 224)
    assert specs["flow"].modality == "flow"
    assert stidf.inputs(Config(flow_channels=3))["flow"].shape[1] == 12


def test_flow_bytes_are_scaled_about_128() -> None:
    norm = stidf.inputs(Config())["flow"].normalisation
    scaled = (torch.tensor([0.0, 128.0, 192.0]) / 255 - norm.mean[0]) / norm.std[0]
    torch.testing.assert_close(scaled, torch.tensor([-1.0, 0.0, 0.5]))


def test_channels_interleave_starting_with_the_temporal_stream() -> None:
    spatial, temporal = torch.arange(3.0) + 10, torch.arange(3.0) + 20
    stacked = stidf.interleave(spatial.view(1, 3, 1, 1), temporal.view(1, 3, 1, 1))
    assert stacked.flatten().tolist() == [20, 10, 21, 11, 22, 12]


@pytest.mark.parametrize(("fusion", "reached"), [("conv3d", [2, 3, 4]), ("conv2d", [3]), ("sum", [3])])
def test_only_3d_fusion_sees_the_frames_around(fusion: str, reached: list[int]) -> None:
    module = stidf.Fusion(tiny(fusion=fusion))
    spatial, temporal = torch.rand(7, 32, 4, 4), torch.rand(7, 32, 4, 4)
    other = temporal.clone()
    other[3] += 1
    with torch.no_grad():
        moved = (module(spatial, other, 7) - module(spatial, temporal, 7)).abs().flatten(2).sum(2)
    assert moved[0].nonzero().flatten().tolist() == reached


def test_fusion_convolves_interleaved_channels_over_time() -> None:
    module = stidf.Fusion(TINY)
    spatial, temporal = torch.randn(2, 3, 32, 4, 4), torch.randn(2, 3, 32, 4, 4)
    fused = module(spatial.flatten(0, 1), temporal.flatten(0, 1), 3)
    weight, bias = module.conv.weight, module.conv.bias
    one = nn.functional.conv3d(spatial.transpose(1, 2), weight[:, 1::2], bias, padding=1)
    two = nn.functional.conv3d(temporal.transpose(1, 2), weight[:, 0::2], padding=1)
    torch.testing.assert_close(fused, (one + two).relu().transpose(1, 2))


def test_sum_fusion_adds_the_streams() -> None:
    spatial, temporal = torch.rand(6, 32, 4, 4), torch.rand(6, 32, 4, 4)
    assert torch.equal(stidf.Fusion(tiny(fusion="sum"))(spatial, temporal, 3).flatten(0, 1), spatial + temporal)


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def layer_norm(x: Array, gain: Array, shift: Array) -> Array:
    mean = x.mean(-1, keepdims=True)
    return np.asarray(gain * (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-5) + shift)


def lstm_in_numpy(x: Array, p: dict[str, Array]) -> Array:
    """Spec section 1.3 written out: chunks i, j, f, o, each normalised; then the cell."""
    hidden = p["w_h.weight"].shape[1]
    h = c = np.zeros((len(x), hidden))
    out = []
    for t in range(x.shape[1]):
        u = x[:, t] @ p["w_x.weight"].T + h @ p["w_h.weight"].T
        chunks = [u[:, k * hidden : (k + 1) * hidden] for k in range(4)]
        i, j, f, o = (layer_norm(chunk, p["gain"][k], p["shift"][k]) for k, chunk in enumerate(chunks))
        c = layer_norm(c * sigmoid(f + 1) + sigmoid(i) * np.tanh(j), p["norm.weight"], p["norm.bias"])
        h = np.tanh(c) * sigmoid(o)
        out.append(h)
    return np.stack(out, 1)


def test_lstm_matches_the_equations_in_float64() -> None:
    torch.manual_seed(0)
    lstm = stidf.LayerNormLSTM(6, 5).double()
    for p in (lstm.gain, lstm.shift, lstm.norm.weight, lstm.norm.bias):
        nn.init.normal_(p)
    x = torch.randn(3, 7, 6, dtype=torch.float64)
    with torch.no_grad():
        found = lstm(x)
    expected = lstm_in_numpy(x.numpy(), {name: v.numpy() for name, v in lstm.state_dict().items()})
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-12)


def test_lstm_is_causal() -> None:
    lstm = stidf.LayerNormLSTM(6, 5)
    x = torch.randn(1, 7, 6)
    y = x.clone()
    y[:, 4:] += 1
    with torch.no_grad():
        a, b = lstm(x), lstm(y)
    assert torch.equal(a[:, :4], b[:, :4])
    assert not torch.allclose(a[:, 4:], b[:, 4:])


def test_direct_head_returns_the_last_hidden_state() -> None:
    out = stidf.Model(tiny(head="direct", hidden=5)).eval()(**clips(TINY))
    assert torch.equal(out["logits"], out["maps"]["h"][:, -1])
    assert (out["logits"].abs() < 1).all()


def test_linear_head_reads_the_last_hidden_state() -> None:
    model = stidf.Model(TINY).eval()
    out = model(**clips(TINY))
    torch.testing.assert_close(out["logits"], model.head(out["maps"]["h"][:, -1]))


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_both_streams_reach_the_logits(stream: str) -> None:
    model = stidf.Model(TINY).eval()
    one = clips(TINY)
    with torch.no_grad():
        moved = model(**one)["logits"] - model(**{**one, stream: one[stream].flip(1)})["logits"]
    assert moved.abs().max() > 1e-4


@pytest.mark.parametrize("knob", ["fc6_dropout", "lstm_dropout"])
def test_each_dropout_acts_in_training_only(knob: str) -> None:
    model = stidf.Model(tiny(**{knob: 0.5}))
    x = clips(TINY)
    with torch.no_grad():
        assert not torch.equal(model(**x)["logits"], model(**x)["logits"])
        model.eval()
        assert torch.equal(model(**x)["logits"], model(**x)["logits"])


def test_lstm_dropout_zeroes_outputs_and_not_the_recurrence() -> None:
    model = stidf.Model(tiny(lstm_dropout=0.9))
    x = clips(TINY)
    torch.manual_seed(0)
    one = model(**x)["maps"]
    two = model(**x)["maps"]
    assert torch.equal(one["h_conv"], two["h_conv"])
    assert not torch.equal(one["h"], two["h"])


def test_fused_maps_and_their_fc6_features_each_drive_a_recurrence_and_a_third_joins_them() -> None:
    model = stidf.Model(TINY).eval()
    x = clips(TINY)
    with torch.no_grad():
        maps = model(**x)["maps"]
        fused = model.fusion(model.spatial(x["rgb"].flatten(0, 1)), model.temporal(x["flow"].flatten(0, 1)), 17)
        fc6 = model.fc6(nn.functional.max_pool2d(fused.flatten(0, 1), 2).flatten(1)).relu().view(2, 17, 64)
        torch.testing.assert_close(maps["h_conv"], model.lstm_conv(fused.flatten(2)))
        torch.testing.assert_close(maps["h_fc"], model.lstm_fc(fc6))
        joined = model.merge(torch.cat((maps["h_conv"], maps["h_fc"]), 2))
        torch.testing.assert_close(maps["h"], model.lstm(joined))


def test_dropout_follows_every_lstm() -> None:
    model = stidf.Model(TINY)
    shapes: list[tuple[int, ...]] = []
    model.lstm_dropout.register_forward_hook(lambda _, args, out: shapes.append(tuple(out.shape)))
    model(**clips(TINY))
    assert shapes == [(2, 17, 16), (2, 17, 16), (2, 16)]


def test_hidden_streams_are_maps_per_frame() -> None:
    maps = stidf.Model(TINY).eval()(**clips(TINY))["maps"]
    assert {name: tuple(m.shape) for name, m in maps.items()} == {
        "h_conv": (2, 17, 16),
        "h_fc": (2, 17, 16),
        "h": (2, 17, 16),
        "fused": (2, 17, 4, 4),
    }


def test_heat_maps_are_the_first_sixth_and_ninth_convolution() -> None:
    model = stidf.Model(tiny(width=8)).eval()
    x = clips(TINY, 1)
    with torch.no_grad():
        plain = model(**x)["logits"]
        model.full_maps = True
        full = model(**x)
    assert torch.equal(full["logits"], plain)
    shapes = {name: tuple(full["maps"][name].shape) for name in ("conv1_1", "conv3_2", "conv4_2")}
    assert shapes == {"conv1_1": (1, 17, 6, 32, 32), "conv3_2": (1, 17, 6, 8, 8), "conv4_2": (1, 17, 6, 4, 4)}
    order = [i for i, layer in enumerate(model.spatial) if isinstance(layer, nn.Conv2d)]
    assert [order.index(i - 1) + 1 for i in stidf.HEAT_MAPS.values()] == [1, 6, 9]
    first = model.spatial[0](x["rgb"][0]).relu()[:, :6]
    torch.testing.assert_close(full["maps"]["conv1_1"][0], first)


def test_torchvision_names_fill_all_but_the_first_flow_convolution() -> None:
    with torch.device("meta"):
        theirs = torchvision.models.vgg16(weights=None).state_dict()
        model = stidf.Model(Config())
    ours, names = model.state_dict(), model.torchvision_names()
    assert {n: ours[n].shape for n in names} == {n: theirs[t].shape for n, t in names.items()}
    trunks = {n for n in ours if n.startswith(("spatial.", "temporal.", "fc6."))}
    assert trunks - set(names) == {"temporal.0.weight", "temporal.0.bias"}


def test_spatial_trunk_computes_what_torchvisions_does() -> None:
    with torch.device("meta"):
        theirs = torchvision.models.vgg16(weights=None).features[:30]
    ours = stidf.vgg(3, Config())
    theirs.load_state_dict(ours.state_dict(), assign=True)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def test_convolutions_start_with_fan_in_scale() -> None:
    conv = stidf.Model(tiny(width=16)).fusion.conv
    assert conv.weight.std().item() == pytest.approx((2 / (27 * 256)) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("frames", "size", "pools"), list(itertools.product((3, 16), (48, 112), ((1, 2, 3), (1, 2, 3, 4))))
)
def test_other_lengths_and_sizes_run(frames: int, size: int, pools: tuple[int, ...]) -> None:
    config = tiny(frames=frames, size=size, pools=pools)
    with torch.device("meta"):
        assert stidf.Model(config)(**clips(config, 1))["logits"].shape == (1, 5)


def test_clips_that_do_not_fit_are_refused() -> None:
    model = stidf.Model(TINY)
    x = clips(TINY)
    with pytest.raises(ValueError, match=r"flow has \(B, T, H, W\) \(2, 16, 32, 32\)"):
        model(x["rgb"], x["flow"][:, :16])
    with pytest.raises(ValueError, match=r"rgb has .* \(2, 17, 30, 32\) but the model was built for \(2, 17, 32, 32\)"):
        model(x["rgb"][..., :30, :], x["flow"])


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"head": "direct", "num_classes": 11}, "101 hidden units for 11 logits: set hidden to 11"),
        ({"size": 16}, "size 16 leaves a grid of 1 after 4 pools"),
        ({"pools": (1, 5)}, r"pools \[1, 5\] must be increasing numbers from 1 to 4"),
        ({"fusion": "conv+fc"}, "Input should be 'conv3d', 'conv2d' or 'sum'"),
        ({"fc6_dropout": 1.0}, "less than 1"),
        ({"tau_range": (2, 10)}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_knobs_are_refused(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Config(**knobs)


def test_exported_program_takes_any_batch_and_gives_the_same_logits() -> None:
    config = tiny(frames=5)
    model = stidf.Model(config).eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (), clips(config), dynamic_shapes={"rgb": {0: batch}, "flow": {0: batch}})
    x = clips(config, 3)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(**x)["logits"], model(**x)["logits"])
