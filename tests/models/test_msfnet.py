"""MSF-Net: the counts that its paper prints, the multilevel split's wiring, and the frequency basis."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn import functional as F

from retable import registry, testing
from retable.nn import count

FILE = registry.load("msfnet")
msfnet = FILE.module

TINY = {"width": 8, "size": 32, "num_classes": 5, "reduction": 4, "fc_hidden": 64}


def parameters(**knobs: Any) -> int:
    return count.parameters(lambda: FILE.build(FILE.config_class(**knobs)))


def macs(**knobs: Any) -> int:
    config = FILE.config_class(**knobs)
    return count.macs(lambda: FILE.build(config), FILE.inputs(config))


@pytest.mark.parametrize(
    ("knobs", "published_or_derived"),
    [
        ({"msl_position": "a"}, 26_663_533),
        ({}, 21_844_845),
        ({"msl_position": "c"}, 16_087_501),
        ({"msl_position": "d"}, 15_532_653),
        ({"groups": 3}, 21_178_989),
        ({"groups": 5}, 21_795_225),
        ({"groups": 6}, 21_496_209),
        ({"attention": "se"}, 21_879_661),
        ({"attention": "cbam"}, 21_881_033),
        ({"attention": "nst"}, 21_846_961),
        ({"attention": "fsam"}, 21_881_033),
        ({"msf": False}, 33_227_557),
        ({"msf": False, "norm_repeat": 1}, 33_218_085),
        ({"backbone": "c3d", "msf": False}, 78_409_573),
        ({"backbone": "c3d"}, 69_203_797),
        ({"backbone": "c3d", "attention": "fsam"}, 69_246_129),
        ({"num_classes": 400}, 21_998_232),
        ({"num_classes": 400, "attention": "fsam"}, 22_034_420),
        ({"num_classes": 400, "backbone": "c3d", "msf": False}, 79_634_576),
        ({**TINY, "msf": False}, 523_869),
        (TINY, 345_889),
        ({**TINY, "groups": 3}, 332_269),
        ({**TINY, "msl_position": "a"}, 421_377),
        ({**TINY, "msl_position": "c"}, 255_885),
        ({**TINY, "msl_position": "d"}, 247_681),
        ({**TINY, "attention": "se"}, 348_065),
        ({**TINY, "attention": "cbam"}, 349_437),
        ({**TINY, "attention": "nst"}, 346_325),
        ({**TINY, "attention": "fsam"}, 349_437),
        ({**TINY, "backbone": "c3d", "msf": False}, 453_925),
        ({**TINY, "backbone": "c3d"}, 311_231),
        ({**TINY, "backbone": "c3d", "attention": "fsam"}, 315_163),
    ],
)
def test_parameters(knobs: dict[str, Any], published_or_derived: int) -> None:
    assert parameters(**knobs) == published_or_derived


@pytest.mark.parametrize(
    ("knobs", "giga"),
    [
        ({"msf": False}, 20.35),
        ({"msf": False, "frames": 16}, 40.70),
        ({}, 14.05),
        ({"attention": "fsam"}, 14.052),
        ({"msl_position": "a"}, 15.31),
        ({"msl_position": "c"}, 9.22),
        ({"msl_position": "d"}, 9.75),
        ({"groups": 3}, 13.63),
        ({"groups": 5}, 13.92),
        ({"groups": 6}, 13.80),
        ({"backbone": "c3d", "msf": False, "frames": 16}, 38.55),
        ({"backbone": "c3d", "msf": False}, 19.30),
        ({"backbone": "c3d", "frames": 16}, 28.38),
        ({"backbone": "c3d"}, 14.22),
        ({"backbone": "c3d", "frames": 16, "attention": "fsam"}, 28.39),
        (TINY, 0.02388),
        ({**TINY, "attention": "fsam"}, 0.02406),
        ({**TINY, "backbone": "c3d", "attention": "fsam"}, 0.02292),
    ],
)
def test_multiply_accumulates(knobs: dict[str, Any], giga: float) -> None:
    assert macs(**knobs) / 1e9 == pytest.approx(giga, rel=0.005)


def test_one_norm_repeat_is_torchvisions_r3d18() -> None:
    """An independent count of the plain host: torchvision's network at 101 classes."""
    from torchvision.models.video import r3d_18

    assert parameters(msf=False, norm_repeat=1) == count.parameters(lambda: r3d_18(num_classes=101))


