"""Filling a freshly built model from a file of weights: found, verified, mapped, copied in place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from retable.nn.pretrained import OtherArchitecture
from retable.weights import WeightsError
from retable.weights.sources import Source, file_hash, of_config


def load_pretrained(model: nn.Module, config: Mapping[str, Any]) -> None:
    """Fill ``model`` as a config's ``model`` section says; nothing happens with ``weights: none``.

    Tensors are copied into the parameters where those are (any device, any memory format), and no random number is
    drawn: with and without weights the other parameters start from the same values.

    Raises:
        WeightsError: the file is missing, damaged, or of another network.
    """
    source = of_config(config)
    if source is None:
        return
    path = present(source)
    state = read(verified(path, source.sha256))
    try:
        filled = fitted(model, state)
    except OtherArchitecture as error:
        raise WeightsError(f"the weights in {path} do not fit {config['name']}: {error}") from error
    model.load_state_dict(filled, strict=False)


def folder() -> Path:
    """Where files of weights lie: ``$RETABLE_WEIGHTS``, else torch hub's folder of checkpoints."""
    given = os.environ.get("RETABLE_WEIGHTS")
    return Path(given).expanduser() if given else Path(torch.hub.get_dir()) / "checkpoints"


def located(source: Source) -> Path:
    """Where the file of a source is, or would be."""
    return folder() / source.file  # an absolute path stays itself


def present(source: Source) -> Path:
    """The file of a source.

    Raises:
        WeightsError: it is not there; the message says how to get it and where to put it.
    """
    path = located(source)
    if path.is_file():
        return path
    if source.url is None:
        raise WeightsError(f"there is no file of weights at {path}: put it there, on every machine that trains")
    raise WeightsError(
        f"the weights {source.name} are not here: there is no file {source.file} in {path.parent}. With a network, run"
        f" `retable weights fetch {source.name}`. Without one, download {source.url} elsewhere, keep its name, and put"
        f" it there, or set RETABLE_WEIGHTS to the folder that has it"
    )


def verified(path: Path, sha256: str) -> Path:
    """``path``, whose content's hash begins with ``sha256``.

    Raises:
        WeightsError: it does not: the file is damaged, truncated or another.
    """
    found = file_hash(path)
    if not found.startswith(sha256):
        raise WeightsError(
            f"{path} ({path.stat().st_size:,} bytes) is damaged or another file: its SHA-256 is {found[:16]}..., but"
            f" should begin with {sha256}; remove it and get it again"
        )
    return path


def read(path: Path) -> dict[str, Tensor]:
    """The named tensors in a file, on the CPU. Runs no code from the file.

    Raises:
        WeightsError: it cannot be read so, or holds something else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile, pickle and torch each have their own way to fail on what is no such file
        raise WeightsError(f"{path} cannot be read as weights: {str(error).splitlines()[0]}") from error
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} is not a state dict: it should map names to tensors, and nothing else")
    return {str(name): tensor for name, tensor in state.items()}


def fitted(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of ``model`` that an image network's ``state`` fills, by the model's names.

    Raises:
        OtherArchitecture: ``state`` is of another network; names or shapes differ.
    """
    filled: dict[str, Tensor] = model.pretrained(dict(state))  # type: ignore[operator]
    ours = model.state_dict()
    for name, tensor in filled.items():
        if name not in ours:
            raise OtherArchitecture(f"the model has no {name}")
        if tensor.shape != ours[name].shape:
            raise OtherArchitecture(f"{name} is {tuple(tensor.shape)}, but should be {tuple(ours[name].shape)}")
    return filled
