"""MAST: published sizes, the spatiotemporal module, the relation head, the trunks, and what its config refuses."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import pytest
import torch
import torchvision
from pydantic import ValidationError
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from retable import registry
from retable.nn import count

mast = registry.load("mast").module
Config = mast.Config
TINY = mast.TINY


def tiny(**knobs: Any) -> Any:
    return Config(**{**TINY.model_dump(), **knobs})


def clips(config: Any, batch: int = 2) -> Tensor:
    return torch.randn(batch, *mast.inputs(config)["rgb"].shape)


def awake(config: Any) -> Any:
    """The model with its zero-initialised gains drawn, so that every branch reaches the output."""
    model = mast.Model(config).eval()
    for st in model.st.values():
        for branch in (st.attention, st.motion):
            if branch is not None:
                nn.init.uniform_(branch.bn.weight, 0.5, 1.5)
    return model


SIZES = [
    ("both", Config(), 42_634_623, 43.00),
    ("51 classes", Config(num_classes=51), 42_554_323, 43.00),
    ("attention", Config(modules="attention"), 41_777_375, 42.47),
    ("temporal", Config(modules="temporal"), 32_002_815, 33.58),
    ("conv4", Config(positions=("conv4",)), 33_417_439, 39.12),
    ("conv4, conv5", Config(positions=("conv4", "conv5")), 42_491_359, 42.98),
    ("conv5, conv6", Config(positions=("conv5", "conv6")), 40_362_751, 36.93),
    ("none", Config(positions=()), 31_145_567, 33.05),
    ("VGG-16", Config(backbone="vgg16"), 20_095_871, 125.33),
    ("BN-Inception", Config(backbone="bninception"), 18_766_175, 20.24),
    ("conv5 as printed", Config(conv5_width=256, conv5_init="random"), 37_521_279, 40.99),
    ("N = 4", Config(frames=4), 40_824_811, 20.79),
    ("N = 16", Config(frames=16), 49_399_975, 91.67),
]


@pytest.mark.parametrize(("config", "parameters", "gmacs"), [s[1:] for s in SIZES], ids=[s[0] for s in SIZES])
def test_full_size_costs_what_the_spec_says(config: Any, parameters: int, gmacs: float) -> None:
    assert count.parameters(lambda: mast.Model(config)) == parameters
    assert count.macs(lambda: mast.Model(config), mast.inputs(config)) / 1e9 == pytest.approx(gmacs, rel=5e-3)


def test_tiny_has_the_specs_size() -> None:
    assert count.parameters(lambda: mast.Model(TINY)) == 428_047


def test_parts_have_the_specs_sizes() -> None:
    model = count.on_meta(lambda: mast.Model(Config()))
    found = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_modules()}
    assert {name: found[name] for name in ("conv6", "conv7", "st.conv4", "st.conv5", "st.conv6", "head")} == {
        "conv6": 4_719_104,
        "conv7": 590_336,
        "st.conv4": 2_271_872,
        "st.conv5": 9_073_920,
        "st.conv6": 143_264,
        "head": 2_328_095,
    }
    assert found["trunk.layer4"] == 14_964_736
    assert found["trunk"] == 23_508_032


def test_every_paper_row_has_a_named_config() -> None:
    named = {(c.backbone, c.positions, c.modules) for c in mast.CONFIGS.values()}
    every = ("conv4", "conv5", "conv6")
    assert next(iter(mast.CONFIGS)) == "mast"
    assert {(backbone, every, "both") for backbone in ("resnet50", "vgg16", "bninception")} <= named
    assert {("resnet50", p, "both") for p in (("conv4",), ("conv4", "conv5"), ("conv5", "conv6"))} <= named
    assert {("resnet50", every, modules) for modules in ("attention", "temporal")} <= named


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16", "bninception"])
@pytest.mark.parametrize(
    ("size", "halvings", "grids"),
    [
        (224, (1, 2, 3, 4, 5), (14, 7, 3)),
        (48, (1, 3, 5), (12, 6, 3)),
        (32, (1, 3), (8, 8, 3)),
        (32, (1, 2, 3, 4, 5), (2, 1, 1)),
    ],
)
def test_all_trunks_halve_the_grid_at_the_same_steps(
    backbone: str, size: int, halvings: tuple[int, ...], grids: tuple[int, ...]
) -> None:
    config = tiny(backbone=backbone, size=size, halvings=halvings)
    with torch.device("meta"):
        maps = mast.Model(config).eval()(clips(config, 1))["maps"]
    assert tuple(maps[f"conv{i}.motion"].shape[-1] for i in (4, 5, 6)) == grids


@pytest.mark.parametrize("side", [112, 240, 256])
@pytest.mark.parametrize("backbone", ["resnet50", "vgg16", "bninception"])
def test_other_sides_than_the_papers_run(backbone: str, side: int) -> None:
    config = tiny(backbone=backbone, halvings=(1, 2, 3, 4, 5))
    with torch.device("meta"):
        logits = mast.Model(config).eval()(torch.randn(2, 8, 3, side, side + 32))["logits"]
    assert logits.shape == (2, 5)


def test_resnet_trunk_computes_what_torchvisions_does() -> None:
    theirs = ResNet(Bottleneck, [1, 1, 1, 1]).eval()
    ours = mast.ResNet(Config(blocks=(1, 1, 1, 1))).eval()
    missing = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert missing.missing_keys == []
    assert missing.unexpected_keys == ["fc.weight", "fc.bias"]
    theirs.avgpool, theirs.fc = nn.Identity(), nn.Identity()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.conv5(ours.conv4(x)).flatten(1), theirs(x))


def test_vgg_trunk_computes_what_torchvisions_does() -> None:
    with torch.device("meta"):
        theirs = torchvision.models.vgg16(weights=None).features.eval()
    ours = mast.Vgg(Config()).eval()
    theirs.load_state_dict({k.removeprefix("features."): v for k, v in ours.state_dict().items()}, assign=True)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.conv5(ours.conv4(x)), theirs(x))


@pytest.mark.parametrize(
    ("knobs", "random"),
    [
        ({}, "fc."),
        ({"conv5_init": "random"}, ("fc.", "layer4.")),
        ({"backbone": "vgg16"}, "classifier."),
        (
            {"backbone": "vgg16", "conv5_init": "random"},
            ("classifier.", "features.24", "features.26", "features.28"),
        ),
    ],
)
def test_torchvision_names_fill_the_trunk_but_for_a_random_conv5(
    knobs: dict[str, Any], random: str | tuple[str, ...]
) -> None:
    config = Config(**knobs)
    with torch.device("meta"):
        theirs = torchvision.models.get_model(config.backbone, weights=None).state_dict()
        model = mast.Model(config)
    ours = model.state_dict()
    names = model.torchvision_names()
    assert {n: ours[n].shape for n in names} == {n: theirs[t].shape for n, t in names.items()}
    assert set(names.values()) == {t for t in theirs if not t.startswith(random)}


def test_module_is_the_identity_at_initialisation() -> None:
    x = torch.randn(2, 4, 32, 5, 5)
    module = mast.SpatioTemporal(32, TINY)
    for training in (True, False):
        out, _ = module.train(training)(x)
        assert torch.equal(out, x)


def test_module_adds_motion_and_attention_to_its_input() -> None:
    module = awake(TINY).st["conv6"]
    x = torch.randn(2, 8, 32, 3, 3)
    out, _ = module(x)
    torch.testing.assert_close(out, x + module.motion(x)[0] + module.attention(x))


@pytest.mark.parametrize(("modules", "absent"), [("attention", "motion"), ("temporal", "attention")])
def test_a_dropped_term_leaves_the_other_in_the_sum(modules: str, absent: str) -> None:
    module = awake(tiny(modules=modules)).st["conv6"]
    x = torch.randn(2, 8, 32, 3, 3)
    term = module.attention(x) if modules == "attention" else module.motion(x)[0]
    assert getattr(module, absent) is None
    torch.testing.assert_close(module(x)[0], x + term)


def test_attention_is_an_unscaled_softmax_over_every_point_of_the_clip() -> None:
    attention = mast.SelfAttention(8).double().eval()
    x = torch.randn(2, 3, 8, 2, 2, dtype=torch.float64)
    points = x.permute(0, 1, 3, 4, 2).reshape(2, 12, 8)
    nn.init.uniform_(attention.bn.weight)
    scores = torch.einsum("bic,bjc->bij", attention.theta(points), attention.phi(points))
    y = torch.einsum("bij,bjc->bic", scores.exp() / scores.exp().sum(-1, keepdim=True), attention.g(points))
    z = attention.out(y) / math.sqrt(1 + 1e-5) * attention.bn.weight  # running statistics are still 0 and 1
    torch.testing.assert_close(attention(x), z.reshape(2, 3, 2, 2, 8).permute(0, 1, 4, 2, 3))


def test_motion_is_the_next_frame_convolved_minus_this_one_and_zero_at_the_end() -> None:
    branch = mast.Motion(32, depthwise=False).eval()
    x = torch.randn(2, 4, 32, 5, 5)
    _, motion = branch(x)
    q = [branch.reduce(x[:, n]) for n in range(4)]
    for n in range(3):
        torch.testing.assert_close(motion[:, n], branch.conv(q[n + 1]) - q[n])
    assert torch.equal(motion[:, 3], torch.zeros_like(motion[:, 3]))


def test_motion_maps_end_with_zeros_at_every_position() -> None:
    maps = mast.Model(TINY).eval()(clips(TINY))["maps"]
    for position in TINY.positions:
        motion = maps[f"{position}.motion"]
        assert motion[:, -1].count_nonzero() == 0
        assert (motion[:, :-1].flatten(2).amax(-1) > 0).all()


def test_depthwise_motion_keeps_one_filter_per_channel() -> None:
    dense, depthwise = (sum(p.numel() for p in mast.Motion(64, depthwise=d).conv.parameters()) for d in (False, True))
    assert (dense, depthwise) == (9 * 4 * 4, 9 * 4)


def test_positions_without_a_module_leave_no_map() -> None:
    maps = mast.Model(tiny(positions=("conv6", "conv4"))).eval()(clips(TINY))["maps"]
    assert {name for name in maps if name.endswith(".motion")} == {"conv4.motion", "conv6.motion"}


def test_attention_maps_are_formed_on_request_and_change_nothing_else() -> None:
    model = awake(TINY)
    x = clips(TINY)
    with torch.no_grad():
        plain = model(x)
        model.full_maps = True
        full = model(x)
    assert torch.equal(plain["logits"], full["logits"])
    assert set(full["maps"]) - set(plain["maps"]) == {f"{p}.attention" for p in TINY.positions}
    received = full["maps"]["conv5.attention"]
    assert received.shape == (2, 8, 6, 6)
    torch.testing.assert_close(received.flatten(1).sum(1), torch.ones(2))


@pytest.mark.parametrize(("n", "m"), [(8, 2), (8, 7), (5, 5), (6, 3)])
def test_fixed_subsets_run_through_the_lexicographic_list(n: int, m: int) -> None:
    every = list(itertools.combinations(range(n), m))
    assert [tuple(s) for s in mast.fixed_subsets(n, m, len(every) + 3).tolist()] == every


def test_fixed_subsets_are_evenly_spaced() -> None:
    every = list(itertools.combinations(range(8), 2))  # 28
    assert [every.index(tuple(s)) for s in mast.fixed_subsets(8, 2, 3).tolist()] == [4, 14, 23]


def test_random_subsets_are_distinct_ordered_and_reach_every_choice() -> None:
    torch.manual_seed(0)
    drawn = Counter(tuple(map(tuple, mast.random_subsets(4, 3, 2).tolist())) for _ in range(600))
    assert set(drawn) == set(itertools.combinations(itertools.combinations(range(4), 3), 2))
    assert all(60 < times < 140 for times in drawn.values())  # 600 / 6, four standard deviations


def test_a_scale_with_fewer_than_k_subsets_uses_all_in_training_and_evaluation() -> None:
    assert mast.random_subsets(4, 4, 3).tolist() == mast.fixed_subsets(4, 4, 3).tolist() == [[0, 1, 2, 3]]


def test_training_draws_fresh_subsets_from_the_global_generator() -> None:
    head = mast.RelationHead(TINY)
    frames = torch.randn(2, 8, 32)
    torch.manual_seed(3)
    first, second = head(frames)[0], head(frames)[0]
    torch.manual_seed(3)
    assert torch.equal(head(frames)[0], first)
    assert not torch.equal(first, second)


def test_evaluation_is_repeatable_and_leaves_the_generator_alone() -> None:
    model = awake(TINY)
    x = clips(TINY)
    state = torch.get_rng_state()
    with torch.no_grad():
        assert torch.equal(model(x)["logits"], model(x)["logits"])
    assert torch.equal(torch.get_rng_state(), state)


def test_relations_sum_over_subsets_before_they_are_classified() -> None:
    head = mast.RelationHead(tiny(k=2, scales=(3,), num_classes=4)).eval()
    frames = torch.randn(2, 8, 32)
    relations, _ = head(frames)
    summed = sum(head.g[0](frames[:, list(s)].flatten(1)) for s in mast.fixed_subsets(8, 3, 2).tolist())
    torch.testing.assert_close(relations[:, 0], head.f[0](summed))


def test_logits_weigh_the_scales_and_the_penalty_is_their_l1_times_alpha() -> None:
    out = mast.Model(tiny(alpha=0.5)).eval()(clips(TINY))
    weights, relations = out["maps"]["lambda"], out["maps"]["relations"]
    assert weights.shape == (2, 6)
    assert ((weights > 0) & (weights < 1)).all()
    torch.testing.assert_close(out["logits"], torch.einsum("bm,bmk->bk", weights, relations))
    torch.testing.assert_close(out["losses"]["relation_l1"], 0.5 * weights.sum(1).mean())
    assert list(out["watched"]) == [f"lambda.{m}" for m in range(2, 8)]
    torch.testing.assert_close(torch.stack(list(out["watched"].values())), weights.mean(0))


def test_order_of_frames_matters_without_any_module() -> None:
    model = mast.Model(tiny(positions=())).eval()
    x = clips(TINY)
    with torch.no_grad():
        assert not torch.allclose(model(x)["logits"], model(x.flip(1))["logits"])


def test_a_clip_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="need 8 frames, but the clips have 6"):
        mast.Model(TINY)(torch.randn(1, 6, 3, 48, 48))


def test_positions_have_one_spelling() -> None:
    assert Config(positions=("conv6", "conv4")) == Config(positions=["conv4", "conv6"])


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"positions": ("conv7",)}, "Input should be 'conv4', 'conv5' or 'conv6'"),
        ({"positions": ("conv4", "conv4")}, "names a stage twice"),
        ({"frames": 2}, r"frames 2 has no relation of 2..1 frames: take at least 3"),
        ({"scales": (2, 9)}, r"scales \[2, 9\] must be increasing numbers from 2 to frames = 8"),
        ({"scales": ()}, r"scales \[\]"),
        ({"size": 16}, "size 16 vanishes in 5 halvings: set at least 32"),
        ({"halvings": (0, 1)}, r"halvings \[0, 1\]"),
        ({"blocks": (1, 1, 0, 1)}, r"blocks \[1, 1, 0, 1\]"),
        ({"backbone": "bninception", "width": 7}, "width 7 .* set an even width"),
        ({"backbone": "vgg16", "conv5_width": 256}, "conv5_width 256 is resnet50's"),
        ({"conv5_width": 256}, "set conv5_init to random"),
        ({"segments": 8}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_knobs_are_refused(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Config(**knobs)


def test_exported_program_takes_any_batch_and_gives_the_same_logits() -> None:
    config = tiny(frames=4)
    model = awake(config)
    program = torch.export.export(model, (clips(config),), dynamic_shapes={"rgb": {0: torch.export.Dim("batch")}})
    x = clips(config, 3)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x)["logits"], model(x)["logits"])