@pytest.mark.parametrize(
    ("channels", "groups", "widths"),
    [
        (64, 3, [22, 31]),
        (64, 4, [16, 24, 28]),
        (128, 5, [26, 39, 45, 46]),
        (64, 6, [11, 16, 19, 20, 19]),
        (512, 6, [86, 129, 150, 161, 162]),
    ],
)
def test_branch_widths(channels: int, groups: int, widths: list[int]) -> None:
    assert msfnet.branch_widths(channels, groups) == widths


@given(channels=st.integers(1, 600), groups=st.integers(3, 12))
def test_branches_keep_all_channels(channels: int, groups: int) -> None:
    split = msfnet.group_widths(channels, groups)
    branches = msfnet.branch_widths(channels, groups)
    kept = [math.ceil(m / 2) for m in branches[:-1]] + branches[-1:]
    assert sum(split) == channels
    assert split[0] + sum(kept) == channels
    assert len(split) <= groups


@given(width=st.integers(1, 80), groups=st.integers(3, 9))
def test_groups_are_realised_or_refused(width: int, groups: int) -> None:
    exact = all(len(torch.empty(width << i, device="meta").chunk(groups)) == groups for i in range(4))
    if exact:
        FILE.config_class(width=width, groups=groups)
    else:
        with pytest.raises(ValidationError, match=f"groups {groups}: .* use fewer groups or a wider net"):
            FILE.config_class(width=width, groups=groups)


@pytest.mark.parametrize("groups", [3, 4, 5, 6])
def test_split_passes_the_first_group_on_and_looks_back_only(groups: int) -> None:
    """y_1 = x_1 bit for bit; y_i depends on x_2..x_i and on no later group."""
    torch.manual_seed(0)
    layer = msfnet.MSL(24, groups, bias=True).double().eval()
    x = torch.randn(1, 24, 3, 4, 4, dtype=torch.float64)
    widths = layer.widths
    branches = msfnet.branch_widths(24, groups)
    kept = [widths[0], *(math.ceil(m / 2) for m in branches[:-1]), branches[-1]]
    y = layer(x)
    assert y.shape == x.shape
    assert torch.equal(y[:, : widths[0]], x[:, : widths[0]])
    for i in range(groups):
        changed = x.clone()
        changed[:, sum(widths[:i]) : sum(widths[: i + 1])] += 1.0
        moved = [bool((a != b).any()) for a, b in zip(*(z.split(kept, 1) for z in (y, layer(changed))), strict=True)]
        assert moved == [j == 0 if i == 0 else j >= i for j in range(groups)]


def test_last_branch_of_four_sees_seven_frames() -> None:
    layer = msfnet.MSL(8, 4, bias=False).double().eval()
    for branch in layer.branches:
        torch.nn.init.ones_(branch[0].weight)
    x = torch.ones(1, 8, 9, 9, 9, dtype=torch.float64, requires_grad=True)
    layer(x)[0, -1, 4, 4, 4].backward()
    assert x.grad is not None
    reached = x.grad[0].abs().sum((0, 2, 3)) > 0
    assert reached.tolist() == [False] + [True] * 7 + [False]


def test_basis_of_frequency_zero_is_the_mean() -> None:
    attention = msfnet.FAM(16, 4, side=7, num_freq=16)
    assert torch.allclose(attention.basis[0], torch.full((1, 7, 7), 1 / 7))
    row = [0.19697, 0.15795, 0.08766, 0.0, -0.08766, -0.15795, -0.19697]
    assert torch.allclose(attention.basis[1, 0], torch.tensor(row).expand(7, 7), atol=1e-5)


