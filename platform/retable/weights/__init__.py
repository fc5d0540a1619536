"""Weights that a training starts from: what ``model.weights`` means, where the files lie, how they are loaded.

A value is ``none``, ``imagenet`` (torchvision's IMAGENET1K_V1), ``imagenet-v2``, a path, or a URL. Nothing is ever
downloaded while a run trains: only ``retable weights fetch`` reaches for the network.
"""

from __future__ import annotations

from retable.data.errors import DataError


class WeightsError(DataError):
    """Weights that are missing, damaged, of another network, or not known by their content."""
