"""The generated datasets ``motions-*`` (see :mod:`retable.data.generate`), stored in UCF101's on-disk layout."""

from __future__ import annotations

from retable.data.layouts import RANDOM_SPLITS, FlipRule
from retable.data.layouts.ucf101 import TREE, read
from retable.data.variants import MIRRORED, VARIANTS

NUM_CLASSES = None
SPLITS = (1, 2, 3, *RANDOM_SPLITS)

__all__ = ["NUM_CLASSES", "SPLITS", "TREE", "flip", "generate_command", "num_classes", "read"]


def num_classes(dataset: str) -> int | None:
    """Classes of one variant, from its frozen spec; None for a variant that retable does not know."""
    return len(VARIANTS[dataset].classes) if dataset in VARIANTS else None


def generate_command(dataset: str) -> str:
    """The command that makes ``dataset``."""
    return f"retable data generate {dataset}"


def flip(classes: tuple[str, ...]) -> FlipRule:
    """A mirror swaps left with right and clockwise with counter-clockwise, where both are there."""
    return tuple(pair for pair in MIRRORED if set(pair) <= set(classes))