def test_basis_is_orthonormal_on_its_tile() -> None:
    basis = msfnet.FAM(16, 4, side=28, num_freq=16).basis.flatten(1).double()
    assert torch.allclose(basis @ basis.T, torch.eye(16, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("side", [2, 4, 8, 16, 28, 30])
def test_folded_pooling_equals_pooling_to_the_tile(side: int) -> None:
    """Against the definition: average the map to D x D, D = 7 max(1, side // 7), then take the DCT there."""
    tile = 7 * max(1, side // 7)
    frames = torch.randn(2, 16, 3, side, side, dtype=torch.float64)
    pooled = F.adaptive_avg_pool2d(frames.mean(2), tile)
    direct = torch.stack(
        [
            torch.einsum("bhw,h,w->b", pooled[:, c], *(msfnet.dct_basis(f * tile // 7, tile) for f in pair))
            for c, pair in enumerate(zip(msfnet.FREQ_H, msfnet.FREQ_W, strict=True))
        ],
        dim=1,
    )
    assert torch.allclose(msfnet.FAM(16, 4, side, 16).double().describe(frames), direct, atol=1e-5)


def test_one_frequency_is_squeeze_and_excitation_times_the_tile() -> None:
    frames = torch.randn(2, 8, 3, 14, 14)
    fam, se = msfnet.FAM(8, 4, side=14, num_freq=1), msfnet.SE(8, 4)
    assert torch.allclose(fam.describe(frames), 14 * se.describe(frames), atol=1e-5)


def test_tiny_stages_have_the_stated_shapes() -> None:
    maps = FILE.build(FILE.tiny)(**testing.clips(FILE, FILE.tiny, batch=2))["maps"]
    assert {name: tuple(x.shape[1:]) for name, x in maps.items()} == {
        "stem": (8, 8, 16, 16),
        "layer1": (8, 8, 16, 16),
        "layer2": (16, 4, 8, 8),
        "layer2.channel": (16,),
        "layer2.spacetime": (1, 4, 8, 8),
        "layer3": (32, 2, 4, 4),
        "layer4": (64, 1, 2, 2),
        "layer4.channel": (64,),
        "layer4.spacetime": (1, 1, 2, 2),
    }


@pytest.mark.parametrize(("frames", "last"), [(8, (64, 1, 2, 2)), (16, (64, 2, 2, 2))])
def test_c3d_stages_have_the_stated_shapes(frames: int, last: tuple[int, ...]) -> None:
    config = FILE.config_class(**TINY, frames=frames, backbone="c3d", msf=False)
    maps = FILE.build(config)(**testing.clips(FILE, config, batch=2))["maps"]
    assert [tuple(maps[f"conv{i}"].shape[1:]) for i in range(1, 6)] == [
        (8, frames, 32, 32),
        (16, frames, 16, 16),
        (32, frames // 2, 8, 8),
        (64, frames // 4, 4, 4),
        last,
    ]


@pytest.mark.parametrize("attention", ["none", "se", "cbam", "nst", "fsam", "fam", "sam"])
@pytest.mark.parametrize("groups", [3, 4, 5, 6])
def test_laptop_width_realises_every_row(groups: int, attention: str) -> None:
    knobs = {"width": 24, "size": 32, "num_classes": 10, "groups": groups, "attention": attention}
    assert macs(**knobs) > 0


@pytest.mark.parametrize(
    "knobs",
    [
        {"msl_position": "a"},
        {"msl_position": "c"},
        {"msl_position": "d"},
        {"attention": "se"},
        {"attention": "cbam"},
        {"attention": "nst", "path_c": False},
        {"backbone": "c3d", "attention": "fsam"},
        {"backbone": "c3d", "msf": False},
        {"msf": False, "attention": "fam"},
    ],
    ids=lambda knobs: " ".join(f"{k}={v}" for k, v in knobs.items()),
)
@pytest.mark.parametrize("check", [testing.check_gradients, testing.check_evaluation, testing.check_deterministic])
def test_variants_pass_the_contract(knobs: dict[str, Any], check: testing.Check) -> None:
    check(FILE, FILE.config_class(**TINY, **knobs))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"width": 8, "groups": 6}, "8 channels split into 4 groups, not 6; .* next width that works is 11"),
        (
            {"width": 8, "attention": "fsam", "attention_at": (1,)},
            "num_freq 16 does not divide the 8 channels of layer1",
        ),
        ({"attention_at": (5,)}, r"attention_at \[5\] are not stages of r3d; it has \[1, 2, 3, 4\]"),
        ({"attention_at": (4, 2)}, r"attention_at must increase, but is \[4, 2\]"),
        ({"sam_kernel": 4}, "sam_kernel must be odd .* but is 4"),
        ({"backbone": "c3d", "msl_position": "a"}, "msl_position a exists for backbone r3d only"),
        ({"grups": 4}, "grups"),
    ],
)
def test_impossible_knobs_are_refused(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FILE.config_class(**knobs)
