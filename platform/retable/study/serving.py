"""Protocols and augmentation that a config cannot serve, known before anything trains."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from retable import registry
from retable.data.config import Data, Protocol
from retable.study.config import Recipe

Refusal = tuple[str, Any, str, str]
"""Dotted path, value, what is wrong with it, and the way out."""


def refusals(model: dict[str, Any], data: Data, recipe: Recipe, protocol: Protocol) -> Iterator[Refusal]:
    """What the settings of different sections ask of each other and cannot have.

    ``model`` is a config's: ``name`` and every knob, valid on their own.
    """
    clip, size = data.clip, protocol.size
    smallest = recipe.jitter[0] * clip.short_side
    if recipe.crop == "jitter" and smallest < clip.size:
        message = f"makes frames of {smallest:g} pixels, too few for crops of {clip.size}"
        yield "recipe.jitter", list(recipe.jitter), message, "raise its first factor, or data.clip.resize"
    if size in (None, clip.size):
        return
    assert size is not None
    if size > clip.short_side:
        message = f"is {size}, but frames have a short side of {clip.short_side} pixels"
        yield "protocol.size", size, message, f"set data.clip.resize to {size} or more"
    elif model and (reason := _unfit(json.dumps(model, sort_keys=True), size)):
        message = f"{model['name']}, trained on crops of {clip.size}, cannot be tested on crops of {size}: {reason}"
        yield "protocol.size", size, message, "leave protocol.size out"


@functools.cache
def _unfit(model: str, size: int) -> str | None:
    """Why a model trained at its own size is not the same network at ``size``: it refuses it, or has other weights."""
    from retable.nn import count

    knobs = json.loads(model)
    file = registry.load(knobs.pop("name"))
    own = file.config_class.model_validate(knobs)
    try:
        other = file.config_class.model_validate({**knobs, "size": size})
    except ValidationError as error:
        return str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
    ours, theirs = (count.on_meta(functools.partial(file.build, c)).state_dict() for c in (own, other))
    for name in sorted(ours.keys() | theirs.keys()):
        shapes = [tuple(state[name].shape) if name in state else None for state in (ours, theirs)]
        if shapes[0] != shapes[1]:
            return f"{name} would be {shapes[1]} instead of {shapes[0]}"
    return None
