"""Per-video scores, where training and evaluation look for them; they live beside the records that hold them."""

from retable.track.scores import Scores, confusion, metrics, ranks

__all__ = ["Scores", "confusion", "metrics", "ranks"]
