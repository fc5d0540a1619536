"""What is known of a search's trials, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

State = Literal["complete", "pruned", "failed", "running", "recorded"]
"""``recorded``: a run that was finished by something else than this search, and that the sampler learnt from."""


@dataclass(frozen=True)
class TrialRecord:
    """One trial. ``values``: the objectives' (a pruned trial's: its last epoch's); ``spent``: epochs trained for it by
    the search; ``epochs``: epochs that its run has. ``label``: the row of the study that it is, if it was given one.
    ``seconds``: of training those it spent, on ``gpus`` GPUs."""

    number: int
    state: State
    point: dict[str, Any]
    values: tuple[float, ...]
    run_id: str
    sampler: str
    spent: int
    epochs: int
    label: str | None = None
    reason: str | None = None
    seconds: float = 0.0
    gpus: float = 0.0

    @property
    def shared(self) -> bool:
        """Whether its value cost the search nothing."""
        return self.state in ("complete", "recorded") and self.spent == 0


def better(one: float, other: float, maximize: bool) -> bool:
    """Whether ``one`` is strictly better."""
    return one > other if maximize else one < other


def front(trials: list[TrialRecord], maximize: tuple[bool, ...]) -> list[TrialRecord]:
    """The best whole trials, by number: those that no other beats in one objective without losing in another.

    With one objective, the best one (the first of equals).
    """
    whole = [t for t in trials if t.state in ("complete", "recorded")]
    found = [t for t in whole if not any(_dominates(o.values, t.values, maximize) for o in whole)]
    return found[:1] if len(maximize) == 1 else found


def _dominates(one: tuple[float, ...], other: tuple[float, ...], maximize: tuple[bool, ...]) -> bool:
    pairs = list(zip(one, other, maximize, strict=True))
    return any(better(a, b, up) for a, b, up in pairs) and not any(better(b, a, up) for a, b, up in pairs)
