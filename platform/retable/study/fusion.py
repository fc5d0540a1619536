"""Which evaluations can be fused: those of the same videos. Pure; the arithmetic is in ``track/scores.py``."""

from __future__ import annotations

from collections.abc import Sequence

from retable.study.problems import YamlPath
from retable.study.resolve import Fault, Resolved, Unresolvable

SAME = ("dataset", "split", "holdout", "on_damage", "num_classes")
"""Settings of the data that decide which videos are scored, and as which classes."""


def refuse_other_videos(parts: Sequence[Resolved], origin: YamlPath) -> None:
    """Refuse to fuse the scores of different videos before anything is trained for it.

    Raises:
        Unresolvable: the parts differ in what is scored; each difference with both values.
    """
    first = parts[0].config.data
    faults = []
    for part in parts[1:]:
        for name in SAME:
            ours, theirs = getattr(first, name), getattr(part.config.data, name)
            if ours != theirs:
                message = f"scores of different videos cannot be fused: {ours!r} here, {theirs!r} there"
                faults.append(
                    Fault(f"data.{name}", origin, message, hint="fuse columns of the same data.dataset and split")
                )
    if faults:
        raise Unresolvable(faults)
