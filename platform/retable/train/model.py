"""From a config to a model on a device, and from a batch of uint8 clips to what its ``forward`` takes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, cast

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from retable import registry
from retable.nn import InputSpec, Normalisation
from retable.study.config import Config

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def build_model(config: Config) -> nn.Module:
    """The model of ``config`` on the CPU, its weights drawn from torch's global generator."""
    file, settings = _settings(config)
    model = file.build(settings)
    model.input_specs = file.inputs(settings)  # type: ignore[assignment]
    return model


def inputs(config: Config) -> dict[str, InputSpec]:
    """The named inputs of the model of ``config``."""
    file, settings = _settings(config)
    return file.inputs(settings)


def _settings(config: Config) -> tuple[registry.ModelFile, BaseModel]:
    knobs = dict(config.model)
    file = registry.load(knobs.pop("name"))
    return file, file.config_class(**knobs)


def input_specs(model: nn.Module) -> dict[str, InputSpec]:
    """The named inputs of a model that :func:`build_model` made."""
    return cast("dict[str, InputSpec]", model.input_specs)


def load_weights(model: nn.Module, weights: Mapping[str, Any]) -> nn.Module:
    """``model`` with ``weights``, every one of which must fit."""
    model.load_state_dict(weights)
    return model


def channels_last(model: nn.Module) -> nn.Module:
    """Lay out the weights of 2-D and 3-D convolutions channels-last, in place."""
    for parameter in model.parameters():
        if parameter.dim() in _FORMATS:
            parameter.data = parameter.data.contiguous(memory_format=_FORMATS[parameter.dim()])
    return model


def to_inputs(
    clips: Mapping[str, Tensor], specs: Mapping[str, InputSpec], device: torch.device, *, last: bool = False
) -> dict[str, Tensor]:
    """``{name: uint8 (B, T, H, W, C)}`` -> ``{name: float (B, T, C, H, W)}``, normalised on the device.

    What comes as floating point (features) is ``(B, T, C, H, W)`` already and no picture: it passes unchanged.

    With ``last`` the memory stays as the pixels came, channels last: what a model then folds into ``(B, C, T, H, W)``
    or ``(B * T, C, H, W)`` is channels-last without a copy.

    Raises:
        ValueError: the data does not give an input, or gives it in another shape.
    """
    return {name: _to_input(name, clips, spec, device, last=last) for name, spec in specs.items()}


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy on ``device`` that, for a GPU, does not make the host wait."""
    if device.type != "cuda":
        return tensor.to(device)
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)


def _to_input(name: str, clips: Mapping[str, Tensor], spec: InputSpec, device: torch.device, *, last: bool) -> Tensor:
    if name not in clips:
        raise ValueError(f"the model takes the input {name!r}, but the data gives {', '.join(sorted(clips))}")
    given = to_device(clips[name], device)
    pixels = given if given.is_floating_point() else given.permute(0, 1, 4, 2, 3)
    if tuple(pixels.shape[1:]) != spec.shape:
        raise ValueError(
            f"the model takes {name} clips (T, C, H, W) of {spec.shape}, but the data gives {tuple(pixels.shape[1:])}"
        )
    if given.is_floating_point():
        return given.to(getattr(torch, spec.dtype))
    keep = torch.preserve_format if last else torch.contiguous_format
    floats = pixels.to(getattr(torch, spec.dtype), memory_format=keep)
    mean, std = _statistics(spec.normalisation, floats.dtype, device)
    return floats.div_(255).sub_(mean).div_(std)


@functools.cache
def _statistics(normalisation: Normalisation, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation as ``(C, 1, 1)`` on the device."""
    mean, std = (
        torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)
        for values in (normalisation.mean, normalisation.std)
    )
    return mean, std
