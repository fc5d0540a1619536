"""What a training takes from an earlier one, and which pairs do not go together. Pure; see ``train/stages.py``."""

from __future__ import annotations

from typing import Literal

from retable import registry
from retable.study.problems import YamlPath
from retable.study.resolve import Fault, Leaf, Leaves, Resolved, Unresolvable

HEAD_ONLY = "head_only"
"""The knob of a model that can be trained on the features of another run, and has an ``embed`` that gives them."""


def on_features(parent: Resolved, origin: YamlPath) -> Leaves:
    """The settings of a training on the features of ``parent``: the head alone.

    Raises:
        Unresolvable: the model has no head of its own, or the recipe asks for changed pixels.
    """
    config = parent.config
    name = str(config.model["name"])
    if HEAD_ONLY not in registry.load(name).config_class.model_fields:
        message = f"{name} cannot be trained on another run's features: it has no knob {HEAD_ONLY}"
        raise Unresolvable([Fault("model", origin, message, "features", "use: weights")])
    if config.recipe.contrast:
        message = f"contrast {config.recipe.contrast} changes pixels, and features are computed once"
        raise Unresolvable([Fault("recipe", origin, message, "features", "set recipe.contrast to 0")])
    settings = {f"model.{HEAD_ONLY}": True, "model.weights": "none"}
    return {path: Leaf(value, origin) for path, value in settings.items()}


def of_centre_views(child: Resolved, origin: YamlPath) -> Leaves:
    """What a training on features is also set to where no random views are kept: no crops are drawn."""
    return {} if child.config.recipe.feature_views else {"recipe.crop": Leaf("center", origin)}


def refuse_misfits(parent: Resolved, child: Resolved, use: Literal["weights", "features"], origin: YamlPath) -> None:
    """Refuse a training whose earlier stage is of something else.

    Raises:
        Unresolvable: another model, stream or number of classes, with both named.
    """
    pairs = {
        "model": (parent.config.model["name"], child.config.model["name"]),
        "stream": (parent.config.data.stream, child.config.data.stream),
        "number of classes": (parent.config.data.num_classes, child.config.data.num_classes),
    }
    faults = [
        Fault("init_from", origin, f"the earlier stage has the {what} {theirs}, but its {use} go to one with {ours}")
        for what, (theirs, ours) in pairs.items()
        if theirs != ours
    ]
    if faults:
        raise Unresolvable(faults)
