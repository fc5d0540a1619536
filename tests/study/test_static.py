"""Static columns: counts of a config's model, in the column's unit."""

from __future__ import annotations

from typing import Any

import pytest

from retable import registry
from retable.study.config import Config, Data, Recipe
from retable.study.static import in_unit, static_counts


def config(**knobs: Any) -> Config:
    """The smallest MSF-Net with some knobs changed."""
    file = registry.load("msfnet")
    model = file.config_class.model_validate({**file.tiny.model_dump(), **knobs})
    data = Data(dataset="ucf101", num_classes=5)
    return Config(model={"name": "msfnet", **model.model_dump(mode="json")}, data=data, recipe=Recipe(epochs=1))


def test_the_tiny_model_has_the_specified_size() -> None:
    assert static_counts(config(attention="none"), "params") == 345_889
    assert static_counts(config(attention="none"), "gmacs") == pytest.approx(23.88e6, rel=0.001)


def test_the_clip_changes_operations_and_not_parameters() -> None:
    short, long = config(backbone="c3d"), config(backbone="c3d", frames=16)
    assert static_counts(short, "params") == static_counts(long, "params")
    assert static_counts(long, "gmacs") > 1.9 * static_counts(short, "gmacs")


def test_a_model_is_counted_once_whatever_its_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    one = config(groups=3)
    other = one.model_copy(update={"recipe": Recipe(epochs=9)})
    counted = static_counts(one, "params")
    monkeypatch.setattr(registry, "load", None)  # building it again would fail
    assert static_counts(other, "params") == counted


@pytest.mark.parametrize(
    ("metric", "unit", "shown"),
    [("params", "M", 21.5), ("params", "", 21.5e6), ("gmacs", "G", 0.0215), ("gmacs", "", 0.0215)],
)
def test_units(metric: str, unit: str, shown: float) -> None:
    assert in_unit(21.5e6, metric, unit) == pytest.approx(shown)
