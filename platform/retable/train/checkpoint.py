"""A run's state as bytes and back: everything that the next update depends on, and whose state it is.

Bytes are a ``torch.save`` archive that ``torch.load(weights_only=True)`` reads. Where they are kept is not known here.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from retable.study.config import Config
from retable.study.identity import digest

FORMAT = 1


class CheckpointMismatch(RuntimeError):
    """The checkpoint belongs to another run."""


class CorruptCheckpoint(RuntimeError):
    """The bytes are no whole checkpoint: the caller takes the next older one."""


@dataclass(frozen=True)
class State:
    """Where a run stands: ``step`` updates into ``epoch``; ``epoch == recipe.epochs`` means finished.

    ``ranks`` holds, for every process, its random states and what it has summed up in the unfinished epoch.
    ``best`` is the best top-1 on the held-out videos so far, percent. ``metrics`` are those of the last finished epoch,
    so that a run which dies before they are kept elsewhere does not have to train it again.
    """

    stamp: str
    seed: int
    epoch: int
    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    ranks: list[dict[str, Any]]
    best: float | None
    metrics: dict[str, float]


def stamp(config: Config) -> str:
    """A config's id inside checkpoints: every setting but those that say where files are, which may move."""
    body = config.model_dump(mode="json")
    body["data"].pop("dataset")
    if body["model"].get("weights", "none") != "none":
        body["model"]["weights"] = "given"
    if (body["data"].get("flow") or {}).get("weights"):
        body["data"]["flow"]["weights"] = "given"
    return digest(body)


def pack(state: State) -> bytes:
    """The state as bytes."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **vars(state)}, buffer)
    return buffer.getvalue()


def unpack(data: bytes) -> State:
    """The state in ``data``, its tensors on the CPU.

    Raises:
        CorruptCheckpoint: truncated, damaged (every checksum is verified), or not a checkpoint of this format.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:  # torch.load does not look at the checksums
            damaged = archive.testzip()
        if damaged is not None:
            raise CorruptCheckpoint(f"checkpoint of {len(data)} bytes: {damaged} does not match its checksum")
        body = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        found = body.pop("format")
        if found != FORMAT:
            raise CorruptCheckpoint(f"checkpoint of format {found}, but this version reads format {FORMAT}")
        return State(**body)
    except CorruptCheckpoint:
        raise
    except Exception as error:  # zipfile, pickle and torch each have their own way to fail on damaged bytes
        raise CorruptCheckpoint(f"checkpoint of {len(data)} bytes cannot be read: {error}") from error


def check(state: State, config: Config, seed: int | None = None) -> None:
    """Refuse a state of another config or, if ``seed`` is given, of another seed.

    Raises:
        CheckpointMismatch: naming both.
    """
    wanted = stamp(config)
    if state.stamp != wanted:
        raise CheckpointMismatch(
            f"the checkpoint is of config {state.stamp}, this run is of config {wanted}: continue it with the config it"
            " was made with, or start this run without a checkpoint"
        )
    if seed is not None and state.seed != seed:
        raise CheckpointMismatch(
            f"the checkpoint is of seed {state.seed}, this run is of seed {seed} (config {wanted}): continue it with"
            f" seed {state.seed}, or start this run without a checkpoint"
        )
