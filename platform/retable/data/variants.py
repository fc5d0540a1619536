"""The frozen table of generated datasets: one variant per paper dataset, each with its own seed, classes and size.

Plain data: the layout and the planner read it without generating anything. Changing a line changes the videos, so a
changed spec must get a new name or a raised ``GENERATOR`` number.
"""

from __future__ import annotations

from dataclasses import dataclass

GENERATOR = 1
"""Raised when the same spec would give other pixels."""

PAIRS: tuple[tuple[str, str], ...] = (
    ("MoveLeft", "MoveRight"),
    ("MoveUp", "MoveDown"),
    ("Grow", "Shrink"),
    ("TurnClockwise", "TurnCounterClockwise"),
    ("FlashThenJump", "JumpThenFlash"),
    ("SwingSlow", "SwingFast"),
)
"""Classes that differ only by motion over time."""

SHORTEST = (28, 28, 28, 32, 36, 40)
"""Frames that a video of each pair needs to hold its longest action and two still frames at either end."""

MIRRORED: tuple[tuple[str, str], ...] = (PAIRS[0], PAIRS[3])
"""Pairs whose labels a horizontal mirror swaps."""


@dataclass(frozen=True)
class Variant:
    """``groups`` scenes, each filmed ``clips`` times per class; ``frames`` gives the shortest and longest video."""

    seed: int
    pairs: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    groups: int = 15
    clips: int = 2
    width: int = 96
    height: int = 72
    frames: tuple[int, int] = (40, 60)
    fps: int = 25

    def __post_init__(self) -> None:
        needed = max(SHORTEST[pair] for pair in self.pairs)
        if self.frames[0] < needed:
            raise ValueError(f"videos of {self.frames[0]} frames are too short: pairs {self.pairs} need {needed}")

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted(name for pair in self.pairs for name in PAIRS[pair]))

    @property
    def videos(self) -> int:
        return len(self.classes) * self.groups * self.clips

    def test_groups(self, split: int) -> range:
        """Groups (1-based) that split 1, 2 or 3 tests on: disjoint thirds, so that no scene is in train and test."""
        third = self.groups // 3
        return range((split - 1) * third + 1, split * third + 1)


VARIANTS: dict[str, Variant] = {
    "motions": Variant(seed=1),
    "motions-ucf101": Variant(seed=101),
    "motions-kinetics": Variant(seed=400, groups=18),
    "motions-hmdb51": Variant(seed=51, pairs=(0, 1, 2, 3, 4)),
    "motions-jhmdb": Variant(seed=21, pairs=(1, 2, 3, 4), groups=12, frames=(36, 44)),
    "motions-ssv1": Variant(seed=174, groups=12),
    "motions-ssv2": Variant(seed=1742, groups=18),
    "motions-thumos14": Variant(seed=14, pairs=(0, 2, 3, 4, 5), groups=12),
    "motions-ucf11": Variant(seed=11, pairs=(0, 1, 2, 3), groups=12),
    "motions-ucfsports": Variant(seed=10, pairs=(0, 1, 3), groups=12),
}
