"""R(2+1)D-18: the published count, the widths between the halves, and shapes."""

from __future__ import annotations

import pytest

from retable import registry, testing
from retable.nn import count

FILE = registry.load("r2plus1d")
r2plus1d = FILE.module


def test_parameters_are_those_of_the_paper_that_ran_it() -> None:
    assert count.parameters(lambda: FILE.build(FILE.config_class())) == 33_226_750


@pytest.mark.parametrize(("frames", "giga"), [(8, 20.8), (16, 41.5)])
def test_multiply_accumulates(frames: int, giga: float) -> None:
    config = FILE.config_class(frames=frames)
    assert count.macs(lambda: FILE.build(config), FILE.inputs(config)) / 1e9 == pytest.approx(giga, rel=0.005)


def test_widths_between_the_halves() -> None:
    assert r2plus1d.stem_middle(64) == 45
    assert [r2plus1d.middle(64, co, 3, 3) for co in (64, 128)] == [144, 230]
    assert r2plus1d.middle(64, 128, 1, 1) == 42


@pytest.mark.parametrize("ci", [8, 64, 256])
def test_a_pair_has_as_many_weights_as_fit_into_the_full_convolution(ci: int) -> None:
    layers = r2plus1d.Factorised(ci, 2 * ci, 3, 1)
    full, pair = 27 * ci * 2 * ci, layers[0].weight.numel() + layers[3].weight.numel()
    one_more_channel = pair // layers[0].out_channels
    assert pair <= full < pair + one_more_channel


def test_stages_halve_the_clip() -> None:
    maps = FILE.build(FILE.tiny)(**testing.clips(FILE, FILE.tiny, batch=2))["maps"]
    assert {name: tuple(x.shape[1:]) for name, x in maps.items()} == {
        "stem": (8, 8, 16, 16),
        "layer1": (8, 8, 16, 16),
        "layer2": (16, 4, 8, 8),
        "layer3": (32, 2, 4, 4),
        "layer4": (64, 1, 2, 2),
    }
