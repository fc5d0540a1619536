"""The contract refuses model files that break it: one plug-in per fault, each a small edit of one that passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from retable import registry, testing

GOOD = """
import torch
from pydantic import BaseModel, ConfigDict
from torch import nn
from retable.nn import InputSpec

PAPER = "none"
SEMANTICS = 1

class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    num_classes: int = 3
    frames: int = 2
    size: int = 8

class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.first = nn.Linear(6, 4)
        self.norm = nn.BatchNorm1d(4)
        self.last = nn.Linear(4, config.num_classes)

    def forward(self, rgb):
        x = self.norm(self.first(rgb.mean((3, 4)).flatten(1)))
        return {"logits": self.last(x.relu()), "maps": {"hidden": x}}

def inputs(config):
    return {"rgb": InputSpec(shape=(config.frames, 3, config.size, config.size))}

CONFIGS = {"plug": Config()}
TINY = Config()
"""


def plug_in(folder: Path, old: str = "", new: str = "") -> registry.ModelFile:
    """The good model file, with ``old`` replaced by ``new``."""
    assert old in GOOD
    path = folder / "plug.py"
    path.write_text(GOOD.replace(old, new, 1) if old else GOOD)
    return registry.load(str(path))


@pytest.mark.parametrize("check", testing.MODEL_CONTRACT, ids=lambda check: check.__name__)
def test_good_plug_in_passes(check: testing.Check, tmp_path: Path) -> None:
    file = plug_in(tmp_path)
    check(file, file.tiny)


@pytest.mark.parametrize(
    ("check", "old", "new", "message"),
    [
        (testing.check_config, "frozen=True, ", "", "must be frozen"),
        (testing.check_config, ', extra="forbid"', "", "knob that does not exist"),
        (testing.check_config, "    size: int = 8\n", "", r"lacks \['size'\]"),
        (testing.check_config, '{"plug"', '{"other"', "must start with 'plug'"),
        (testing.check_imports, "import torch\n", "import numpy\n", r"imports \['numpy'\]"),
        (testing.check_imports, "from retable.nn", "from retable.registry import load\nfrom retable.nn", "registry"),
        (testing.check_outputs, '{"hidden": x}', '{"hidden": x}, "extra": x', "put intermediates into maps"),
        (testing.check_outputs, "config.num_classes)", "7)", r"logits are \(4, 7\), not \(4, 3\)"),
        (testing.check_outputs, '"maps"', '"losses": {"l": torch.zeros(2)}, "maps"', r"losses \['l'\]"),
        (testing.check_gradients, "self.last(x.relu())", "x[:, :3]", "last.weight.* are no part of the loss"),
        (testing.check_gradients, "self.last(x.relu())", "self.last(0 * x)", "no gradient reaches .*'last.weight'"),
        (testing.check_evaluation, "x.relu()", "x.relu() + torch.rand(1)", "not deterministic"),
        (testing.check_evaluation, "x.relu()", "x.relu() - x.mean(0)", "the other clips of its batch"),
        (testing.check_bf16, "x.relu()", "x.relu().mul(1e30).exp().log()", "the loss is (nan|inf)"),
        (testing.check_meta, "self.norm =", "self.b = nn.Buffer(torch.ones(1, device='cpu')); self.norm =", "'b'"),
        (testing.check_state, "Norm1d(4)", "Norm1d(4, eps=torch.rand(1).item())", "state dict does not hold"),
        (testing.check_deterministic, "rgb.mean((3, 4))", "nn.AvgPool3d((1, 8, 8))(rgb.requires_grad_())", "avg"),
    ],
)  # fmt: skip
def test_fault_is_named(check: testing.Check, old: str, new: str, message: str, tmp_path: Path) -> None:
    file = plug_in(tmp_path, old, new)
    with pytest.raises(AssertionError, match=message):
        check(file, file.tiny)


def test_missing_canary_says_how_to_add_it(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"run python -m retable\.testing .*canaries\.json plug"):
        testing.check_canary(plug_in(tmp_path), tmp_path / "canaries.json")


def test_moved_canary_asks_for_semantics(tmp_path: Path) -> None:
    canaries = tmp_path / "canaries.json"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    good, moved = plug_in(tmp_path / "one"), plug_in(tmp_path / "two", "x.relu()", "1.000001 * x.relu()")
    assert testing.add_canaries(canaries, [str(tmp_path / "one" / "plug.py")]) == ["plug@1"]
    testing.check_canary(good, canaries)
    with pytest.raises(AssertionError, match=r"raise SEMANTICS in models/plug\.py"):
        testing.check_canary(moved, canaries)


def test_recorded_canaries_are_kept_unless_replaced(tmp_path: Path) -> None:
    canaries, name = tmp_path / "canaries.json", str(tmp_path / "plug.py")
    plug_in(tmp_path)
    canaries.write_text('{"plug@1": [0.0]}')
    assert testing.add_canaries(canaries, [name]) == []
    assert testing.add_canaries(canaries, [name], replace=True) == ["plug@1"]
    testing.check_canary(registry.load(name), canaries)
