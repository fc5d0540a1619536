"""STA-TSN: the published sizes, and what each mechanism does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from pydantic import ValidationError
from torch import Tensor, nn

from retable import registry
from retable.nn.count import macs, parameters

FILE = registry.load("statsn")
statsn: Any = FILE.module
TINY = FILE.tiny


def config(**changes: Any) -> Any:
    """The full-size defaults with some knobs changed."""
    return statsn.Config(**changes)


def tiny(**changes: Any) -> Any:
    return statsn.Config(**{**TINY.model_dump(), **changes})


def build(cfg: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return statsn.Model(cfg).eval()


def clips(cfg: Any, batch: int = 2, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(batch, *spec.shape, generator=generator) for name, spec in FILE.inputs(cfg).items()}


def peaked(model: Any) -> Any:
    """Attention far from uniform, so that it shows what it does."""
    with torch.no_grad():
        if hasattr(model, "spatial"):
            nn.init.normal_(model.spatial.score.weight, std=5.0)
        nn.init.normal_(model.key_frames.score.weight, std=20.0)
    return model


@pytest.mark.parametrize(
    ("cfg", "expected"),
    [
        (config(), 91_931_815),
        (config(num_classes=51), 91_829_365),
        (config(num_classes=21), 91_767_895),
        (config(stream="flow"), 91_985_127),
        (config(spp="bins"), 91_931_815),
        (FILE.configs["resnet152"], 58_350_757),
        (FILE.configs["sa-resnet152"], 58_358_950),
        (FILE.configs["sa-resnet152-tsn"], 58_358_950),
        (FILE.configs["statsn-head"], 33_779_814),
        (TINY, 58_695),
        (tiny(stream="flow"), 59_919),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_parameter_counts_are_those_of_the_spec(cfg: Any, expected: int) -> None:
    assert parameters(lambda: statsn.Model(cfg)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("statsn", 346.37),
        ("statsn-flow", 366.43),
        ("statsn-head", 1.007),
        ("sa-resnet152-tsn", 34.54),
        ("sa-resnet152", 11.51),
        ("resnet152", 11.51),
    ],
)
def test_gmacs_are_those_of_the_spec(name: str, expected: float) -> None:
    cfg = FILE.configs[name]
    assert macs(lambda: statsn.Model(cfg), FILE.inputs(cfg)) / 1e9 == pytest.approx(expected, rel=5e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 24}, r"frames 24 is not segments 3 x frames_per_segment 10: set clips of 30 frames"),
        ({"frames": 8, "key_frames": False}, r"frames 8 cannot be cut into 3 equal segments: set frames to a multiple"),
        ({"frames": 30, "key_frames": False, "tsn": False}, r"frames 30 without tsn: .*set frames 1"),
        ({"tsn": False}, r"key_frames .* needs tsn: turn tsn on, or key_frames off"),
        ({"frames": 3, "frames_per_segment": 1}, r"frames_per_segment 1 leaves no frames .* at least 2"),
        ({"frames": 3, "key_frames": False, "head_only": True}, r"head_only .* turn key_frames on"),
        ({"size": 32}, r"size 32 leaves one position after resnet152's stride of 32: set a size above 32"),
        ({"spp_sizes": (1, 2, 3)}, r"spp_sizes \[2\]: .* odd kernel"),
        ({"spp_sizes": ()}, r"spp_sizes"),
        ({"backbone": "resnet153"}, r"resnet152"),
        ({"lstm": 512}, r"lstm"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_impossible_values_name_the_value_and_the_way_out(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**changes)


def test_trunk_names_and_shapes_are_torchvisions() -> None:
    with torch.device("meta"):
        ours = statsn.resnet_trunk("resnet152", 3).state_dict()
        theirs = torchvision.models.resnet152().state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items() if not k.startswith("fc.")}


def test_plain_network_with_torchvisions_weights_gives_torchvisions_scores() -> None:
    cfg = config(backbone="resnet18", spatial_attention=False, key_frames=False, tsn=False, frames=1, size=64)
    model = build(cfg)
    reference = torchvision.models.resnet18(num_classes=101).eval()
    state = reference.state_dict()
    model.load_state_dict({k if k.startswith("fc.") else f"trunk.{k}": v for k, v in state.items()})
    rgb = clips(cfg)["rgb"]
    torch.testing.assert_close(model(rgb=rgb)["logits"], reference(rgb[:, 0]))


def test_flow_stream_reads_stacks_of_x_and_y_fields() -> None:
    assert FILE.inputs(config(stream="flow"))["flow"].shape == (30, 20, 224, 224)
    assert FILE.inputs(config(stream="flow", flow_length=5))["flow"].shape == (30, 10, 224, 224)
    cfg = tiny(stream="flow")
    assert build(cfg)(**clips(cfg))["logits"].shape == (2, 5)
    with pytest.raises(TypeError, match="reads the input 'flow'"):
        build(cfg)(rgb=clips(TINY)["rgb"])


def test_alpha_is_uniform_at_init_and_adds_one_position_in_hw() -> None:
    model, rgb = build(TINY), clips(TINY)
    maps = model(**rgb)["maps"]
    torch.testing.assert_close(maps["alpha"], torch.full((2, 30, 6, 6), 1 / 36))
    plain = model.trunk(rgb["rgb"].flatten(0, 1)).mean((2, 3)).view(2, 30, 64)
    torch.testing.assert_close(maps["features"], plain * (1 + 1 / 36))


def test_attention_sums_to_one_over_positions_and_over_each_segments_frames() -> None:
    maps = peaked(build(TINY))(**clips(TINY))["maps"]
    assert maps["beta"].shape == (2, 3, 10)
    assert maps["scores"].shape == (2, 3, 5)
    torch.testing.assert_close(maps["alpha"].sum((2, 3)), torch.ones(2, 30))
    torch.testing.assert_close(maps["beta"].sum(2), torch.ones(2, 3))
    assert maps["alpha"].flatten(2).amax(2).mean() > 0.1
    assert maps["beta"].amax() > 0.2


def test_features_follow_equations_5_to_7() -> None:
    model, rgb = peaked(build(tiny(sf_scale=36.0))), clips(TINY)
    last = model.trunk(rgb["rgb"].flatten(0, 1)).detach()
    padded = F.pad(last, (3, 3, 3, 3), value=-torch.inf).numpy()
    windows = {n: np.lib.stride_tricks.sliding_window_view(padded, (n, n), axis=(2, 3)) for n in (1, 3, 5, 7)}
    inner = {n: w[:, :, 3 - n // 2 :, 3 - n // 2 :][:, :, :6, :6].max((-2, -1)) for n, w in windows.items()}
    pyramid = np.concatenate([inner[n] for n in (1, 3, 5, 7)], 1)
    score = np.einsum("mchw,c->mhw", pyramid, model.spatial.score.weight.detach().numpy()[0, :, 0, 0])
    exp = np.exp(score - score.max((1, 2), keepdims=True))
    alpha = exp / exp.sum((1, 2), keepdims=True)
    expected = ((1 + 36.0 * alpha[:, None]) * last.numpy()).mean((2, 3))
    maps = model(**rgb)["maps"]
    np.testing.assert_allclose(maps["alpha"].detach().view(60, 6, 6), alpha, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(maps["features"].detach().view(60, 64), expected, rtol=1e-4, atol=1e-6)


def test_pyramid_of_bins_keeps_the_maps_size_and_its_global_maximum() -> None:
    attention = statsn.SpatialAttention(4, (1, 3, 5, 7), bins=True)
    maps = torch.randn(2, 4, 7, 7)
    assert attention(maps).shape == (2, 1, 7, 7)
    torch.testing.assert_close(attention._pool(maps, 1), maps.amax((2, 3), keepdim=True).expand_as(maps))
    torch.testing.assert_close(attention._pool(maps, 7), maps)


@pytest.mark.parametrize("bins", [1, 3, 5, 7])
@pytest.mark.parametrize("side", [6, 7, 8])
def test_bins_are_those_of_adaptive_pooling(bins: int, side: int) -> None:
    maps = torch.randn(2, 3, side, side)
    assert torch.equal(statsn.max_bins(maps, bins), F.adaptive_max_pool2d(maps, bins))


def test_lstm_is_pytorchs_lstm() -> None:
    torch.manual_seed(0)
    ours, theirs = statsn.LSTM(6), nn.LSTM(6, 6, batch_first=True)
    names = {"weight_ih_l0": "ih.weight", "weight_hh_l0": "hh.weight", "bias_ih_l0": "ih.bias", "bias_hh_l0": "hh.bias"}
    ours.load_state_dict({names[k]: v for k, v in theirs.state_dict().items()})
    x = torch.randn(3, 5, 6)
    torch.testing.assert_close(ours(x), theirs(x)[0])


def test_each_segment_is_weighed_by_itself_with_shared_weights() -> None:
    model, rgb = peaked(build(TINY)), clips(TINY, batch=1)["rgb"]
    out = model(rgb=rgb)
    swapped = model(rgb=rgb.view(1, 3, 10, *rgb.shape[2:])[:, [2, 0, 1]].reshape(rgb.shape))
    torch.testing.assert_close(swapped["maps"]["beta"], out["maps"]["beta"][:, [2, 0, 1]])
    torch.testing.assert_close(swapped["logits"], out["logits"])


def test_scores_come_from_weighted_frame_features_not_from_the_lstm() -> None:
    model = peaked(build(TINY))
    out = model(**clips(TINY))
    beta, features = out["maps"]["beta"], out["maps"]["features"].view(2, 3, 10, 64)
    segments = torch.einsum("bnk,bnkc->bnc", beta, features)
    torch.testing.assert_close(out["maps"]["scores"], model.fc(segments))
    torch.testing.assert_close(out["logits"], model.fc(segments).mean(1))


def test_the_order_of_frames_matters_only_through_key_frames() -> None:
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    rgb = clips(TINY)["rgb"]
    blind = build(tiny(key_frames=False))
    torch.testing.assert_close(blind(rgb=rgb[:, order])["logits"], blind(rgb=rgb)["logits"])
    seeing = peaked(build(TINY))
    assert not torch.allclose(seeing(rgb=rgb[:, order])["logits"], seeing(rgb=rgb)["logits"], atol=1e-4)
    nn.init.zeros_(seeing.key_frames.score.weight)  # equal weights: blind again
    torch.testing.assert_close(seeing(rgb=rgb[:, order])["logits"], seeing(rgb=rgb)["logits"])


def test_frames_of_a_segment_share_its_weight_without_key_frames() -> None:
    model = build(tiny(key_frames=False))
    out = model(**clips(TINY))
    assert "beta" not in out["maps"]
    torch.testing.assert_close(out["logits"], model.fc(out["maps"]["features"].mean(1)))


def test_regulariser_is_the_mean_square_of_beta_over_rejected_frames() -> None:
    model = peaked(build(TINY))
    out = model(**clips(TINY, batch=4))
    judged = torch.rand(4, 30, generator=torch.Generator().manual_seed(0)) > 0.3
    judged[2] = True  # no frame rejected
    judged[3] = False
    beta, y = out["maps"]["beta"].detach().double().numpy().reshape(4, 30), judged.numpy()
    terms = [np.where(y[v], 0.0, beta[v] ** 2).sum() / max((~y[v]).sum(), 1) for v in range(4)]
    loss = model.label_losses(out, torch.zeros(4, dtype=torch.int64), judged=judged)
    assert list(loss) == ["attention"]
    assert loss["attention"].item() == pytest.approx(np.mean(terms), rel=1e-5)
    assert terms[2] == 0.0


def test_regulariser_without_a_rejected_frame_is_zero_with_finite_gradients() -> None:
    model = build(TINY)
    out = model(**clips(TINY))
    loss = model.label_losses(out, torch.zeros(2, dtype=torch.int64), judged=torch.ones(2, 30, dtype=torch.bool))
    assert loss["attention"].item() == 0.0
    loss["attention"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.key_frames.parameters())


def test_regulariser_has_a_weight_and_is_absent_where_it_has_nothing_to_say() -> None:
    labels, judged = torch.zeros(2, dtype=torch.int64), torch.zeros(2, 30, dtype=torch.bool)
    heads = {weight: build(tiny(head_only=True, regularisation=weight)) for weight in (0.0, 1.0, 2.0)}
    out = heads[1.0](**clips(heads[1.0].config))
    terms = {weight: head.label_losses(out, labels, judged=judged) for weight, head in heads.items()}
    assert terms[0.0] == {}
    torch.testing.assert_close(terms[2.0]["attention"], 2 * terms[1.0]["attention"])
    assert heads[1.0].label_losses(out, labels) == {}
    plain = build(tiny(key_frames=False))
    assert plain.label_losses(plain(**clips(TINY)), labels, judged=judged) == {}


def test_head_on_cached_features_equals_the_whole_network() -> None:
    whole, head = peaked(build(TINY)), build(tiny(head_only=True))
    state = {k: v for k, v in whole.state_dict().items() if not k.startswith(("trunk.", "spatial."))}
    head.load_state_dict(state)
    out = whole(**clips(TINY))
    features = out["maps"]["features"][..., None, None]
    assert features.shape[1:] == FILE.inputs(head.config)["features"].shape
    torch.testing.assert_close(head(features=features)["logits"], out["logits"])


def test_cached_features_are_not_rescaled() -> None:
    (spec,) = FILE.inputs(FILE.configs["statsn-head"]).values()
    x = torch.tensor([0.0, 0.5, 3.0])
    torch.testing.assert_close((x / 255 - spec.normalisation.mean[0]) / spec.normalisation.std[0], x)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stream": "flow"},
        {"spp": "bins"},
        {"spatial_attention": False},
        {"key_frames": False, "frames": 3},
        {"key_frames": False, "tsn": False, "frames": 1},
        {"head_only": True},
        {"backbone": "resnet18", "segments": 2, "frames_per_segment": 2, "frames": 4, "size": 64},
    ],
    ids=lambda changes: "-".join(changes) or "tiny",
)
def test_every_configuration_learns_a_batch_by_heart(changes: dict[str, Any]) -> None:
    model, batch = build(tiny(**changes)).train(), clips(tiny(**changes), batch=4)
    labels = torch.arange(4)
    judged = torch.rand(4, model.config.frames, generator=torch.Generator().manual_seed(2)) > 0.5
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(12):
        out = model(**batch)
        extra = model.label_losses(out, labels, judged=judged)
        loss = F.cross_entropy(out["logits"], labels) + sum(extra.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_exported_program_gives_the_models_scores() -> None:
    model, batch = peaked(build(TINY)), clips(TINY, batch=1)
    program = torch.export.export(model, (), batch)
    torch.testing.assert_close(program.module()(**batch)["logits"], model(**batch)["logits"])
